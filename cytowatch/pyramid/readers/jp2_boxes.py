"""The boxes around a JPEG 2000 codestream, which say what its components mean.

Source: ISO/IEC 15444-1, Annex I
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cytowatch.formats.structure import jp2
from cytowatch.formats.structure.jp2 import Box
from cytowatch.formats.structure.places import bytes_at
from cytowatch.model import Mpp
from cytowatch.pyramid.resolution import plausible

__all__ = ["Boxes", "captured", "pread", "read"]

_TYPE = struct.pack(">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 ")
_LARGEST_HEADER = 64 << 20
#: Boxes of colour, which some writers put beside the header that they belong into.
_OF_COLOUR = frozenset({b"colr", b"pclr", b"cmap", b"cdef", b"bpcc"})


@dataclass(frozen=True, slots=True)
class Boxes:
    """What is inside of the header of a JP2, in its order; nothing of a bare codestream."""

    inside: tuple[tuple[bytes, bytes], ...]

    def around(self, codestream: bytes, width: int, height: int) -> bytes:
        """`codestream` with these boxes, its size corrected in them."""
        if not self.inside:
            return codestream
        header = b"".join(
            _box(kind, struct.pack(">II", height, width) + data[8:] if kind == b"ihdr" else data)
            for kind, data in self.inside
        )
        return jp2.SIGNATURE + _TYPE + _box(jp2.HEADER, header) + _box(jp2.CODESTREAM, codestream)


def read(descriptor: int, size_bytes: int) -> tuple[Boxes, int, int]:
    """(the boxes of the header, where the codestream begins, where it ends).

    Raises
    ------
    ValueError
        A box has a length that cannot be, or there is no codestream.
    """
    if bytes_at(descriptor, 12, 0) != jp2.SIGNATURE:
        return Boxes(()), 0, size_bytes
    inside: list[tuple[bytes, bytes]] = []
    for box in jp2.boxes(descriptor, size_bytes):
        _check(box)
        if box.kind == jp2.CODESTREAM:
            return Boxes(tuple(_first_of_each(inside))), box.begin, min(size_bytes, box.end)
        if box.kind == jp2.HEADER or box.kind in _OF_COLOUR:
            if box.end - box.at > _LARGEST_HEADER:
                raise ValueError(f"a header of {box.end - box.at:,} bytes")
            data = pread(descriptor, box.end - box.begin, box.begin)
            inside += _apart(data) if box.kind == jp2.HEADER else [(box.kind, data)]
    raise ValueError("it has no codestream")


def pread(descriptor: int, count: int, at: int) -> bytes:
    """`count` bytes at `at`.

    Raises
    ------
    ValueError
        They are not all there.
    """
    data = bytes_at(descriptor, count, at)
    while len(data) < count:
        more: Any = bytes_at(descriptor, count - len(data), at + len(data))
        if not more:
            raise ValueError("the file ends too early")
        data += more
    return data


def captured(boxes: Boxes) -> Mpp | None:
    """The pixel size of the capture resolution; None where none is stated (I.5.3.7.1)."""
    outer = next((data for kind, data in boxes.inside if kind == b"res "), b"")
    try:
        data = next((data for kind, data in _apart(outer) if kind == b"resc"), b"")
    except ValueError:
        # It costs the pixel size, and no pixels.
        return None
    if len(data) < 10:
        return None
    down, below, across, under, down_power, across_power = struct.unpack_from(">4H2b", data)
    if not down or not across:
        return None
    # Stated are pixels per metre, as a fraction and a power of ten.
    x, y = (
        1e6 * bottom / top * 10.0**-power
        for top, bottom, power in ((across, under, across_power), (down, below, down_power))
    )
    return plausible(x, y)


def _first_of_each(boxes: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """What stands in the header first counts; of colours there may be several."""
    seen: set[bytes] = set()
    for kind, data in boxes:
        if kind == b"colr" or kind not in seen:
            yield kind, data
        seen.add(kind)


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, kind) + data


def _apart(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each box."""
    for box in jp2.boxes_in(data):
        _check(box)
        if box.begin > len(data):
            raise ValueError("a box ends before its length")
        yield box.kind, data[box.begin : box.end]


def _check(box: Box) -> None:
    if box.end < box.begin:
        raise ValueError(f"a box of {box.end - box.at} bytes")
