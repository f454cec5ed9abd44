"""What a daemon that was killed may have left behind is ended, and nothing else is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytowatch.decoder import landlock, recorded, sandbox, zygote
from cytowatch.decoder.zygote import start_time
from tests.lab.root import HANGS_S


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait(HANGS_S)


def test_the_noted_process_is_killed_with_its_group(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """By pid and start time together; the note goes with it."""
    noted = {"pid": sleeper.pid, "start_time": start_time(sleeper.pid)}
    (tmp_path / "worker").write_text(json.dumps(noted))
    assert recorded.kill_recorded(tmp_path)
    assert sleeper.wait(HANGS_S) == -signal.SIGKILL
    assert not (tmp_path / "worker").exists()
    assert not recorded.kill_recorded(tmp_path)


@pytest.mark.parametrize("note", ["", "{}", '{"pid": "x"}', None])
def test_a_process_that_only_has_the_number_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], note: str | None
) -> None:
    """After a reboot the same pid is somebody else's; a torn note names nobody."""
    other = {"pid": sleeper.pid, "start_time": start_time(sleeper.pid) - 1}
    (tmp_path / "worker").write_text(json.dumps(other) if note is None else note)
    assert not recorded.kill_recorded(tmp_path)
    assert sleeper.poll() is None
    assert not (tmp_path / "worker").exists()


def test_what_is_claimed_of_the_sandbox_was_tried() -> None:
    """It is true exactly where the kernel speaks Landlock."""
    found = sandbox.enforced()
    assert found["landlock_abi"] == landlock.abi()
    assert found["files"] == (landlock.abi() > 0)


def test_the_restriction_outlasts_a_rename(tmp_path: Path) -> None:
    """Rules are tied to directories, for the engine renames <id>/ between two stages."""
    assert landlock.abi() > 0, "this kernel has no Landlock"
    for name in ("id/source", "id/out.1", "later"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "id" / "source" / "a").write_text("x")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.chdir(tmp_path / "id")
            landlock.restrict(read=["source"], write=["out.1"])
            os.write(writer, b"r")
            os.kill(os.getpid(), signal.SIGSTOP)
            Path("source/a").read_text()
            Path("out.1/b").write_text("y")
            try:
                Path("source/c").write_text("z")
            except PermissionError:
                status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read(1) == b"r"
    os.waitpid(pid, os.WUNTRACED)
    (tmp_path / "id").rename(tmp_path / "later" / "id")
    os.kill(pid, signal.SIGCONT)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "later" / "id" / "out.1" / "b").read_text() == "y"


def test_what_a_decoder_started_ends_with_it(tmp_path: Path) -> None:
    """Also where no filter forbids it: a grandchild of a session of its own, which no group's kill reaches."""
    reader, writer = os.pipe()
    zygote_pid = os.fork()
    if zygote_pid == 0:
        status = 1
        try:
            sandbox.adopt_orphans()
            decoder = os.fork()
            if decoder == 0:
                os.setpgid(0, 0)
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.write(writer, f"{os.getpid()}\n".encode())
                        signal.pause()
                signal.pause()
            with open(reader, "rb") as file:
                orphan = int(file.readline())
            zygote._forked.add(decoder)
            while not (ended := zygote._reap(decoder)):
                time.sleep(0.001)
            assert ended == {"status": signal.SIGKILL}
            try:
                os.kill(orphan, 0)
            except ProcessLookupError:
                status = 0
        finally:
            os._exit(status)
    os.close(writer)
    assert os.waitpid(zygote_pid, 0)[1] == 0
