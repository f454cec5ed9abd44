"""A decoder process that the kernel cannot end yet holds up its own uploaded file, and nobody else."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytowatch.config import Config
from cytowatch.decoder import landlock
from cytowatch.decoder.forks import Zygote
from cytowatch.decoder.process import Decoder
from tests.lab.disks import MB, Disk, needs_mounts
from tests.lab.root import HANGS_S
from tests.needs import needs

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    """One whose children write as soon as they run."""
    made = Zygote(Config(root="/"), stages="tests.lab.writes_at_once")
    made.start()
    yield made
    made.stop()


def _id(folder: Path, out: Path) -> Path:
    """An ``<id>/`` whose output lies at `out`."""
    for name in ("source", "derived"):
        (folder / name).mkdir(parents=True)
    (folder / "out.1").symlink_to(out)
    return folder


def _write(child: Decoder) -> None:
    """Have it write, and return once it does."""
    child._channel.send(b"x")
    assert child._channel.recv(1) == b"x"


#: As the daemon's user, in a /proc that hides what may not be traced: how many threads are seen, and whether it is still.
_SEEN = """
import os, sys, threading, time
from cytowatch.config import Config
from cytowatch.decoder import sandbox
from cytowatch.decoder.gone import Doomed
os.chdir(sys.argv[1])
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    sandbox.enter(Config(root="/"), "out.1", parent=os.getppid())
    held = bytearray(200 << 20)
    held[::4096] = bytes([1]) * len(held[::4096])
    for _ in range(4):
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
    os.write(writer, b"x")
    time.sleep(100)
os.read(reader, 1)
print(os.path.exists("/proc/1"), os.stat(f"/proc/{pid}/task").st_nlink - 2)
doomed = Doomed(pid)
doomed.kill()
while not doomed._is_still():
    if os.waitpid(pid, os.WNOHANG)[0]:
        sys.exit("gone before it was still")
"""


@needs("unshare", "setpriv", "mount", root=True)
@pytest.mark.skipif(landlock.abi() == 0, reason="without Landlock a decoder is hidden")
def test_its_threads_are_seen_where_proc_is_hidden() -> None:
    """As with the unit's ProtectProc=invisible: else nobody could bound them, or see that it has ended."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        for name in ("source", "out.1"):
            (place / name).mkdir()
            (place / name).chmod(0o777)
        mounted = "mount -t proc -o hidepid=invisible proc /proc"
        user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", f'{mounted} && exec {user} "$@"', "sh",
             sys.executable, "-c", _SEEN, folder],
            cwd=HOUSE, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "5"]


@needs_mounts
@needs("fsfreeze", root=True)
def test_a_decoder_that_cannot_be_killed_yet_holds_up_nobody_else(
    tmp_path: Path, zygote: Zygote
) -> None:
    """A disk hangs under it: others are forked and end, and it counts as gone when it is gone, not before."""
    disk = Disk(tmp_path, 16 * MB)
    (disk.place / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    ended: list[float] = []
    try:
        stuck = zygote.fork(_id(tmp_path / "stuck", disk.place / "out"), "out.1")
        with disk.frozen():
            _write(stuck)
            time.sleep(0.5)

            def end() -> None:
                stuck.end()
                ended.append(time.monotonic())

            ends = threading.Thread(target=end)
            ends.start()
            began = time.monotonic()
            # Longer than the zygote may take for an answer.
            while time.monotonic() - began < 7:
                other = zygote.fork(
                    _id(tmp_path / f"{time.monotonic_ns()}", tmp_path / "elsewhere"), "out.1"
                )
                _write(other)
                asked_at = time.monotonic()
                other.end()
                assert time.monotonic() - asked_at < 4
                time.sleep(0.5)
            assert not ended
            thawed = time.monotonic()
        ends.join(HANGS_S)
        assert ended[0] >= thawed
        assert zygote.fork(_id(tmp_path / "after", tmp_path / "elsewhere"), "out.1").end() == 9
    finally:
        disk.unmount()
