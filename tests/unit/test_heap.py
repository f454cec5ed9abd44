"""Memory that threads have freed goes back to the machine."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_TEXT = """
import threading
from cytowatch.lifecycle.heap import Heap

def resident_mib():
    text = open("/proc/self/status").read()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024

heap = Heap()
heap.prepare()
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps it")
def test_free_memory_is_given_back_once_a_minute() -> None:
    """Of 160 MB that sixteen threads had, next to nothing is kept."""
    told = subprocess.run([sys.executable, "-c", _TEXT], check=True, capture_output=True, text=True)
    held, given, soon, later = (float(word) for word in told.stdout.split())
    assert held > 20
    assert given < held / 4
    assert soon > held / 4
    assert later < held / 4
