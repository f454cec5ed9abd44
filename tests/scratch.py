"""``python -m tests.scratch COMMAND``: run it with its temporary files in memory, where there is room for them.

`make test` leaves some 75,000 files, and none of its tests depends on the filesystem that they are on. The other tests stay on
the disk (`make acceptance`), and where CI is set all do. Where TMPDIR is set, it is kept. A `kill -9` of this process
leaves ``/dev/shm/cw-*``, which may be removed then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from cytowatch.durable import trees

__all__ = ["in_memory"]

_MEMORY = Path("/dev/shm")
#: The tests leave 1.2 GiB there. Their processes need memory too, and so does everybody else on the machine.
_NEEDED_BYTES = 6 << 30


def main() -> int:
    """Run the command in ``sys.argv``; its exit status."""
    command = sys.argv[1:]
    if not in_memory():
        os.execvp(command[0], command)
    folder = Path(tempfile.mkdtemp(prefix="cw-", dir=_MEMORY))
    try:
        running = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder)})
        for one in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, lambda *_: running.terminate())
        # Ctrl-C in a terminal is sent to both: the tests end by themselves.
        signal.signal(signal.SIGINT, lambda *_: None)
        ended = running.wait()
    finally:
        trees.remove(folder)
    return ended if ended >= 0 else 128 - ended


def in_memory() -> bool:
    """Whether temporary files go there: nobody asked for another place, it has room, and programs may run from it."""
    if os.environ.get("CI") or os.environ.get("TMPDIR") or not os.access(_MEMORY, os.W_OK):
        return False
    found = os.statvfs(_MEMORY)
    if found.f_flag & os.ST_NOEXEC or found.f_bavail * found.f_frsize < _NEEDED_BYTES:
        return False
    for line in Path("/proc/meminfo").read_text().splitlines():
        key, _, said = line.partition(":")
        if key == "MemAvailable":
            return int(said.split()[0]) << 10 >= _NEEDED_BYTES
    return False


if __name__ == "__main__":
    sys.exit(main())
