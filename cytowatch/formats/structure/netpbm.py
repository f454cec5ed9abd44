"""The header of a PBM, PGM or PPM, and how long the file must be for it.

Source: https://netpbm.sourceforge.net/doc/pnm.html
"""

from __future__ import annotations

import re

from cytowatch.formats.completeness.short import short
from cytowatch.formats.structure.places import pread

__all__ = ["begin", "end", "is_header", "missing", "rows"]

_HEAD_BYTES = 4096
#: Nothing in it can match in two ways: a header of spaces must not take forever. A number of
#: more digits is not one that an image can have.
_SIZES = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,18})(?:\s|#[^\n]*\n)+(\d{1,18})(?=\s)")
_MOST = re.compile(rb"(?:\s|#[^\n]*\n)+(\d{1,18})\s")
#: What may be the beginning of a header whose end is still to come.
_BEGUN = re.compile(rb"P[1-6](?:\s(?:[\s\d]|#[^\n]*(?:\n|\Z))*)?")
#: The numbers of a plain one are counted up to this: a tenth of a second.
_MOST_COUNTED = 64 << 20
_CHUNK_BYTES = 1 << 20
#: Every byte of a number is 1, every other one 0.
_IS_NUMBER = bytes(48 <= value < 58 for value in range(256))


def is_header(head: bytes, *, kinds: bytes) -> bool:
    """Whether `head` begins as a PNM of one of `kinds`: a text that says "P5 hello" does not.

    >>> is_header(b"P5 # a comment\\n640 480 255 ", kinds=b"25"), is_header(b"P5 hello", kinds=b"25")
    (True, False)
    """
    if head[:1] != b"P" or head[1:2] not in {bytes([kind]) for kind in kinds}:
        return False
    # A long comment hides its numbers.
    begun = len(head) >= _HEAD_BYTES and _BEGUN.fullmatch(head) is not None
    return begun or _read(head) is not None


def _read(head: bytes) -> tuple[int, int, int, int] | None:
    """(width, height, greatest value, where the pixels begin); None if it is not a header."""
    sizes = _SIZES.match(head)
    if sizes is None:
        return None
    width, height = int(sizes[1]), int(sizes[2])
    if head[1:2] in b"14":
        return width, height, 1, sizes.end() + 1
    most = _MOST.match(head, sizes.end())
    return None if most is None else (width, height, int(most[1]), most.end())


def missing(descriptor: int, size_bytes: int) -> str | None:
    """The last rows of a binary one, the last numbers of a plain one."""
    head = pread(descriptor, _HEAD_BYTES, 0)
    found = _read(head)
    if found is None:
        begun = size_bytes < _HEAD_BYTES and _BEGUN.fullmatch(head.rstrip(b"\0"))
        return "the end of its header" if begun else None
    width, height, most, begin = found
    kind = head[1:2]
    if kind == b"4":
        return short(begin + (width + 7) // 8 * height, size_bytes)
    values = width * height * (3 if kind in b"36" else 1)
    if kind in b"56":
        return short(begin + values * (2 if most > 255 else 1), size_bytes)
    # The values of a plain PBM need nothing between them.
    least = values if kind == b"1" else 2 * values - 1
    if size_bytes > _MOST_COUNTED or size_bytes < begin + least:
        return short(begin + least, size_bytes)
    count = _digits if kind == b"1" else _numbers
    there = count(descriptor, begin, size_bytes)
    if there >= values:
        return None
    return f"its last {values - there:,} values (it has {there:,} of {values:,})"


def begin(descriptor: int) -> int:
    """Where the pixels begin; 0 if it is not known."""
    found = _read(pread(descriptor, _HEAD_BYTES, 0))
    return found[3] if found is not None else 0


def end(descriptor: int) -> int:
    """Where the pixels of a binary one end; 0 if it is not known."""
    head = pread(descriptor, _HEAD_BYTES, 0)
    found = _read(head)
    if found is None or head[1:2] not in b"456":
        return 0
    width, height, most, at = found
    if head[1:2] == b"4":
        return at + (width + 7) // 8 * height
    return at + width * height * (3 if head[1:2] == b"6" else 1) * (2 if most > 255 else 1)


def rows(descriptor: int) -> tuple[int, int, int] | None:
    """(where they begin, bytes in each, how many) of the rows of a P5 or P6; None for any other."""
    head = pread(descriptor, _HEAD_BYTES, 0)
    found = _read(head)
    if found is None or head[1:2] not in b"56":
        return None
    width, height, most, at = found
    return at, width * (3 if head[1:2] == b"6" else 1) * (2 if most > 255 else 1), height


def _digits(descriptor: int, begin: int, end: int) -> int:
    """How many digits there are, each a pixel."""
    return sum(
        pread(descriptor, min(_CHUNK_BYTES, end - at), at).translate(_IS_NUMBER).count(1)
        for at in range(begin, end, _CHUNK_BYTES)
    )


def _numbers(descriptor: int, begin: int, end: int) -> int:
    """How many numbers begin; those in comments count as well, which are few."""
    count, before = 0, b"\0"
    for at in range(begin, end, _CHUNK_BYTES):
        chunk = pread(descriptor, min(_CHUNK_BYTES, end - at), at).translate(_IS_NUMBER)
        count += (before + chunk).count(b"\0\1")
        before = chunk[-1:] or before
    return count
