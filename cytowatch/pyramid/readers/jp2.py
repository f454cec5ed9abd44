"""JPEG 2000: a tiled image is read tile by tile, one without tiles whole.

The main header with the parts of one tile is a codestream of its own, if the image and the grid
of tiles are said to begin where that tile does; all other coordinates stay, so wavelets fit.

Source: ISO/IEC 15444-1, Annex A (codestream) and Annex I (JP2 boxes).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from cytowatch.config import Config
from cytowatch.pyramid.readers import jp2_boxes, jp2_planes
from cytowatch.pyramid.readers.jp2_boxes import Boxes, pread
from cytowatch.pyramid.readers.jp2_colours import Samples, samples
from cytowatch.pyramid.readers.whole import Whole
from cytowatch.pyramid.regions import (
    Opened,
    Pixels,
    RegionReader,
    Scene,
    check_memory,
    check_size,
    damaged,
    each,
)
from cytowatch.record.errors import ConversionError
from cytowatch.record.quoting import quoting

__all__ = ["open_jp2"]

_SOT, _SOD, _EOC, _SIZ = 0xFF90, 0xFF93, 0xFFD9, 0xFF51
#: Markers of the main header that speak of all tiles at once.
_LENGTHS, _PACKED_HEADERS = frozenset({0xFF55, 0xFF57}), 0xFF60
#: These have no length (ISO/IEC 15444-1, table A.2).
_ALONE = range(0xFF30, 0xFF40)
#: What the decoder says of what it cannot do.
_UNSUPPORTED = ("not supported", "unsupported", "not implemented")
_LARGEST_HEADER = 64 << 20
_MOST_PARTS = 10_000_000


@dataclass(slots=True, kw_only=True)
class _Codestream:
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


class _Tiles:
    """Rows of a tiled image: each row of tiles is decoded once, by anyone who comes first."""

    def __init__(self, stream: _Codestream, wrap: Boxes, stored: Samples, sample: Pixels) -> None:
        self._stream = stream
        self._wrap = wrap
        self._stored = stored
        self.width, self.height = stream.pixels
        self.samples = sample.shape[2]
        self.dtype = sample.dtype
        self.block_rows = stream.tile[1]

    def rows(self, top: int, bottom: int) -> Pixels:
        stream = self._stream
        shape = (bottom - top, self.width, self.samples)
        found = np.zeros(shape, self.dtype)
        begin = top + stream.offset[1] - stream.tile_offset[1]
        end = bottom + stream.offset[1] - stream.tile_offset[1]

        def place(number: int) -> None:
            left, upper, right, lower = stream.area(number)
            pixels = self._decode(number, right - left, lower - upper)
            at = upper - stream.offset[1] - top
            skip = max(0, -at)
            until = min(lower - upper, shape[0] - at)
            x = left - stream.offset[0]
            found[at + skip : at + until, x : x + right - left] = pixels[skip:until]

        first, last = begin // stream.tile[1], -(-end // stream.tile[1])
        numbers = range(first * stream.across, last * stream.across)
        each(place, numbers, out_bytes=found.nbytes)
        return found

    def _decode(self, number: int, width: int, height: int) -> Pixels:
        if number not in self._stream.parts:
            raise damaged(f"tile {number} is not in the file")
        alone = self._stream.alone(number)
        if not self._stored.bare:
            alone = self._wrap.around(alone, width, height)
        pixels = _decoded(alone, self._stored, threads=1)
        if pixels.shape != (height, width, self.samples):
            raise damaged(f"tile {number} is {pixels.shape[1]} x {pixels.shape[0]} pixels")
        return pixels


def open_jp2(path: str, config: Config) -> Opened:
    """The image of a JPEG 2000 file.

    Raises
    ------
    ConversionError
        It is damaged, has no tiles and is too large to be decoded whole, or has more pixels than
        the limits allow.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        boxes, begin, end = jp2_boxes.read(descriptor, os.fstat(descriptor).st_size)
        stream = _main_header(descriptor, begin, end)
        check_size(*stream.pixels, config)
        stored = samples(boxes.inside, [depth for depth, _, _ in stream.components])
        region = _region(path, stream, boxes, stored, end, config)
    except (struct.error, ValueError, IndexError) as error:
        os.close(descriptor)
        raise damaged(error) from error
    except ConversionError:
        os.close(descriptor)
        raise
    scene = Scene(
        region=region,
        cmyk=stored.means.colours == 4,
        icc_profile=stored.profile,
        done=(*_enlarged(stream), *stored.done),
    )
    return Opened(scenes=[scene], reader="imagecodecs", close=partial(os.close, descriptor))


def _region(
    path: str, stream: _Codestream, boxes: Boxes, stored: Samples, end: int, config: Config
) -> RegionReader:
    if not stream.is_sampled_as_imagecodecs_has_it:
        return Whole(
            jp2_planes.decoded(
                path, stream.components, stream.offset, stream.pixels, stored, config
            )
        )
    if stream.across * stream.down > 1 and stream.is_taken_apart:
        _find_parts(stream, end)
        left, upper, right, lower = stream.area(0)
        alone = stream.alone(0)
        if not stored.bare:
            alone = boxes.around(alone, right - left, lower - upper)
        sample = _decoded(alone, stored, threads=1)
        return _Tiles(stream, boxes, stored, sample)
    return Whole(_whole(stream, boxes, end, config, stored))


def _whole(stream: _Codestream, boxes: Boxes, end: int, config: Config, stored: Samples) -> Pixels:
    width, height = stream.pixels
    [(begin, _)] = stream.parts[-1]
    # OpenJPEG holds four bytes per sample, imagecodecs copies them out.
    need = width * height * len(stream.components) * 6 + 2 * (end - begin)
    check_memory(need, config, "it has no tiles, and decoding it whole")
    data = stream.main + pread(stream.descriptor, end - begin, begin)
    return _decoded(
        data if stored.bare else boxes.around(data, width, height), stored, threads=None
    )


def _decoded(data: bytes, stored: Samples, *, threads: int | None) -> Pixels:
    """What a pyramid needs of the pixels: (rows, columns, samples)."""
    import imagecodecs

    try:
        pixels: Pixels = np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=threads))
    except Exception as error:
        if any(word in str(error).lower() for word in _UNSUPPORTED):
            raise ConversionError(
                "unsupported_format", quoting("its kind of JPEG 2000 cannot be read", error)
            ) from error
        raise damaged(error) from error
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
    if pixels.shape[2] != stored.stored:
        raise damaged(f"it has {pixels.shape[2]} samples per pixel, not {stored.stored}")
    return stored.plain(pixels)


def _enlarged(stream: _Codestream) -> tuple[str, ...]:
    if all((dx, dy) == (1, 1) for _, dx, dy in stream.components):
        return ()
    return ("its subsampled components were enlarged",)


def _main_header(descriptor: int, begin: int, end: int) -> _Codestream:
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
    stream = _Codestream(
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
    return _on_its_own_grid(stream)


def _on_its_own_grid(stream: _Codestream) -> _Codestream:
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


def _find_parts(stream: _Codestream, end: int) -> None:
    [(begin, _)] = stream.parts.pop(-1)
    for number, at, length in _walk(stream.descriptor, begin, end):
        if number >= stream.across * stream.down:
            raise ValueError(f"a part of tile {number}, which is not in the image")
        stream.parts.setdefault(number, []).append((at, length))


def _walk(descriptor: int, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number of the tile, offset, length) of every tile-part."""
    for _ in range(_MOST_PARTS):
        head = os.pread(descriptor, 12, at)
        if len(head) < 12 or head[:2] != b"\xff\x90":
            return
        number, length = struct.unpack(">HI", head[4:10])
        if length == 0:
            # The last one may leave open how long it is: it goes up to EOC.
            tail = 2 if os.pread(descriptor, 2, end - 2) == b"\xff\xd9" else 0
            length = end - tail - at
        if length < 14 or at + length > end:
            raise ValueError(f"a part of tile {number} ends beyond the file")
        yield number, at, length
        at += length
