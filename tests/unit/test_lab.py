"""What holds for the tests themselves: they say their rule, assert what they mean to, and do not guess at time."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.lab.root import Root
from tests.lab.told import free_port

TESTS = Path(__file__).resolve().parents[1]

#: Fuzzers, whose inputs may end anywhere: there an assertion holds for what gets as far as to it.
FUZZERS = "fuzz/targets.py"

#: The sleeps of half a second or more in tests, by file and function, and what they are for.
SLEEPS = {
    "acceptance/test_cluster.py: test_a_worker_that_is_killed_costs_an_attempt_and_nothing_else": "another worker joins the scheduler, which says so to nobody",
    "acceptance/test_disk.py: test_a_log_on_the_full_disk_ends_nothing": "for as long as the slide is in work: neither log nor live view can be written",
    "acceptance/test_filesystems.py: test_a_filesystem_that_goes_read_only": "nothing is scanned while the tree cannot be written to",
    "acceptance/test_filesystems.py: test_a_tree_that_vanishes_is_offline_and_not_empty": "nothing is scanned while the tree is away",
    "acceptance/test_filesystems.py: test_a_quota_is_waited_out": "some attempts of a slide that waits; nothing can be written to say so",
    "acceptance/test_held_up.py: test_a_decoder_that_cannot_be_killed_yet_holds_up_nobody_else": "the disk hangs for longer than the zygote may take for an answer",
    "acceptance/test_hooks.py: do_POST": "the server that is too slow",
    "acceptance/test_start.py: test_what_passes_is_waited_for": "one more attempt to start, which says the same as the last",
    "acceptance/test_watch.py: test_a_request_wakes_a_daemon_at_rest": "it comes to rest, which nothing shows",
    "panel/test_hostile.py: test_slow_clients_hold_up_nobody": "the slow clients are slow",
}  # fmt: skip


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the tests by its path."""
    return {
        str(path.relative_to(TESTS)): ast.parse(path.read_text())
        for path in sorted(TESTS.rglob("*.py"))
    }


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of the tests, with its module."""
    for path, module in modules().items():
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef):
                yield path, node


def test_every_test_says_its_rule() -> None:
    """In its docstring: the name says what happens, and the docstring what must."""
    silent = [
        f"{path}: {function.name}"
        for path, function in functions()
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert silent == []


def _swallows(node: ast.AST) -> bool:
    """Whether an error inside of `node` ends it without a word."""
    if isinstance(node, ast.With):
        return any("suppress(" in ast.unparse(item.context_expr) for item in node.items)
    if isinstance(node, ast.Try):
        quiet = (ast.Pass, ast.Continue)
        return any(all(isinstance(one, quiet) for one in each.body) for each in node.handlers)
    return False


def skipped_asserts(module: ast.AST) -> list[int]:
    """The lines of assertions that an error before them, which is swallowed, would skip."""
    return [
        inner.lineno
        for node in ast.walk(module)
        if _swallows(node)
        for one in node.body
        for inner in ast.walk(one)
        if isinstance(inner, ast.Assert)
    ]


def test_no_assertion_can_be_skipped_by_an_error_that_is_swallowed() -> None:
    """An assertion inside of a `suppress` is reached only if nothing before it fails: such a test cannot fail."""
    found = [
        f"{path}:{line}"
        for path, module in modules().items()
        if path != FUZZERS
        for line in skipped_asserts(module)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("with suppress(OSError):\n    f()\n    assert x", [3]),
        ("try:\n    assert x\nexcept OSError:\n    pass", [2]),
        ("try:\n    x = f()\nexcept OSError:\n    pass\nassert x", []),
    ],
)
def test_a_skipped_assertion_is_found(text: str, lines: list[int]) -> None:
    """In both ways of writing it, and not where it comes after."""
    assert skipped_asserts(ast.parse(text)) == lines


def _sleeps(function: ast.FunctionDef) -> bool:
    """Whether it sleeps for half a second or more by a number that stands there."""
    inner = [one for one in ast.walk(function) if isinstance(one, ast.FunctionDef)][1:]
    of_others = {node for one in inner for node in ast.walk(one)}
    return any(
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "time.sleep"
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value >= 0.5
        for node in ast.walk(function)
        if node not in of_others
    )


def test_a_negative_is_not_proved_by_a_sleep() -> None:
    """`Root.two_more_scans` proves it; each sleep that is left has its reason here."""
    lab = ("lab/", "acceptance/probe.py")
    found = {
        f"{path}: {function.name}"
        for path, function in functions()
        if not path.startswith(lab) and _sleeps(function)
    }
    assert found == set(SLEEPS)


#: It goes on for so long in any case.
GOES_ON = {"acceptance/test_hostile.py"}


def test_what_is_waited_for_is_waited_for_long() -> None:
    """A bound ends what hangs and is `HANGS_S`: a few seconds are over on a busy machine before anything has happened."""
    bound = re.compile(
        r"end = time\.monotonic\(\) \+ [\d.]+$|\.(?:wait|join)\((?:[1-9]|[12]\d)\)", re.MULTILINE
    )
    found = {
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if bound.search(path.read_text())
    }
    # One is not to end, and the other one is killed then.
    assert found - GOES_ON == {"panel/test_send.py", "lab/samba.py"}


def test_no_configuration_is_changed_as_a_text() -> None:
    """`Root.configure` writes it: a replacement in a text that changes nothing is seen by nobody."""
    found = [
        f"{path}:{node.lineno}"
        for path, module in modules().items()
        if path != "unit/test_lab.py"
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and "root.config.read_text" in ast.unparse(node.func)
    ]
    assert found == []


def test_what_a_root_is_configured_with_is_what_its_file_says(tmp_path: Path) -> None:
    """Tables as mappings or as lines; each call begins again, `configure_also` goes on."""
    root = Root(tmp_path / "root")
    plain = tomllib.loads(root.config.read_text())
    assert plain["inbox"]["quiet_s"] == 0.3
    hook = '[[hooks]]\nname = "a"\non = ["DEPLOYED"]\ncommand = ["x", "\\"y\\""]\n'
    root.configure(
        listen="127.0.0.1:1",
        inbox={"quiet_s": 2, "users": {"Ann B": {"done_marker": ".done"}}},
        storage='hash = "after"',
        more=hook,
    )
    found = tomllib.loads(root.config.read_text())
    assert found["inbox"] == {
        **plain["inbox"], "quiet_s": 2, "users": {"Ann B": {"done_marker": ".done"}}
    }  # fmt: skip
    assert found["storage"] == {"reserve_bytes": 0, "hash": "after"}
    assert found["hooks"] == tomllib.loads(hook)["hooks"]
    assert found["metrics"] == {"listen": "127.0.0.1:1"}
    root.configure_also(storage={"reserve_bytes": None}, limits={"max_pixels": 7})
    again = tomllib.loads(root.config.read_text())
    assert again == {**found, "storage": {"hash": "after"}, "limits": {"max_pixels": 7}}
    root.configure()
    assert tomllib.loads(root.config.read_text()) == plain


def test_no_client_is_given_the_port_of_a_server_that_is_about_to_start() -> None:
    """The kernel gives clients ports of its own range only; two servers are not given the same one either."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    found = [free_port() for _ in range(50)]
    assert len(set(found)) > 40
    if first > 10_000:
        assert not [port for port in found if first <= port <= last]
