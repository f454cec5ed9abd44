"""A JPEG 2000 codestream, of which a tile is read by itself: its main header, and where the parts of its tiles lie.

Source: ISO/IEC 15444-1, Annex A
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cytowatch.formats.structure import jp2
from cytowatch.formats.structure.jp2 import Segment
from cytowatch.formats.structure.places import bytes_at
from cytowatch.pyramid.readers.jp2_boxes import pread
from cytowatch.record.errors import ConversionError

__all__ = [
    "Codestream",
    "check_parts",
    "check_units",
    "find_parts",
    "is_rgb_decoded",
    "main_header",
    "on_its_own_grid",
]

#: Markers of the main header that speak of all tiles at once.
_LENGTHS, _PACKED_HEADERS = frozenset({0xFF55, 0xFF57}), 0xFF60
_LARGEST_HEADER = 64 << 20
#: The head of a part, and the marker behind it.
_LEAST_PART = 14
#: So much behind the last part is looked at for anything but zeros.
_TAIL = 1 << 16


@dataclass(slots=True, kw_only=True)
class Codestream:
    """Where the parts of a codestream lie; sizes as in SIZ, of the reference grid."""

    descriptor: int
    main: bytes
    size: tuple[int, int]
    offset: tuple[int, int]
    tile: tuple[int, int]
    tile_offset: tuple[int, int]
    components: list[tuple[int, int, int]]
    packed_headers: bool
    parts: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-(self.size[0] - self.tile_offset[0]) // self.tile[0])

    @property
    def down(self) -> int:
        """Rows of tiles."""
        return -(-(self.size[1] - self.tile_offset[1]) // self.tile[1])

    @property
    def pixels(self) -> tuple[int, int]:
        """(width, height) of the image."""
        return self.size[0] - self.offset[0], self.size[1] - self.offset[1]

    @property
    def is_taken_apart(self) -> bool:
        """Whether a tile of it can be decoded by itself.

        One that begins between two samples of a subsampled component has no colours at its edge.
        """
        begins = (*self.tile, *self.tile_offset)
        return not self.packed_headers and all(
            begin % step == 0
            for _, dx, dy in self.components
            for begin, step in zip(begins, (dx, dy, dx, dy), strict=True)
        )

    @property
    def is_sampled_as_imagecodecs_has_it(self) -> bool:
        """Whether no component is subsampled, or the two of colour as in 4:2:2 and 4:2:0."""
        [*steps] = ((dx, dy) for _, dx, dy in self.components)
        full = (1, 1)
        if all(step == full for step in steps):
            return True
        colour = len(steps) >= 3 and steps[1] == steps[2] and steps[1] in ((2, 1), (2, 2))
        return colour and steps[0] == full and all(step == full for step in steps[3:])

    def area(self, number: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of a tile on the reference grid."""
        row, column = divmod(number, self.across)
        left = self.tile_offset[0] + column * self.tile[0]
        top = self.tile_offset[1] + row * self.tile[1]
        return (
            max(left, self.offset[0]),
            max(top, self.offset[1]),
            min(left + self.tile[0], self.size[0]),
            min(top + self.tile[1], self.size[1]),
        )

    def alone(self, number: int) -> bytes:
        """A codestream that holds this tile and no other."""
        row, column = divmod(number, self.across)
        left, top, right, bottom = self.area(number)
        grid = (
            self.tile_offset[0] + column * self.tile[0],
            self.tile_offset[1] + row * self.tile[1],
        )
        main = bytearray(self.main)
        # SOC, the marker SIZ, its length and Rsiz come before the sizes.
        struct.pack_into(">8I", main, 8, right, bottom, left, top, *self.tile, *grid)
        found = [bytes(main)]
        for begin, length in self.parts.get(number, []):
            part = bytearray(pread(self.descriptor, length, begin))
            struct.pack_into(">H", part, 4, 0)
            struct.pack_into(">I", part, 6, length)
            found.append(bytes(part))
        return b"".join(found) + jp2.EOC.to_bytes(2)


def main_header(descriptor: int, begin: int, end: int) -> Codestream:
    if pread(descriptor, 2, begin) != jp2.SOC:
        raise ValueError("the codestream does not begin with SOC")
    at = begin + 2
    kept = bytearray(jp2.SOC)
    packed = False
    for one in jp2.segments(descriptor, at, end):
        at = one.at
        if at + 4 > end or one.marker == jp2.SOT:
            break
        if one.marker == jp2.EOC:
            raise ValueError("the codestream ends before its first tile")
        if one.marker in jp2.ALONE:
            continue
        if one.end < at + 4 or len(kept) + one.end - at > _LARGEST_HEADER:
            raise ValueError("a damaged main header")
        segment = pread(descriptor, one.end - at, at)
        packed = packed or one.marker == _PACKED_HEADERS
        if one.marker not in _LENGTHS:
            kept += segment
    found = jp2.siz(bytes(kept))
    if found is None:
        raise ValueError("the main header does not begin with SIZ")
    (x, y), (x0, y0) = found.size, found.offset
    (tx, ty), (tx0, ty0) = found.tile, found.tile_offset
    if not (x > x0 and y > y0 and tx and ty and tx0 <= x0 < tx0 + tx and ty0 <= y0 < ty0 + ty):
        raise ValueError(f"an image of {x - x0} x {y - y0} pixels, in tiles of {tx} x {ty}")
    components = found.components
    if not 0 < found.samples == len(components) or not all(dx and dy for _, dx, dy in components):
        raise ValueError("a damaged list of components")
    stream = Codestream(
        descriptor=descriptor,
        main=bytes(kept),
        size=found.size,
        offset=found.offset,
        tile=found.tile,
        tile_offset=found.tile_offset,
        components=components,
        packed_headers=packed,
        parts={-1: [(at, 0)]},
    )
    return on_its_own_grid(stream)


def on_its_own_grid(stream: Codestream) -> Codestream:
    """The same where all components have one step on the grid that is not 1: the grid of the samples."""
    [*steps] = {(dx, dy) for _, dx, dy in stream.components}
    if len(steps) != 1 or steps[0] == (1, 1):
        return stream

    def on_it(place: tuple[int, int]) -> tuple[int, int]:
        return -(-place[0] // steps[0][0]), -(-place[1] // steps[0][1])

    ends, begin, first, tile = map(
        on_it, (stream.size, stream.offset, stream.tile_offset, stream.tile)
    )
    if stream.across * stream.down == 1:
        tile = ends[0] - first[0], ends[1] - first[1]
    elif not stream.is_taken_apart:
        # Its tiles begin between two samples: they would be others on that grid.
        return stream
    if ends[0] <= begin[0] or ends[1] <= begin[1]:
        return stream
    main = bytearray(stream.main)
    struct.pack_into(">8I", main, 8, *ends, *begin, *tile, *first)
    for number in range(len(stream.components)):
        main[42 + 3 * number + 1 : 42 + 3 * number + 3] = b"\1\1"
    return replace(
        stream,
        main=bytes(main),
        size=ends,
        offset=begin,
        tile=tile,
        tile_offset=first,
        components=[(depth, 1, 1) for depth, _, _ in stream.components],
    )


def find_parts(stream: Codestream, end: int) -> None:
    [(begin, _)] = stream.parts.pop(-1)
    for part in _parts(stream.descriptor, begin, end):
        if part.tile >= stream.across * stream.down:
            raise ValueError(f"a part of tile {part.tile}, which is not in the image")
        stream.parts.setdefault(part.tile, []).append((part.at, part.end - part.at))


def check_parts(stream: Codestream, end: int) -> None:
    """Refuse a codestream whose parts do not follow one another up to its end.

    Raises
    ------
    ValueError
        They do not.
    """
    [(begin, _)] = stream.parts[-1]
    for _ in _parts(stream.descriptor, begin, end):
        pass


def _parts(descriptor: int, at: int, end: int) -> Iterator[Segment]:
    """Every part of a tile, of which the last one may leave its length open."""
    for one in jp2.segments(descriptor, at, end):
        if one.marker != jp2.SOT:
            # What lies behind it is out of its place, and a tile would be shown without some of its parts.
            tail = bytes_at(descriptor, min(end - one.at, _TAIL), one.at)
            if one.marker != jp2.EOC and any(tail):
                raise ValueError("behind a part of a tile there is neither another one nor the end")
            return
        if one.is_cut:
            return
        if one.end - one.at < _LEAST_PART or one.end > end:
            raise ValueError(f"a part of tile {one.tile} ends beyond the file")
        yield one


def is_rgb_decoded(stream: bytes) -> bool | None:
    """Whether imagecodecs makes RGB of a codestream, if it holds YCbCr; None if it is not one, or does not say it.

    It does where the components were made of RGB together (A.6.1), and where some are subsampled.
    """
    found = jp2.siz(stream)
    if found is None:
        return None
    if found.steps != (1, 1):
        return True
    coded = jp2.cod(stream)
    return None if coded is None else coded.of_rgb


def check_units(stream: bytes) -> None:
    """Refuse a tile of a TIFF, or a frame, of which imagecodecs would put subsampled colours in wrong places.

    It does so, without a word, where the size is not a multiple of the steps of a component.

    Raises
    ------
    ConversionError
        `unsupported_format`.
    """
    found = jp2.siz(stream)
    if found is None:
        return
    (across, down), (wide, tall), (left, top) = found.steps, found.size, found.offset
    if any(
        side % step for side, step in ((wide, across), (left, across), (tall, down), (top, down))
    ):
        raise ConversionError(
            "unsupported_format",
            f"its JPEG 2000 has subsampled colours in {wide} x {tall} pixels, which nothing here reads",
        )
