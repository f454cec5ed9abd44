"""Where a file says that its parts lie, and what can be wrong with that."""

from __future__ import annotations

import os
from collections.abc import Iterable

__all__ = ["bytes_at", "misplaced", "pread"]

_PAGE_BYTES = 4096

#: The last byte that the kernel knows a number for.
_FARTHEST = (1 << 63) - 1


def misplaced(places: Iterable[tuple[int, int]], *, tiled: bool) -> str | None:
    """What is wrong with the (offset, byte count) of some tiles or strips, as a phrase; None if nothing is.

    A tile may be left out: both are 0 then. Strips need not state a length at all, because old
    writers did not; readers estimate it.
    """
    what = "tile" if tiled else "strip"
    index, without_length, stated, placed = -1, -1, False, False
    for index, (offset, count) in enumerate(places):
        stated, placed = stated or count > 0, placed or offset > 0
        if offset == 0 and (count or not tiled):
            return f"the place of its {what} {index} is not stated"
        if count == 0 and offset and without_length < 0:
            without_length = index
        if without_length >= 0 and (stated or tiled):
            return f"the length of its {what} {without_length} is not stated"
    return None if placed or index < 0 else "none of its tiles is in the file"


def bytes_at(descriptor: int, count: int, at: int) -> bytes:
    """Up to `count` bytes at `at`; none where no file can have any, as the lists of a hostile one may say."""
    return pread(descriptor, count, at) if 0 <= at <= _FARTHEST - count and count > 0 else b""


def pread(descriptor: int, count: int, at: int) -> bytes:
    """`count` bytes at `at`, or as many as there are before the end of the file.

    A page that the disk cannot give ends a read early, like the end of the file; only the next read says which
    it was.

    Raises
    ------
    OSError
        They cannot be read.
    """
    data = os.pread(descriptor, count, at)
    if len(data) < count and count > _PAGE_BYTES:
        while more := os.pread(descriptor, count - len(data), at + len(data)):
            data += more
    return data
