"""Tiles: cut out of bands of rows, encoded, and halved for the next level."""

from __future__ import annotations

import numpy as np

from cytowatch.formats.structure import jpeg
from cytowatch.pyramid.encode.settings import FULL_CHROMA, Settings
from cytowatch.pyramid.pixels import Pixels

__all__ = ["halved", "tiles_of"]


def halved(band: Pixels, rows: int, columns: int) -> Pixels:
    """The means of two by two pixels; of a single row or column, of those that there are."""
    if len(band) == 1:
        band = np.repeat(band, 2, axis=0)
    if band.shape[1] == 1:
        band = np.repeat(band, 2, axis=1)
    sums = np.add(band[0 : 2 * rows : 2], band[1 : 2 * rows : 2], dtype=np.uint16)
    found = np.empty((rows, columns, band.shape[2]), np.uint8)
    # One sample after the other: numpy's inner loop is then as long as a row, and not as a pixel.
    for sample in range(band.shape[2]):
        four = sums[:, 0 : 2 * columns : 2, sample] + sums[:, 1 : 2 * columns : 2, sample]
        four += 2
        four >>= 2
        found[:, :, sample] = four
    return found


def tiles_of(band: Pixels, left: int, right: int, settings: Settings) -> tuple[bytes, list[bytes]]:
    """(tables, each tile without them) of a part of a band of tiles."""
    found = [_tile(band, at, settings) for at in range(left, right, settings.tile)]
    return _tables(found[0]), [_abbreviated(data) for data in found]


def _tile(band: Pixels, left: int, settings: Settings) -> bytes:
    """One tile as a JPEG; beyond the image its last row and column go on."""
    import imagecodecs

    samples = band.shape[2]
    part = band[:, left : left + settings.tile]
    missing = (settings.tile - part.shape[0], settings.tile - part.shape[1])
    if any(missing):
        part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    part = np.ascontiguousarray(part)
    if samples == 1:
        return bytes(imagecodecs.jpeg8_encode(part[:, :, 0], level=settings.quality))
    if settings.ycbcr:
        chroma = "444" if settings.quality >= FULL_CHROMA else "420"
        return bytes(imagecodecs.jpeg8_encode(part, level=settings.quality, subsampling=chroma))
    return bytes(
        imagecodecs.jpeg8_encode(
            part, level=settings.quality, colorspace="RGB", outcolorspace="RGB"
        )
    )


#: What a tile does without: the tables, which are in the directory, and JFIF's own marks.
_LEFT_OUT = jpeg.TABLES | frozenset({0xE0, 0xEE, 0xFE})


def _tables(data: bytes) -> bytes:
    """The tables of a JPEG as a stream of their own; the same for all tiles of one quality."""
    parts = (data[at:end] for marker, at, end in jpeg.segments(data) if marker in jpeg.TABLES)
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def _abbreviated(data: bytes) -> bytes:
    """A JPEG without its tables."""
    kept = [b"\xff\xd8"]
    end = 2
    for marker, at, end in jpeg.segments(data):
        if marker not in _LEFT_OUT:
            kept.append(data[at:end])
    return b"".join([*kept, data[end:]])
