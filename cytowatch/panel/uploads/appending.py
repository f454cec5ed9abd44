"""Bytes put at the end of a file; those of a large one go past the page cache, which would copy each of them once more.

Source: open(2), ``O_DIRECT``: the place in the file, the address and the length are then whole blocks.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cytowatch.panel.straight import BLOCK_BYTES

__all__ = ["Appending", "Disk"]

#: A smaller file stays in the page cache, from where the daemon reads it soon.
_LARGE_BYTES = 256 << 20
#: Smaller pieces are collected by the page cache.
_LEAST_BYTES = 256 << 10
#: A disk that takes pieces more slowly than this, those of all writers together, is left to the page cache for a
#: while, which gives it more at a time.
_SLOW_BYTES_PER_S = 100e6
_SEEN_BYTES = 128 << 20
_PAUSE_S = 60.0


class Disk:
    """Guards that single pieces are given only to a disk that takes them fast; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: How many threads wait for it, since when that time is not counted, and what it took in the time before.
        self._writers = 0
        self._since = 0.0
        self._bytes = 0
        self._s = 0.0
        self._slow_until = float("-inf")

    def is_fast(self) -> bool:
        """Whether it has not just been slow."""
        return time.monotonic() >= self._slow_until

    @contextmanager
    def takes(self, size_bytes: int) -> Iterator[None]:
        """A context in which it is given a piece."""
        with self._lock:
            if not self._writers:
                self._since = time.monotonic()
            self._writers += 1
        try:
            yield
        finally:
            self._took(size_bytes, time.monotonic())

    def _took(self, size_bytes: int, now: float) -> None:
        with self._lock:
            self._writers -= 1
            self._bytes += size_bytes
            self._s += now - self._since
            self._since = now
            if self._bytes >= _SEEN_BYTES:
                if self._bytes < _SLOW_BYTES_PER_S * self._s:
                    self._slow_until = time.monotonic() + _PAUSE_S
                self._bytes, self._s = 0, 0.0


class Appending:
    """Guards that all bytes come to the end of a file, in order, whichever way; for one thread at a time.

    Parameters
    ----------
    descriptor
        Open for appending.
    at
        The size of the file.
    size
        The size that it will have.
    """

    def __init__(self, descriptor: int, at: int, size: int, disk: Disk) -> None:
        self._descriptor = descriptor
        self._at = at
        self._disk = disk
        self._may_pass = size >= _LARGE_BYTES
        self._passes = False

    @property
    def takes_blocks(self) -> bool:
        """Whether it is worth while to collect whole pieces, each at the same place in its block as in the file."""
        return self._may_pass and self._disk.is_fast()

    def add(self, parts: Sequence[bytes | memoryview]) -> None:
        """Append all of `parts`.

        Raises
        ------
        OSError
            The disk refuses them; some may have been appended.
        """
        held: list[memoryview] = []
        for part in [memoryview(one) for one in parts]:
            begin, end = self._blocks(part, self._at + sum(map(len, held)))
            held.append(part[:begin])
            if begin < end:
                self._collected(held)
                held = [self._past(part[begin:end])]
            held.append(part[end:])
        self._collected(held)

    def _blocks(self, part: memoryview, at: int) -> tuple[int, int]:
        """The begin and end of those whole blocks of `part`, which comes to `at`, that can go past the page cache."""
        none = len(part), len(part)
        if not self._may_pass or len(part) < _LEAST_BYTES or part.readonly:
            return none
        begin = -at % BLOCK_BYTES
        address = ctypes.addressof(ctypes.c_char.from_buffer(part)) + begin
        if address % BLOCK_BYTES or not self._disk.is_fast():
            return none
        return begin, len(part) - (len(part) - begin) % BLOCK_BYTES

    def _past(self, blocks: memoryview) -> memoryview:
        """Append `blocks` past the page cache; gives what did not go."""
        try:
            self._switch(passing=True)
            with self._disk.takes(len(blocks)):
                written = os.write(self._descriptor, blocks)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            # The filesystem knows no such thing, or the place is not as it seems: the page cache takes anything.
            self._may_pass = False
            return blocks
        self._at += written
        return blocks[written:]

    def _collected(self, parts: list[memoryview]) -> None:
        rest = [part for part in parts if part]
        if rest:
            self._switch(passing=False)
        while rest:
            written = os.writev(self._descriptor, rest)
            self._at += written
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = rest[0][written:]

    def _switch(self, *, passing: bool) -> None:
        if passing is not self._passes:
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            flags = flags | os.O_DIRECT if passing else flags & ~os.O_DIRECT
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)
            self._passes = passing
