"""Locks between processes: flock(2) on a descriptor, which the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cytowatch.durable.calls import directory

__all__ = ["lock", "locked"]


def lock(descriptor: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock the file or directory that `descriptor` is open on, until it is closed.

    Raises
    ------
    BlockingIOError
        Another process holds the lock, and `wait` is false.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """A descriptor of the directory at `path`, while nobody else has it locked."""
    with directory(path) as descriptor:
        lock(descriptor)
        yield descriptor
