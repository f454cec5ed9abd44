"""JPEG 2000: a tiled image is read tile by tile, one without tiles whole.

The main header with the parts of one tile is a codestream of its own, if the image and the grid
of tiles are said to begin where that tile does; all other coordinates stay, so wavelets fit.

Source: ISO/IEC 15444-1, Annex A (codestream) and Annex I (JP2 boxes).
"""

from __future__ import annotations

import os
import struct
from functools import partial

import numpy as np

from cytowatch.config import Config
from cytowatch.pyramid import orientation
from cytowatch.pyramid.pixels import Pixels, each
from cytowatch.pyramid.readers import jp2_boxes, jp2_planes
from cytowatch.pyramid.readers.jp2_boxes import Boxes, pread
from cytowatch.pyramid.readers.jp2_codestream import (
    Codestream,
    check_parts,
    find_parts,
    main_header,
)
from cytowatch.pyramid.readers.jp2_colours import Samples, samples
from cytowatch.pyramid.readers.whole import Whole
from cytowatch.pyramid.refusals import check_memory, check_size, damaged
from cytowatch.pyramid.regions import Opened, RegionReader, Scene
from cytowatch.record.errors import ConversionError
from cytowatch.record.quoting import quoting

__all__ = ["open_jp2"]

#: What the decoder says of what it cannot do.
_UNSUPPORTED = ("not supported", "unsupported", "not implemented")


class _Tiles:
    """Rows of a tiled image: each row of tiles is decoded once, by anyone who comes first."""

    def __init__(self, stream: Codestream, wrap: Boxes, stored: Samples, sample: Pixels) -> None:
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
        stream = main_header(descriptor, begin, end)
        check_size(*stream.pixels, config)
        stored = samples(boxes.inside, [depth for depth, _, _ in stream.components])
        region = _region(path, stream, boxes, stored, end, config)
        mpp = jp2_boxes.captured(boxes)
    except (struct.error, ValueError, IndexError) as error:
        os.close(descriptor)
        raise damaged(error) from error
    except ConversionError:
        os.close(descriptor)
        raise
    scene = Scene(
        region=region,
        mpp=mpp,
        cmyk=stored.means.colours == 4,
        icc_profile=stored.profile,
        done=(*_enlarged(stream), *stored.done, *_not_turned(descriptor)),
    )
    return Opened(scenes=[scene], reader="imagecodecs", close=partial(os.close, descriptor))


def _region(
    path: str, stream: Codestream, boxes: Boxes, stored: Samples, end: int, config: Config
) -> RegionReader:
    if not stream.is_sampled_as_imagecodecs_has_it:
        return Whole(
            jp2_planes.decoded(
                path, stream.components, stream.offset, stream.pixels, stored, config
            )
        )
    if stream.across * stream.down > 1 and stream.is_taken_apart:
        find_parts(stream, end)
        left, upper, right, lower = stream.area(0)
        alone = stream.alone(0)
        if not stored.bare:
            alone = boxes.around(alone, right - left, lower - upper)
        sample = _decoded(alone, stored, threads=1)
        return _Tiles(stream, boxes, stored, sample)
    return Whole(_whole(stream, boxes, end, config, stored))


def _whole(stream: Codestream, boxes: Boxes, end: int, config: Config, stored: Samples) -> Pixels:
    width, height = stream.pixels
    [(begin, _)] = stream.parts[-1]
    # OpenJPEG checks this too, but not where the box of the codestream ends before its end.
    check_parts(stream, end)
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


def _not_turned(descriptor: int) -> tuple[str, ...]:
    turn = orientation.of_jp2(descriptor)
    if turn in (None, 1):
        return ()
    said = f"its metadata say that it is to be turned (orientation {turn})"
    return (f"{said}: that was not done, because other programs show a JPEG 2000 as it is stored",)


def _enlarged(stream: Codestream) -> tuple[str, ...]:
    if all((dx, dy) == (1, 1) for _, dx, dy in stream.components):
        return ()
    return ("its subsampled components were enlarged",)
