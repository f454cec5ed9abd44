"""Bytes that never came: holes in a file, and runs of zeros found while the file is read anyway.

A copy that is cut, or made of several parts, leaves them anywhere, and a decoder may turn them into
pixels without a word. Here they are only found; `judging` says what each of them means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from cytowatch import durable

__all__ = ["LEAST_BYTES", "Gap", "ZeroRuns", "holes", "is_blanked"]

#: Shorter runs of zeros are ordinary: padding, empty tables, flat pixels.
LEAST_BYTES = 512
_ZEROS = bytes(LEAST_BYTES)
_LOOK_BYTES = 64 << 10
_RUN = re.compile(rb"\0+")
#: More than a cut file has; black pixels may make any number.
_MOST_GAPS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Bytes `begin` to `end` (exclusive) of a file are zeros; with `hole` they were never written."""

    begin: int
    end: int
    hole: bool = False

    def __str__(self) -> str:
        said = "were never written" if self.hole else "are only zeros"
        return f"bytes {self.begin:,} to {self.end:,} of the file {said}"


def holes(descriptor: int, size_bytes: int) -> list[Gap]:
    """The holes of a file, in order; none where the filesystem makes holes of zeros by itself.

    Raises
    ------
    OSError
        It cannot be read.
    """
    found: list[Gap] = []
    at = 0
    while at < size_bytes and len(found) < _MOST_GAPS:
        begin = os.lseek(descriptor, at, os.SEEK_HOLE)
        if begin >= size_bytes:
            break
        try:
            at = os.lseek(descriptor, begin, os.SEEK_DATA)
        except OSError:
            # There is no data behind it.
            at = size_bytes
        found.append(Gap(begin=begin, end=min(at, size_bytes), hole=True))
    return found if found and durable.leaves_holes(descriptor) else []


def _end_of_zeros(chunk: bytes, begin: int) -> int:
    found = _RUN.match(chunk, begin)
    return found.end() if found is not None else begin


class ZeroRuns:
    """Guards that every run of `LEAST_BYTES` zeros is found, however the file is cut into chunks.

    >>> runs = ZeroRuns()
    >>> for chunk in (b"a" * 100 + bytes(400), bytes(400) + b"b"):
    ...     runs.feed(chunk)
    >>> [(gap.begin, gap.end) for gap in runs.end()]
    [(100, 900)]
    """

    def __init__(self) -> None:
        self._at = 0
        #: Where the zeros begin that the last chunk ended with, if it did.
        self._open: int | None = None
        self._found: list[Gap] = []

    def feed(self, chunk: bytes) -> None:
        """Look through the next `chunk` of the file."""
        size, at, look = len(chunk), self._at, 0
        self._at += size
        if self._open is not None:
            look = _end_of_zeros(chunk, 0)
            if look == size:
                return
            self._close(at + look)
        while len(self._found) < _MOST_GAPS and (begin := chunk.find(_ZEROS, look)) >= 0:
            look = _end_of_zeros(chunk, begin)
            if look == size:
                self._open = at + begin
                return
            self._found.append(Gap(begin=at + begin, end=at + look))
        # The end of the chunk may be the beginning of a run.
        if chunk[-1:] == b"\0":
            tail = chunk[-LEAST_BYTES:]
            self._open = at + size - len(tail) + len(tail.rstrip(b"\0"))

    def end(self) -> list[Gap]:
        """Every run that was found; the last one may go on to the end of the file."""
        if self._open is not None:
            self._close(self._at)
        return self._found

    def _close(self, end: int) -> None:
        begin, self._open = self._open, None
        if begin is not None and end - begin >= LEAST_BYTES:
            self._found.append(Gap(begin=begin, end=end))


def is_blanked(read: Callable[[int, int], bytes], begin: int, end: int, size_bytes: int) -> bool:
    """Whether exactly the bytes `begin` to `end` were overwritten with zeros, as programs do that remove a label.

    A cut copy that was filled up is zeros to the end of the file as well, but from where its last
    block ended, and that is a multiple of 512. `read` gives so many bytes at an offset.
    """
    for at in range(begin, end, _LOOK_BYTES):
        if any(read(at, min(_LOOK_BYTES, end - at))):
            return False
    if any(read(end, min(_LOOK_BYTES, size_bytes - end))):
        return True
    # Text before it may end with zeros of its own.
    before = read(max(0, begin - 64), min(64, begin)).rstrip(b"\0")
    return bool(before) and (max(0, begin - 64) + len(before)) % LEAST_BYTES != 0
