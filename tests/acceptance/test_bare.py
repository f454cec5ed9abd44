"""A newcomer's machine: what CI installs is missing there, and `make test` skips what needs it, by name."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.machine import forget_cytowatch
from tests.needs import needs

HOUSE = Path(__file__).parents[2]

#: Programs that every machine has on which `make` and git are: those of GNU coreutils, and a shell.
BARE = frozenset(
    [
        "git",
        "make",
        "sh",
        "python3",
        "basename",
        "cat",
        "chgrp",
        "chmod",
        "chown",
        "cksum",
        "cp",
        "cut",
        "date",
        "dd",
        "df",
        "dirname",
        "du",
        "echo",
        "env",
        "expr",
        "false",
        "head",
        "id",
        "install",
        "link",
        "ln",
        "ls",
        "md5sum",
        "mkdir",
        "mkfifo",
        "mknod",
        "mktemp",
        "mv",
        "nl",
        "nproc",
        "od",
        "paste",
        "printf",
        "pwd",
        "readlink",
        "realpath",
        "rm",
        "rmdir",
        "seq",
        "sha256sum",
        "sleep",
        "sort",
        "split",
        "stty",
        "sum",
        "sync",
        "tail",
        "tee",
        "test",
        "timeout",
        "touch",
        "tr",
        "true",
        "truncate",
        "tsort",
        "tty",
        "uname",
        "uniq",
        "unlink",
        "wc",
        "who",
        "whoami",
        "yes",
    ]
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing but those."""
    folder = tmp_path_factory.mktemp("bin")
    for name in BARE:
        # A Python may be a script of a version manager, which would look for more programs.
        found = sys.executable if name == "python3" else shutil.which(name)
        if found:
            (folder / name).symlink_to(os.path.realpath(found) if name != "python3" else found)
    return folder


def make_test(bare: Path, words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`make test` with only what is in `bare` on the PATH."""
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_ADDOPTS")}
    kept = {key: value for key, value in kept.items() if not key.startswith("PYTEST_XDIST")}
    # The packages are not installed again, even if others are newer.
    command = ["make", "test", "--old-file=.venv/.installed", f"TESTS={words}"]
    if not (HOUSE / ".venv").exists():
        command.append(f"BIN={Path(sys.executable).parent}")
    return subprocess.run(
        command, cwd=HOUSE, env={**kept, "PATH": str(bare), **environment}, check=False,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_what_a_newcomer_lacks_is_skipped_by_name(bare: Path) -> None:
    """Not one test fails there, and each says what to install."""
    done = make_test(bare, "-m unless -rs -p no:cacheprovider tests")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    skipped = re.findall(r"^SKIPPED \[(\d+)\] [^ ]+ (.*)$", done.stdout, re.MULTILINE)
    assert sum(int(count) for count, _ in skipped) > 60
    for _, why in skipped:
        assert why.startswith(("missing: ", "it needs root", "no loop device")), why
    assert " failed" not in done.stdout


def test_what_ci_lacks_is_a_failure(bare: Path) -> None:
    """A test that never runs there would prove nothing."""
    done = make_test(bare, "-m unless -p no:cacheprovider tests/unit/test_house.py", CI="true")
    assert done.returncode != 0
    assert "CI must have all that tests need: missing: systemd-analyze" in done.stdout
    assert "skipped" not in done.stdout


def started(tree: ast.AST) -> Iterator[str]:
    """The programs that a module starts by their names."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        if called not in ("run", "Popen", "check_call", "check_output") or not node.args:
            continue
        words = node.args[0]
        if isinstance(words, ast.List) and words.elts and isinstance(words.elts[0], ast.Constant):
            yield str(words.elts[0].value)


#: They are started by tests that say what they need, in other modules.
_SAID_ELSEWHERE = {
    "disks.py": "test_held_up.py",
    "machine.py": "test_docs.py",
    "test_prometheus.py": "prometheus.py",
    "systemctl.py": "test_docs.py",
    "unit_sandbox.py": "test_docs.py",
    "test_disk.py": "disks.py",
    "test_start.py": "disks.py",
    "test_filesystems.py": "disks.py",
}


@pytest.mark.parametrize("path", sorted(HOUSE.glob("tests/**/*.py")), ids=lambda path: path.stem)
def test_every_program_that_a_test_starts_is_said_to_be_needed(path: Path) -> None:
    """Or it is one that every machine has."""
    text = path.read_text()
    elsewhere = HOUSE.glob(
        f"tests/**/{_SAID_ELSEWHERE[path.name]}" if path.name in _SAID_ELSEWHERE else "-"
    )
    said = "".join([text, *(one.read_text() for one in elsewhere)])
    named = re.findall(r"(?:needs|lacking|_TOOLS =) ?\((.*?)\)", said, re.DOTALL)
    programs = {one for one in started(ast.parse(text)) if not one.startswith("/")}
    for program in programs - BARE:
        assert any(f'"{program}"' in words for words in named), f"{path.name} starts {program}"


def test_a_machine_that_has_a_cytowatch_is_a_lab_all_the_same(tmp_path: Path) -> None:
    """Its user, unit and configuration are not in the copy in which the documents are tried."""
    (tmp_path / "systemd/system/multi-user.target.wants").mkdir(parents=True)
    (tmp_path / "systemd/system/cytowatch.service.d").mkdir()
    for name in ("cytowatch.service", "cytowatch.service.d/a.conf", "smbd.service"):
        (tmp_path / "systemd/system" / name).touch()
    wanted = tmp_path / "systemd/system/multi-user.target.wants/cytowatch.service"
    wanted.symlink_to("/etc/systemd/system/cytowatch.service")
    (tmp_path / "cytowatch").mkdir()
    (tmp_path / "cytowatch" / "cytowatch.toml").touch()
    (tmp_path / "passwd").write_text("root:x:0:0::/:/bin/sh\ncytowatch:x:999:999::/:/bin/false\n")
    (tmp_path / "group").write_text("root:x:0:\ncytowatch:x:999:\n")
    forget_cytowatch(tmp_path)
    assert (tmp_path / "passwd").read_text() == "root:x:0:0::/:/bin/sh\n"
    assert (tmp_path / "group").read_text() == "root:x:0:\n"
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert [one for one in left if "cytowatch" in one] == []
    assert "systemd/system/smbd.service" in left


@needs(root=True)
@pytest.mark.parametrize("words", [["run", "--until-idle"], ["verify"]])
def test_a_python_that_the_owner_cannot_read_is_named(words: list[str]) -> None:
    """Below root's home, say: in words, with what to do, and not as an unexpected error."""
    with private_python() as (python, tree):
        done = subprocess.run(
            [python, "-m", "cytowatch", *words, "--root", str(tree)],
            capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "who owns the tree, cannot read the Python" in done.stderr
        assert "/usr/bin/python3" in done.stderr
        told = subprocess.run(
            [python, "-m", "cytowatch", "check", "--root", str(tree), "--json"],
            capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        assert told.returncode == 1, told.stderr
        [found] = [one for one in json.loads(told.stdout) if one["name"] == "python"]
        assert found["good"] is False
        assert "cannot read the Python" in found["detail"]


@contextmanager
def private_python() -> Iterator[tuple[Path, Path]]:
    """A Python in a folder of root's own, and a tree of another user."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = Path(folder)
        place.chmod(0o755)
        private = place / "private"
        private.mkdir(mode=0o700)
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(private / "venv")], check=True
        )
        [packages] = (private / "venv").glob("lib/python*/site-packages")
        mine = "\n".join(path for path in sys.path if path.endswith("site-packages"))
        (packages / "tests.pth").write_text(f"{mine}\n{HOUSE}\n")
        tree = place / "tree"
        subprocess.run([sys.executable, "-m", "cytowatch", "init", str(tree)], check=True)
        for path in [tree, *tree.rglob("*")]:
            os.chown(path, 65534, 65534)
        yield private / "venv" / "bin" / "python", tree
