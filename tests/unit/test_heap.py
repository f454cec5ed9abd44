"""Memory that threads have freed goes back to the machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests import builders
from tests.lab.root import Root

_TEXT = """
import threading
from cytowatch.lifecycle.heap import Heap, share_one_arena

def resident_mib():
    text = open("/proc/self/status").read()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024

share_one_arena()
heap = Heap()
kept = []

def take():
    taken = [bytes(2000) for _ in range(20_000)]
    # What stays is at the end, so that nothing below it would be given back.
    kept.append(bytes(2000))

before = resident_mib()
for _ in range(4):
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
held = resident_mib() - before
heap.give_back(0.0)
given = resident_mib() - before
taken = [bytes(2000) for _ in range(20_000)]
last = bytes(2000)
del taken
heap.give_back(59.0)
soon = resident_mib() - before
heap.give_back(60.0)
print(held, given, soon, resident_mib() - before)
"""


#: The arena of a thread begins at a multiple of this, and what it does not use yet is reserved up to the next one.
_ARENA_BYTES = 64 << 20

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps it")


@glibc
def test_free_memory_is_given_back_once_a_minute() -> None:
    """Of 160 MB that sixteen threads had, next to nothing is kept."""
    told = subprocess.run([sys.executable, "-c", _TEXT], check=True, capture_output=True, text=True)
    held, given, soon, later = (float(word) for word in told.stdout.split())
    assert held > 20
    assert given < held / 4
    assert soon > held / 4
    assert later < held / 4


def arenas(process: int) -> int:
    """How many arenas its threads have beside that of the process."""
    areas = []
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        area, access, *_ = line.split()
        begin, end = (int(part, 16) for part in area.split("-"))
        areas.append((begin, end, access))
    return sum(
        begin % _ARENA_BYTES == 0
        and access == "rw-p"
        and (end, begin + _ARENA_BYTES, "---p") in areas
        for begin, end, access in areas
    )


@glibc
def test_the_threads_of_a_daemon_share_one_arena(root: Root, tmp_path: Path) -> None:
    """All of them, those too that are there before the first drop."""
    root.start()
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    root.wait(root.by_name)
    assert root.process
    assert len(list(Path(f"/proc/{root.process.pid}/task").iterdir())) > 4
    assert arenas(root.process.pid) == 0


@glibc
def test_arenas_are_counted() -> None:
    """In a process that has them."""
    text = """
import threading
held = [threading.Thread(target=lambda: (bytes(2000), ready.wait(), input())) for _ in range(2)]
ready = threading.Barrier(3)
for thread in held:
    thread.start()
ready.wait()
print(flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert arenas(process.pid) == 2
        process.communicate(b"\n\n")
