"""The process that works on an uploaded file, noted in ``<id>/worker`` for a start after the daemon was killed."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cytowatch import outside
from cytowatch.decoder.zygote import start_time
from cytowatch.durable import trees

__all__ = ["Named", "forget", "kill_recorded", "record"]

_RECORD = "worker"
_LARGEST_BYTES = 4096
#: The largest process id of Linux (PID_MAX_LIMIT).
_LARGEST_PID = 1 << 22


class Named(Protocol):
    """A process by its id and its start time; the id is 0 for one on another machine."""

    pid: int
    start_time: int


def record(directory: Path, process: Named) -> None:
    """Note in ``<id>/`` which process works on it, for a start after the daemon was killed."""
    if not process.pid:
        # It is on another machine, and ends with the worker there.
        return
    text = json.dumps({"pid": process.pid, "start_time": process.start_time})
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(directory / _RECORD, flags, 0o640)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def kill_recorded(directory: Path) -> bool:
    """End the process noted in ``<id>/`` if it still runs; return whether it did.

    A note that is damaged, or is not a file, names no process, and is removed.
    """
    path = directory / _RECORD
    alive, pid = False, 0
    with suppress(outside.OutsideError, KeyError, OSError):
        noted = outside.read_json(path, most_bytes=_LARGEST_BYTES)
        pid = int(outside.number(noted["pid"], least=2, most=_LARGEST_PID))
        started = noted["start_time"]
        ours = pid in (os.getpid(), os.getppid())
        alive = isinstance(started, int) and not ours and start_time(pid) == started
    if alive:
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    with suppress(OSError):
        forget(directory)
    return alive


def forget(directory: Path) -> None:
    """Remove the note in ``<id>/``, or anything in its place.

    Raises
    ------
    OSError
        A fault of the machine.
    """
    path = directory / _RECORD
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        trees.remove(path)
