"""The pieces of a CZI: of which planes they are, where they lie in the image, and the pixels of some.

Zeiss' library counts planes from zero, no matter what the file does, so the file itself is asked. The
library makes noise of 48-bit colours whose high and low bytes are packed apart, so the pieces that
have such can be unpacked here.

Source: Zeiss, "ZISRAW (CZI) File Format" 1.2, DimensionEntryDV1; the header of zstd1 is that of libCZI.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cytowatch.formats.structure import czi
from cytowatch.formats.structure.czi import Piece
from cytowatch.formats.structure.places import bytes_at
from cytowatch.pyramid.pixels import Pixels, swapped
from cytowatch.pyramid.refusals import damaged
from cytowatch.record.errors import ConversionError

__all__ = ["Area", "Mosaic", "SubBlock", "areas", "is_misread", "leaves_out", "read"]

_DIMENSION = struct.Struct("<4siifi")
_BGR48 = 4
_UNCOMPRESSED, _ZSTD0, _ZSTD1 = 0, 5, 6
_UNPACKED = frozenset({_UNCOMPRESSED, _ZSTD0, _ZSTD1})
_PIXEL_BYTES = 6


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle of the whole image."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True, slots=True)
class SubBlock:
    """One piece, and where it starts in each dimension; one that `is_reduced` belongs to a smaller level."""

    piece: Piece
    start: dict[str, int]
    area: Area
    is_reduced: bool

    @property
    def packing(self) -> tuple[int, int]:
        """The numbers of its pixel type and of its compression."""
        return self.piece.pixel_type, self.piece.compression


def read(descriptor: int) -> list[SubBlock]:
    """Every piece that the directory names; none if it cannot be read, which the library will say."""
    try:
        return [_read(piece) for piece in czi.pieces(descriptor, strictly=True)]
    except (OSError, struct.error, ValueError, OverflowError, UnicodeDecodeError):
        return []


def _read(piece: Piece) -> SubBlock:
    start, size, stored = {}, {}, {}
    for code, first, full, _, pixels in _DIMENSION.iter_unpack(piece.dimensions):
        name = code.rstrip(b"\0").decode("ascii")
        # Zero is as many as there are.
        start[name], size[name], stored[name] = first, full, pixels or full
    area = Area(start.get("X", 0), start.get("Y", 0), size.get("X", 0), size.get("Y", 0))
    is_reduced = any(stored[name] != size[name] for name in "XY" if name in size)
    return SubBlock(piece, start, area, is_reduced)


def areas(blocks: Sequence[SubBlock]) -> dict[int | None, Area]:
    """What the pieces of each scene cover; a file without scenes has one, None."""
    found: dict[int | None, Area] = {}
    for block in blocks:
        if not block.is_reduced:
            scene = block.start.get("S")
            found[scene] = _around(found.get(scene, block.area), block.area)
    return found


def _around(one: Area, other: Area) -> Area:
    x, y = min(one.x, other.x), min(one.y, other.y)
    right = max(one.x + one.w, other.x + other.w)
    return Area(x, y, right - x, max(one.y + one.h, other.y + other.h) - y)


def leaves_out(pieces: Sequence[SubBlock], others: Sequence[SubBlock]) -> bool:
    """Whether one of `others` lies where none of `pieces` does."""
    placed = {one.area for one in pieces}
    x, y, w, h = np.array([(one.x, one.y, one.w, one.h) for one in placed]).reshape(-1, 4).T
    return any(
        not np.any((one.x < x + w) & (x < one.x + one.w) & (one.y < y + h) & (y < one.y + one.h))
        for one in {other.area for other in others} - placed
    )


def is_misread(descriptor: int, blocks: Sequence[SubBlock]) -> bool:
    """Whether Zeiss' library would make noise of one: three samples of 16 bits, their bytes apart in zstd."""
    odd = (one for one in blocks if one.packing == (_BGR48, _ZSTD1))
    return any(_has_bytes_apart(descriptor, one) for one in odd)


def _has_bytes_apart(descriptor: int, block: SubBlock) -> bool:
    begin, size_bytes = czi.content(descriptor, block.piece)
    return _zstd1_header(bytes_at(descriptor, min(3, size_bytes), begin))[1]


def _zstd1_header(data: bytes | bytearray) -> tuple[int, bool]:
    """(length of the header, whether low and high bytes are apart)."""
    # The length of the header, then the kind of what it says, then whether the bytes are apart.
    length, kind, flags = data[:3].ljust(3, b"\0")
    return length, length == 3 and kind == 1 and bool(flags & 1)


class Mosaic:
    """Rows of one plane of 48-bit colours, put together of its pieces without Zeiss' library."""

    def __init__(self, descriptor: int, blocks: Sequence[SubBlock], area: Area) -> None:
        for block in blocks:
            if block.piece.pixel_type != _BGR48 or block.piece.compression not in _UNPACKED:
                raise ConversionError(
                    "unsupported_samples",
                    "its 16-bit colours are packed in several ways, one of which Zeiss' library "
                    "reads wrongly: export it again with one compression",
                )
        self._descriptor = descriptor
        # Later ones lie over earlier ones, as the library has it.
        self._blocks = sorted(blocks, key=lambda one: one.start.get("M", 0))
        self._area = area
        self.width, self.height, self.samples = area.w, area.h, 3
        self.dtype = np.dtype(np.uint16)
        self.block_rows = 512

    def rows(self, top: int, bottom: int) -> Pixels:
        found = np.zeros((bottom - top, self.width, 3), np.uint16)
        for block, y in self._at(top, bottom):
            pixels = _unpacked(self._descriptor, block)
            x = block.area.x - self._area.x
            first, last = max(0, y), min(len(found), y + block.area.h)
            found[first:last, x : x + block.area.w] = pixels[first - y : last - y]
        return swapped(found)

    def _at(self, top: int, bottom: int) -> Iterator[tuple[SubBlock, int]]:
        """Each piece that has some of these rows, and its own first row, counted from `top`."""
        for block in self._blocks:
            y = block.area.y - self._area.y - top
            if y < bottom - top and y + block.area.h > 0:
                yield block, y


def _unpacked(descriptor: int, block: SubBlock) -> Pixels:
    """The pixels of a piece, (rows, columns, samples), as BGR."""
    import imagecodecs

    size_bytes = block.area.w * block.area.h * _PIXEL_BYTES
    try:
        begin, packed_bytes = czi.content(descriptor, block.piece)
        data: bytes | bytearray = bytes_at(descriptor, packed_bytes, begin)
        apart = False
        if block.piece.compression == _ZSTD1:
            header_bytes, apart = _zstd1_header(data)
            data = data[header_bytes:]
        if block.piece.compression != _UNCOMPRESSED:
            data = imagecodecs.zstd_decode(data, out=size_bytes)
        if len(data) != size_bytes:
            raise ValueError(f"a piece of {size_bytes:,} bytes has {len(data):,}")
    except Exception as error:
        raise damaged(error) from error
    shape = (block.area.h, block.area.w, 3)
    if not apart:
        return np.frombuffer(data, "<u2").reshape(shape)
    low, high = np.frombuffer(data, np.uint8).reshape(2, -1)
    return (low | (high.astype(np.uint16) << 8)).reshape(shape)
