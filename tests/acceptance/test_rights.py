"""Parts of the tree that the daemon, or who types a command, may not use: as after a restore by root."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import builders
from tests.lab.root import Root
from tests.lab.told import free_port, json_lines
from tests.needs import needs

#: Root as any other user: it may use only what belongs to it.
WITHOUT = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
#: A number that belongs to nobody here.
STRANGER = 54321

PARTS = [
    "FORMAT", "inbox", "stages/uploaded", "stages/error-format", "storage", "projects", "status", "state",
    "state/tmp", "state/trash", "state/requests", "state/lock",
]  # fmt: skip


def asked(root: Root, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of a user who may use only what is theirs."""
    at = ["--root", str(root.path), "--config", str(root.config)]
    return subprocess.run(
        [*WITHOUT, *root.command(*words, *at)], capture_output=True, text=True, check=False
    )


def checked(root: Root) -> list[dict[str, Any]]:
    done = asked(root, "check", "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (1 if any(one["good"] is False for one in found) else 0)
    return found


@needs("setpriv", root=True)
@pytest.mark.parametrize("part", PARTS)
def test_each_part_that_may_not_be_used_is_named_with_its_owner(root: Root, part: str) -> None:
    """`check` says so before a start does, and whose it is; a chown makes it good."""
    (root.path / "state/lock").touch()
    assert not [one for one in checked(root) if one["good"] is False]
    path = root.path / part
    os.chown(path, STRANGER, STRANGER)
    path.chmod(0o700 if path.is_dir() else 0o600)
    wrong = [one["detail"] for one in checked(root) if one["good"] is False]
    assert any(f"{path} belongs to {STRANGER} (mode 0" in one for one in wrong), wrong
    assert all("Errno" not in one for one in wrong)
    os.chown(path, 0, 0)
    assert not [one for one in checked(root) if one["good"] is False]


@needs("setpriv", root=True)
def test_a_start_that_waits_is_not_called_good(root: Root, tmp_path: Path) -> None:
    """It holds no lock yet, so `check` asks at its port: which process waits, and for what."""
    root.configure(listen=f"127.0.0.1:{free_port()}")
    stage = root.path / "stages/deploying"
    os.chown(stage, STRANGER, STRANGER)
    stage.chmod(0o700)
    root.prefix = WITHOUT
    # It logs no `ready`.
    root.start("--until-idle")
    assert root.process
    root.wait(lambda: "start_waits" in root.log.read_text())
    told = [one["detail"] for one in checked(root) if one["name"] == "daemon"]
    # It tries again now and then, and holds the lock meanwhile.
    assert told[0] in (f"process {root.process.pid} waits", f"running, process {root.process.pid}")
    assert "cannot start yet" in told[1]
    assert str(stage) in told[1]
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    os.chown(stage, 0, 0)
    assert root.process.wait(300) == 0
    assert [one["status"] for one in root.manifests().values()] == ["CONVERTED"]


@needs("setpriv", root=True)
def test_who_may_not_read_the_tree_sees_no_empty_one(root: Root, tmp_path: Path) -> None:
    """Nothing that is uploaded and "you may not see it" are two things, in each command that shows or changes it."""
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    assert root.run_until_idle() == 0
    for part in ("storage", "stages", "stages/error-format", "state"):
        os.chown(root.path / part, STRANGER, STRANGER)
        (root.path / part).chmod(0o700)
        for words in (("list",), ("show", "a.jpg"), ("status",), ("retry", "a.jpg")):
            done = asked(root, *words)
            assert (done.returncode, done.stdout) == (2, ""), words
            assert f"{root.path / part} belongs to {STRANGER} (mode 0700)" in done.stderr
            assert "run this command as root" in done.stderr
        os.chown(root.path / part, 0, 0)
    assert "a.jpg" in asked(root, "list").stdout


def test_the_daemon_s_reasons_are_those_of_check(root: Root) -> None:
    """What `/healthz` says is wrong is wrong in `check` too, for this tree only."""
    root.configure(listen=f"127.0.0.1:{free_port()}")
    root.start()
    (root.path / "status").rmdir()
    (root.path / "status").write_text("in the way")
    root.wait(lambda: any(line["event"] == "fault" for line in json_lines(root.log)))
    other = Root(root.path.parent / "other").create()
    other.configure(listen=root._tables["metrics"]["listen"])
    for tree, wrong in ((root, True), (other, False)):
        told = [one for one in checked(tree) if one["name"] == "daemon" and one["good"] is False]
        assert bool(told) is wrong
    assert root.stop() == 0
