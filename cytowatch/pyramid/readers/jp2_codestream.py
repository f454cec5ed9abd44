"""A JPEG 2000 codestream by its markers: its main header, and where the parts of its tiles lie.

Source: ISO/IEC 15444-1, Annex A
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

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

_SOT, _SOD, _EOC, _SIZ, _COD = 0xFF90, 0xFF93, 0xFFD9, 0xFF51, 0xFF52
_BEGIN = b"\xff\x4f\xff\x51"
#: Markers of the main header that speak of all tiles at once.
_LENGTHS, _PACKED_HEADERS = frozenset({0xFF55, 0xFF57}), 0xFF60

#: These have no length (ISO/IEC 15444-1, table A.2).
_ALONE = range(0xFF30, 0xFF40)
_LARGEST_HEADER = 64 << 20
_MOST_PARTS = 10_000_000
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
        return b"".join(found) + struct.pack(">H", _EOC)


def main_header(descriptor: int, begin: int, end: int) -> Codestream:
    at = begin
    if pread(descriptor, 2, at) != b"\xff\x4f":
        raise ValueError("the codestream does not begin with SOC")
    at += 2
    kept = bytearray(b"\xff\x4f")
    packed = False
    siz: bytes | None = None
    while at + 4 <= end:
        marker, length = struct.unpack(">HH", pread(descriptor, 4, at))
        if marker == _SOT:
            break
        if marker in _ALONE:
            at += 2
            continue
        if length < 2 or len(kept) + length > _LARGEST_HEADER:
            raise ValueError("a damaged main header")
        segment = pread(descriptor, 2 + length, at)
        if marker == _SIZ:
            siz = segment
        packed = packed or marker == _PACKED_HEADERS
        if marker not in _LENGTHS:
            kept += segment
        at += 2 + length
    if siz is None or kept[2:4] != b"\xff\x51":
        raise ValueError("the main header does not begin with SIZ")
    x, y, x0, y0, tx, ty, tx0, ty0, count = struct.unpack(">8IH", siz[6:40])
    if not (x > x0 and y > y0 and tx and ty and tx0 <= x0 < tx0 + tx and ty0 <= y0 < ty0 + ty):
        raise ValueError(f"an image of {x - x0} x {y - y0} pixels, in tiles of {tx} x {ty}")
    components = [tuple(siz[40 + 3 * i : 43 + 3 * i]) for i in range(count)]
    if not components or any(len(one) != 3 or not one[1] or not one[2] for one in components):
        raise ValueError("a damaged list of components")
    stream = Codestream(
        descriptor=descriptor,
        main=bytes(kept),
        size=(x, y),
        offset=(x0, y0),
        tile=(tx, ty),
        tile_offset=(tx0, ty0),
        components=components,  # type: ignore[arg-type]
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
    for number, at, length in _walk(stream.descriptor, begin, end):
        if number >= stream.across * stream.down:
            raise ValueError(f"a part of tile {number}, which is not in the image")
        stream.parts.setdefault(number, []).append((at, length))


def check_parts(stream: Codestream, end: int) -> None:
    """Refuse a codestream whose parts do not follow one another up to its end.

    Raises
    ------
    ValueError
        They do not.
    """
    [(begin, _)] = stream.parts[-1]
    for _ in _walk(stream.descriptor, begin, end):
        pass


def _walk(descriptor: int, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number of the tile, offset, length) of every tile-part."""
    for _ in range(_MOST_PARTS):
        head = bytes_at(descriptor, 12, at)
        if head[:2] != b"\xff\x90":
            # What lies behind it is out of its place, and a tile would be shown without some of its parts.
            if head[:2] != b"\xff\xd9" and any(bytes_at(descriptor, min(end - at, _TAIL), at)):
                raise ValueError("behind a part of a tile there is neither another one nor the end")
            return
        if len(head) < 12:
            return
        number, length = struct.unpack(">HI", head[4:10])
        if length == 0:
            # The last one may leave open how long it is: it goes up to EOC.
            tail = 2 if bytes_at(descriptor, 2, end - 2) == b"\xff\xd9" else 0
            length = end - tail - at
        if length < 14 or at + length > end:
            raise ValueError(f"a part of tile {number} ends beyond the file")
        yield number, at, length
        at += length


def is_rgb_decoded(stream: bytes) -> bool | None:
    """Whether imagecodecs makes RGB of a codestream, if it holds YCbCr; None if it is not one, or does not say it.

    It does where the components were made of RGB together (A.6.1), and where some are subsampled.
    """
    if not stream.startswith(_BEGIN):
        return None
    if _steps(stream) != (1, 1):
        return True
    at = 2
    while at + 9 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == _COD:
            return stream[at + 8] == 1
        if marker == _SOT or marker < 0xFF00:
            return None
        at += 2 if marker in _ALONE else 2 + length
    return None


def check_units(stream: bytes) -> None:
    """Refuse a tile of a TIFF, or a frame, of which imagecodecs would put subsampled colours in wrong places.

    It does so, without a word, where the size is not a multiple of the steps of a component.

    Raises
    ------
    ConversionError
        `unsupported_format`.
    """
    if not stream.startswith(_BEGIN):
        return
    across, down = _steps(stream)
    wide, tall, left, top = struct.unpack_from(">4I", stream.ljust(24, b"\0"), 8)
    if any(
        side % step for side, step in ((wide, across), (left, across), (tall, down), (top, down))
    ):
        raise ConversionError(
            "unsupported_format",
            f"its JPEG 2000 has subsampled colours in {wide} x {tall} pixels, which nothing here reads",
        )


def _steps(stream: bytes) -> tuple[int, int]:
    """The largest steps of a component, across and down (A.5.1)."""
    [count] = struct.unpack_from(">H", stream.ljust(42, b"\0"), 40)
    steps = stream[42 : 42 + 3 * count]
    return max((1, *steps[1::3])), max((1, *steps[2::3]))
