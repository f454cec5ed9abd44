"""The boxes of a JP2, and the markers of a JPEG 2000 codestream: where each begins and ends, as it is stated.

Both walks take any bytes, and end where they find none that they know. What is wrong there, each caller judges.

Source: ISO/IEC 15444-1, Annex A (codestream) and Annex I (JP2 boxes)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from cytowatch.formats.structure.places import bytes_at

__all__ = [
    "ALONE",
    "BEGIN",
    "CODESTREAM",
    "COD",
    "EOC",
    "HEADER",
    "MARK",
    "SIGNATURE",
    "SIZ_BYTES",
    "SOC",
    "SOT",
    "Box",
    "Cod",
    "Segment",
    "Siz",
    "boxes",
    "boxes_in",
    "cod",
    "ends_near",
    "segments",
    "siz",
]

#: How a JP2 begins: a box with its name, and then with line ends that a transfer as text would spoil.
MARK = b"\x00\x00\x00\x0cjP  "
SIGNATURE = MARK + b"\r\n\x87\n"
#: How a codestream begins.
SOC = b"\xff\x4f"
BEGIN = SOC + b"\xff\x51"
#: The boxes that hold what the samples mean, and the codestream.
HEADER, CODESTREAM = b"jp2h", b"jp2c"
#: A part of a tile, the end, and how the tiles are coded.
SOT, EOC, COD = 0xFF90, 0xFFD9, 0xFF52
#: These have no length (table A.2).
ALONE = range(0xFF30, 0xFF40)
#: SOC and SIZ, without the list of components.
SIZ_BYTES = 42
_SIZ = struct.Struct(">4xHH8IH")
_LEAST_PART = 12
_MOST_BOXES = 1_000_000
_MOST_SEGMENTS = 10_000_000
#: Padding may stand behind the end.
_NEAR_BYTES = 64

_Bytes = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box at `at`, whose content is bytes `begin` to `end`, which may lie beyond the end of the file.

    One whose length is too small ends before it begins. Both are the last that a walk gives.
    """

    kind: bytes
    at: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A marker at `at`, and where what it states ends: for a part of tile `tile`, its data.

    A part that leaves its length open goes up to the end of the codestream; one whose length is too small ends where
    it begins. If `is_cut`, the file ends before its length. Where no marker stands, `marker` is the two bytes that do,
    or -1.
    """

    marker: int
    at: int
    end: int
    tile: int = -1
    is_open: bool = False
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Siz:
    """Sizes and offsets on the reference grid, (across, down); `listed` is the list of components, as far as it is there."""

    size: tuple[int, int]
    offset: tuple[int, int]
    tile: tuple[int, int]
    tile_offset: tuple[int, int]
    samples: int
    listed: bytes

    @property
    def components(self) -> list[tuple[int, int, int]]:
        """(bits, step across, step down) of each one that is listed to its end."""
        rows = range(0, len(self.listed) - 2, 3)
        return [(self.listed[at], self.listed[at + 1], self.listed[at + 2]) for at in rows]

    @property
    def steps(self) -> tuple[int, int]:
        """The largest steps of a component, across and down (A.5.1)."""
        return max((1, *self.listed[1::3])), max((1, *self.listed[2::3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cod:
    """How the tiles are coded; `of_rgb` if the first three components were made of RGB together (A.6.1)."""

    layers: int
    of_rgb: bool
    levels: int
    precincts: bytes


def boxes(descriptor: int, size_bytes: int, *, most: int = _MOST_BOXES) -> Iterator[Box]:
    """Every box of a file, one behind the other, as far as they can be followed."""
    return _boxes(partial(bytes_at, descriptor), size_bytes, most)


def boxes_in(data: bytes) -> Iterator[Box]:
    """The same of the boxes that another one holds, of which `data` is the content."""
    return _boxes(lambda count, at: data[at : at + count], len(data), _MOST_BOXES)


def _boxes(read: _Bytes, size_bytes: int, most: int) -> Iterator[Box]:
    at = 0
    for _ in range(most):
        head = read(16, at)
        if len(head) < 8:
            return
        length, kind = struct.unpack_from(">I4s", head)
        begin = at + 8
        if length == 1:
            begin = at + 16
            if len(head) < 16:
                yield Box(kind=kind, at=at, begin=begin, end=begin)
                return
            [length] = struct.unpack_from(">Q", head, 8)
        # Without a length it is the last one.
        end = at + length if length else size_bytes
        yield Box(kind=kind, at=at, begin=begin, end=end)
        if end < begin:
            return
        at = end


def segments(
    descriptor: int, at: int, end: int, *, most: int = _MOST_SEGMENTS
) -> Iterator[Segment]:
    """The markers from `at` on of a codestream that ends at `end`.

    The last one is EOC, or the first at which the walk cannot go on: it is none, has a length that cannot be, or
    begins at `end` or behind it.
    """
    return _segments(partial(bytes_at, descriptor), at, end, most)


def _segments(read: _Bytes, at: int, end: int, most: int) -> Iterator[Segment]:
    for _ in range(most):
        found = _segment(read(_LEAST_PART, at), at)
        if found.is_open:
            tail = 2 if read(2, end - 2) == EOC.to_bytes(2) else 0
            found = Segment(marker=SOT, at=at, end=end - tail, tile=found.tile, is_open=True)
        yield found
        if found.marker == EOC or at >= end or found.end <= at:
            return
        at = found.end


def _segment(head: bytes, at: int) -> Segment:
    """The marker with which `head` begins, which has the bytes of a part's head if they are all there."""
    marker = int.from_bytes(head[:2]) if len(head) >= 2 else -1
    if marker == EOC or marker in ALONE:
        return Segment(marker=marker, at=at, end=at + 2)
    if len(head) < (_LEAST_PART if marker == SOT else 4):
        return Segment(marker=marker, at=at, end=at, is_cut=True)
    if marker < 0xFF00:
        return Segment(marker=marker, at=at, end=at)
    if marker != SOT:
        return Segment(marker=marker, at=at, end=at + 2 + int.from_bytes(head[2:4]))
    tile, length = struct.unpack_from(">HI", head, 4)
    end = at + length if length >= _LEAST_PART else at
    return Segment(marker=marker, at=at, end=end, tile=tile, is_open=length == 0)


def ends_near(descriptor: int, at: int, end: int) -> bool:
    """Whether the marker that ends a codestream stands near `end`, and not before `at`."""
    begin = max(at, end - _NEAR_BYTES)
    return EOC.to_bytes(2) in bytes_at(descriptor, end - begin, begin)


def siz(stream: bytes) -> Siz | None:
    """What the beginning of a codestream states of its sizes; None if it is not one, or ends before its components."""
    if len(stream) < SIZ_BYTES or not stream.startswith(BEGIN):
        return None
    length, _, x, y, left, top, wide, tall, first, upper, samples = _SIZ.unpack_from(stream)
    return Siz(
        size=(x, y),
        offset=(left, top),
        tile=(wide, tall),
        tile_offset=(first, upper),
        samples=samples,
        listed=stream[SIZ_BYTES : min(SIZ_BYTES + 3 * samples, 4 + length)],
    )


def cod(stream: bytes) -> Cod | None:
    """How the beginning of a codestream states that its tiles are coded; None if it does not."""
    for one in _segments(lambda count, at: stream[at : at + count], 2, len(stream), len(stream)):
        if one.marker == SOT:
            return None
        if one.marker == COD and one.at + 14 <= len(stream):
            style, _, layers, of_rgb, levels = struct.unpack_from(">BBHBB", stream, one.at + 4)
            return Cod(
                layers=layers,
                of_rgb=of_rgb == 1,
                levels=levels,
                precincts=stream[one.at + 14 : one.end] if style & 1 else b"",
            )
    return None
