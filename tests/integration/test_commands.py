"""What every command promises: its JSON has a schema, its words a terminal, its end no traceback."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from cytowatch.cli.schema import schema_of
from tests import builders
from tests.builders import vendors
from tests.lab.root import STAGES, Root
from tests.needs import needs

HOSTILE = "evil\x1b]0;owned\x07\u202egpj.\n[bold]x[page=3].png"


def told(root: Root, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    at = ["--root", str(root.path), "--config", str(root.config)]
    done = subprocess.run(
        [*root.command(*words), *at], capture_output=True, text=True, timeout=60, check=False,
        **options,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


def valid(root: Root, name: str, *words: str) -> Any:
    """What the command prints with --json, which its schema describes."""
    done = told(root, name, *words, "--json")
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    schema = schema_of(name)
    manifest = schema["$defs"]["manifest"]
    registry: Registry = Registry().with_resource(manifest["$id"], Resource.from_contents(manifest))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema, registry=registry).validate(document)
    return document


def fill(root: Root, tmp_path: Path) -> None:
    """A pyramid, a native slide, an error, an archive, and a set that waits."""
    root.configure(
        more='[[hooks]]\nname = "viewer"\non = ["DEPLOYED"]\ncommand = ["/bin/false"]\nmax_attempts = 1'
    )
    builders.png(tmp_path / "flat.png")
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.drop(tmp_path / "flat.png", HOSTILE)
    (root.path / "inbox" / "ann" / "letter.pdf").write_bytes(b"%PDF-1.4 hello")
    (tmp_path / "z").mkdir()
    builders.jpeg(tmp_path / "z" / "x.jpg")
    shutil.make_archive(str(tmp_path / "case"), "zip", root_dir=tmp_path / "z")
    root.drop(tmp_path / "case.zip", user="bob")
    assert root.run_until_idle() == 1
    vendors.mirax_mrxs(tmp_path, "M")
    root.drop(tmp_path / "M.mrxs")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Root:
    made = Root(tmp_path_factory.mktemp("filled") / "root")
    assert subprocess.run(made.command("init", str(made.path)), check=False).returncode == 0
    fill(made, tmp_path_factory.mktemp("made"))
    return made


def test_every_reading_command_has_a_schema_that_holds(filled: Root) -> None:
    """With all kinds of uploaded files there, and no daemon."""
    listed = valid(filled, "list")
    assert {one["status"] for one in listed} == {
        "DEPLOYED", "CONVERTED", "ERROR_FORMAT", "EXTRACTED",
    }  # fmt: skip
    assert valid(filled, "show", listed[0]["id"])["id"] == listed[0]["id"]
    page = valid(filled, "status")
    assert page["dead_letters"]
    assert valid(filled, "watch")["ended"]
    assert valid(filled, "hooks")["dead"]
    assert valid(filled, "check")
    assert valid(filled, "check", "--deep")
    assert valid(filled, "verify")["damaged"] == []


def test_the_schemas_hold_beside_a_daemon(root: Root, tmp_path: Path) -> None:
    """With something in work, something that waits, and someone paused."""
    root.environment = dict(STAGES)
    root.start()
    builders.png(tmp_path / "flat.png")
    root.drop(tmp_path / "flat.png", "pause-CONVERTING.png")
    vendors.mirax_mrxs(tmp_path, "M")
    root.drop(tmp_path / "M.mrxs", user="bob")
    (root.path / "inbox" / "cem").mkdir()
    assert told(root, "pause", "--user", "cem").returncode == 0
    root.wait(lambda: valid(root, "status")["in_work"] and valid(root, "status")["waiting"])
    # Until it has settled, what is said of it changes from one command to the next.
    root.wait(lambda: [one["why"] for one in valid(root, "watch")["waiting"]] == ["incomplete"])
    page = valid(root, "watch")
    assert page["in_work"][0]["name"] == "pause-CONVERTING.png"
    assert page["waiting"][0]["why"]
    [drop] = valid(root, "list", "--status", "waiting")
    assert {**drop, "bytes_per_s": None} == page["waiting"][0]
    assert valid(root, "list", "--status", "waiting", "--user", "ann") == []
    assert [one["name"] for one in valid(root, "list", "--status", "in-progress")] == [
        "pause-CONVERTING.png"
    ]
    assert valid(root, "status")["paused"]["users"] == ["cem"]
    assert root.stop() == 0


def test_commands_without_a_tree_have_schemas_too(tmp_path: Path) -> None:
    """`detect` and `formats`; `schema` names all there are, and refuses others."""
    (tmp_path / "a.svs").write_text("hello")
    slide = builders.aperio_svs(tmp_path / "b.svs")
    cytowatch = [sys.executable, "-m", "cytowatch"]
    for words in (["detect", str(tmp_path / "a.svs"), str(slide)], ["formats"]):
        done = subprocess.run([*cytowatch, *words, "--json"], capture_output=True, check=False)
        schema = schema_of(words[0])
        jsonschema.Draft202012Validator(schema).validate(json.loads(done.stdout))
    names = subprocess.run([*cytowatch, "schema"], capture_output=True, text=True, check=True)
    for name in names.stdout.split():
        printed = subprocess.run([*cytowatch, "schema", name], capture_output=True, check=True)
        assert json.loads(printed.stdout) == schema_of(name)
    wrong = subprocess.run([*cytowatch, "schema", "x"], capture_output=True, check=False)
    assert wrong.returncode == 2


def test_every_json_option_has_its_schema() -> None:
    """A command that gets `--json` later must say its shape."""
    from typer.main import get_command

    from cytowatch.cli.commands import application

    commands = get_command(application()).commands  # type: ignore[attr-defined]
    with_json = {
        name
        for name, one in commands.items()
        if any("--json" in parameter.opts for parameter in one.params)
    }
    assert with_json == {
        "status", "list", "show", "watch", "check", "detect", "formats", "verify", "hooks",
    }  # fmt: skip
    for name in with_json:
        assert schema_of(name)


def test_every_command_is_in_the_room_that_is_loaded_for_it() -> None:
    """One that is in another would not be found."""
    from cytowatch.cli.commands import ROOMS, application

    found: dict[str, list[str]] = {}
    for one in application().registered_commands:
        assert one.callback
        room = one.callback.__module__.removeprefix("cytowatch.cli.")
        found.setdefault(room, []).append(one.name or one.callback.__name__)
    for group in application().registered_groups:
        # Commands of two words, such as `token add`.
        [first, *_] = group.typer_instance.registered_commands
        room = first.callback.__module__.removeprefix("cytowatch.cli.")
        found.setdefault(room, []).append(group.name or group.typer_instance.info.name)
    assert found == {room: list(commands) for room, commands in ROOMS.items()}


def in_a_terminal(root: Root, *words: str, **environment: str) -> str:
    """What the command prints on a terminal of its own."""
    import pty

    ours, theirs = pty.openpty()
    given = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    process = subprocess.Popen(
        [*root.command(*words), "--root", str(root.path), "--config", str(root.config)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**given, "COLUMNS": "100", **environment},
    )  # fmt: skip
    os.close(theirs)
    found = b""
    try:
        while part := os.read(ours, 65536):
            found += part
    except OSError:
        pass
    process.wait(30)
    os.close(ours)
    return found.decode()


def test_colours_only_where_they_are_wanted(filled: Root) -> None:
    """On a terminal that has them; never with NO_COLOR, on a dumb one, or into a pipe."""
    coloured = in_a_terminal(filled, "list", TERM="xterm-256color")
    assert "\x1b[32m" in coloured
    for environment in ({"TERM": "xterm-256color", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = in_a_terminal(filled, "list", **environment)
        assert "\x1b[3" not in plain
        assert "CONVERTED" in plain
    assert "\x1b" not in told(filled, "list").stdout


def test_a_hostile_name_does_nothing_to_a_terminal(filled: Root) -> None:
    """Not as a sequence, not as markup, not by turning the line round; on any command."""
    row = next(one for one in valid(filled, "list") if one["name"].startswith("evil"))
    assert row["name"] == HOSTILE
    for words in (["list"], ["show", row["id"]], ["status"], ["watch", "--once"]):
        printed = in_a_terminal(filled, *words, TERM="xterm-256color")
        for bad in ("\x1b]0", "\x07", "\u202e"):
            assert bad not in printed, words
        if words[0] == "show":
            assert "\\x1b]0;owned\\x07\\u202egpj.\\n[bold]x[page=3].png" in printed.replace(
                "\r\n", ""
            )
    wrong = told(filled, "show", "\x1b]0;owned\x07")
    assert wrong.returncode == 2
    assert "\x1b" not in wrong.stderr


def test_an_output_that_takes_no_more(filled: Root) -> None:
    """A full disk below it, and a reader that has gone: a line or nothing, and exit code 1."""
    command = [*filled.command("list", "--json"), "--root", str(filled.path)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_ctrl_c_is_no_error(filled: Root) -> None:
    """It ends at once, by one line at most."""
    process = subprocess.Popen(
        [*filled.command("watch"), "--root", str(filled.path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        # A shell that started these tests in the background lets them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert process.stdout
    # Its first page: it watches by now.
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate()
    assert process.returncode in (0, 130)
    assert b"Traceback" not in out + error
    assert error.count(b"\n") <= 1


@functools.cache
def completion() -> str:
    """The completion for bash that cytowatch itself gives."""
    words = [sys.executable, "-m", "cytowatch", "--show-completion", "bash"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def complete(root: Root, line: str) -> list[str]:
    """What a real bash offers for `line`."""
    bin_ = Path(sys.executable).parent
    script = (
        f"{completion()}\n"
        f"COMP_WORDS=({line})\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
        "_cytowatch_completion cytowatch\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "CYTOWATCH_ROOT": str(root.path)},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@needs("bash")
def test_the_shell_completes(filled: Root, tmp_path: Path) -> None:
    """Ids and names by their beginning; users, statuses, reasons; nothing amiss without a tree."""
    by_name = filled.by_name()
    slide = by_name["a.svs"]["id"]
    assert complete(filled, f"cytowatch show {slide[:-2]}") == [slide]
    assert complete(filled, "cytowatch show a.s") == ["a.svs"]
    # By the four characters of an id, which every command takes for it.
    short = slide.split("-")[2]
    assert short in complete(filled, f"cytowatch show {short[:3]}")
    assert told(filled, "show", short).returncode == 0
    # Only what the command can act on: errors, and archives that may hold some; what is in storage; all.
    error, archive = by_name["letter.pdf"]["id"], by_name["case.zip"]["id"]
    day = slide[:8]
    assert set(complete(filled, f"cytowatch return {day}")) == {error, archive}
    deployable = set(complete(filled, f"cytowatch link {day}"))
    assert {slide, archive} <= deployable
    assert error not in deployable
    assert set(complete(filled, f"cytowatch show {day}")) == {one["id"] for one in by_name.values()}
    assert HOSTILE not in complete(filled, "cytowatch show evil")
    assert set(complete(filled, "cytowatch list --user ''")) == {"ann", "bob"}
    assert "error_format" in complete(filled, "cytowatch list --status error")
    assert complete(filled, "cytowatch list --status DEPLOYE") == ["DEPLOYED"]
    assert complete(filled, "cytowatch retry --reason unknown_f") == ["unknown_format"]
    assert complete(filled, "cytowatch list --status waiting --reason temp") == ["temporary_name"]
    assert complete(filled, "cytowatch list --format aper") == ["aperio-svs"]
    assert complete(filled, "cytowatch link a.svs --project ''") == []
    assert told(filled, "link", slide, "--project", "heart").returncode == 0
    assert complete(filled, "cytowatch unlink a.svs --project he") == ["heart"]
    filled_path, filled.path = filled.path, tmp_path / "nowhere"
    try:
        assert complete(filled, "cytowatch show a") == []
    finally:
        filled.path = filled_path


def test_dead_letters_are_tried_anew(root: Root, tmp_path: Path) -> None:
    """`hooks` shows them and exits 1; `hooks --retry` beside the daemon delivers them."""
    out = tmp_path / "out"
    program = tmp_path / "tell.sh"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    root.configure(
        more=f'[[hooks]]\nname = "viewer"\non = ["DEPLOYED"]\ncommand = ["{program}"]\nmax_attempts = 1'
    )
    root.start()
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.wait(lambda: valid(root, "hooks")["dead"])
    assert told(root, "hooks").returncode == 1
    program.write_text(f"#!/bin/sh\ncat > {out}\n")
    done = told(root, "hooks", "--retry")
    assert done.returncode == 0, done.stderr
    root.wait(lambda: out.exists() and out.stat().st_size)
    root.wait(lambda: not valid(root, "hooks")["pending"])
    assert valid(root, "hooks") == {"hooks": ["viewer"], "pending": [], "dead": []}
    assert root.stop() == 0
