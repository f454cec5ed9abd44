"""A process that is killed is waited for until it can do nothing any more, which is before it is gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytowatch.decoder.gone import Doomed
from tests.lab.root import HANGS_S

#: Threads that write to a file by every way there is, the kernel's own at their end among them, beside much memory.
_WRITER = """
import ctypes, mmap, os, sys, threading, time
held = bytearray(int(sys.argv[2])); held[::4096] = bytes([1]) * len(held[::4096])
descriptor = os.open(sys.argv[1], os.O_RDWR)
os.ftruncate(descriptor, 1 << 20)
shared = mmap.mmap(descriptor, 1 << 20)
start = ctypes.addressof(ctypes.c_char.from_buffer(shared))
def write(number):
    # CLONE_CHILD_CLEARTID: the kernel writes a zero there when the thread ends.
    ctypes.c_int.from_address(start + 4096 * number).value = -1
    ctypes.CDLL(None).syscall(218 if os.uname().machine == "x86_64" else 96, ctypes.c_void_p(start + 4096 * number))
    count = 0
    while True:
        count += 1
        shared[4096 * number + 8 : 4096 * number + 16] = count.to_bytes(8, "little")
        os.pwrite(descriptor, count.to_bytes(8, "little"), 4096 * number + 16)
for number in range(int(sys.argv[3])):
    threading.Thread(target=write, args=(number,), daemon=True).start()
time.sleep(0.05)
print("ready", flush=True)
time.sleep(1000)
"""


def _writing(path: Path, memory_bytes: int, threads: int) -> subprocess.Popen[bytes]:
    path.touch()
    words = [sys.executable, "-c", _WRITER, str(path), str(memory_bytes), str(threads)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    with process.stdout as said:
        assert said.readline() == b"ready\n"
    return process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait(HANGS_S)


def test_one_that_is_still_changes_nothing(tmp_path: Path) -> None:
    """What its threads wrote stays as it is from then on, while the kernel takes its memory back."""
    before_it_was_gone = 0
    for turn in range(4):
        path = tmp_path / f"{turn}"
        process = _writing(path, 256 << 20, 8)
        doomed = Doomed(process.pid)
        doomed.kill()
        assert doomed.wait_still(lambda: False)
        then = path.read_bytes()
        before_it_was_gone += process.poll() is None
        assert doomed.wait_gone(lambda: False)
        doomed.close()
        process.wait(HANGS_S)
        assert path.read_bytes() == then
    # Else nothing was shown.
    assert before_it_was_gone


def test_one_that_runs_is_not_still(tmp_path: Path) -> None:
    """No thread of it was killed, or only those that were are looked at."""
    process = _writing(tmp_path / "a", 1 << 20, 4)
    doomed = Doomed(process.pid)
    assert not doomed._is_still()
    assert process.poll() is None
    doomed.kill()
    assert doomed.wait_gone(lambda: False)
    doomed.close()
    process.wait(HANGS_S)


def test_anyone_else_is_not_waited_for(sleeper: subprocess.Popen[bytes]) -> None:
    """A process that has ended already is gone, and nobody is killed for it."""
    ended = subprocess.Popen(["true"])
    ended.wait(HANGS_S)
    doomed = Doomed(ended.pid)
    doomed.kill()
    # It cannot be named any more, so its parent is asked.
    assert not doomed.wait_still(lambda: False)
    doomed.close()
    assert sleeper.poll() is None
