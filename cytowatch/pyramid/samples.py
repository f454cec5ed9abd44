"""Samples of any kind as those that a pyramid holds: 8 or 16 bits without a sign.

Source: TIFF 6.0; IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cytowatch.model import Progress
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.refusals import damaged
from cytowatch.pyramid.regions import RegionReader, Scene
from cytowatch.record.errors import ConversionError

__all__ = ["banded", "held", "inverted", "spread", "srgb", "unmultiplied"]

_FULL = 65535
#: Pixels that are converted together.
_BAND_PIXELS = 1 << 20
#: Rows that are looked at together to find the least and the greatest value.
_LOOK_BYTES = 16 << 20


def spread(pixels: Pixels, bits: int) -> Pixels:
    """Samples of `bits` over all values of their type.

    >>> spread(np.array([0, 1, 15], np.uint8), 4)
    array([  0,  17, 255], dtype=uint8)
    """
    most, full = (1 << bits) - 1, int(np.iinfo(pixels.dtype).max)
    if most >= full:
        return pixels
    table = (np.arange(most + 1, dtype=np.uint32) * full + most // 2) // most
    found: Pixels = table.astype(pixels.dtype)[np.minimum(pixels, most)]
    return found


def banded(convert: Callable[[Pixels], Pixels], pixels: Pixels) -> Pixels:
    """`pixels` converted a few rows at a time: what that takes in between is many times as large."""
    step = max(1, _BAND_PIXELS // pixels.shape[1])
    first = convert(pixels[:step])
    if len(pixels) <= step:
        return first
    found = np.empty((len(pixels), *first.shape[1:]), first.dtype)
    found[:step] = first
    for top in range(step, len(pixels), step):
        found[top : top + step] = convert(pixels[top : top + step])
    return found


def inverted(pixels: Pixels, bits: int) -> Pixels:
    """White as black, of samples that have `bits`."""
    match pixels.dtype.kind:
        case "u":
            return np.subtract((1 << bits) - 1, pixels, dtype=pixels.dtype)
        case "i":
            return np.invert(pixels)
        case _:
            return 1 - pixels


def unmultiplied(colours: Pixels, alpha: Pixels) -> Pixels:
    """Colours that were multiplied by their transparency, (rows, columns, 1), as they were before."""
    whole = colours.dtype.kind != "f"
    most = int(np.iinfo(colours.dtype).max) if whole else 1
    found = np.zeros(colours.shape, np.float64)
    np.divide(colours, alpha, out=found, where=alpha > 0)
    found *= most
    if whole:
        found = np.rint(np.minimum(found, most))
    return found.astype(colours.dtype)


def srgb(linear: Pixels) -> Pixels:
    """Linear light from 0 to 1 as sRGB from 0 to 1."""
    bright = 1.055 * np.power(linear, 1 / 2.4) - 0.055
    found: Pixels = np.where(linear <= 0.0031308, 12.92 * linear, bright)
    return found


def held(scene: Scene, progress: Progress) -> Scene:
    """The scene, with samples of 16 bits if it had others than a pyramid holds; and what was done.

    All rows are read once for that; `progress` learns that it continues, not how far: 0.0.

    Raises
    ------
    ConversionError
        `damaged`: its pixels cannot be read.
    """
    region = scene.region
    if region.dtype in (np.uint8, np.uint16):
        return scene
    colours = region.samples - (region.samples in (2, 4))
    try:
        range_ = _range(region, colours, progress)
    except (ConversionError, MemoryError, OSError):
        raise
    except Exception as error:
        raise damaged(error) from error
    levelled = _Levelled(region, colours, range_)
    return replace(scene, region=levelled, done=(*scene.done, *levelled.done))


@dataclass(slots=True)
class _Range:
    """The least and the greatest colour, the greatest alpha, and whether some are not numbers."""

    least: Any = None
    most: Any = None
    alpha: float = 0.0
    endless: bool = False


def _range(region: RegionReader, colours: int, progress: Progress) -> _Range:
    found = _Range()
    for rows in _rows(region):
        progress(0.0)
        values, alpha = rows[:, :, :colours], rows[:, :, colours:]
        if region.dtype.kind == "f":
            finite = np.isfinite(values)
            found.endless = found.endless or not finite.all()
            values, alpha = values[finite], alpha[np.isfinite(alpha)]
        if values.size:
            least, most = values.min().item(), values.max().item()
            found.least = least if found.least is None else min(found.least, least)
            found.most = most if found.most is None else max(found.most, most)
        if alpha.size:
            found.alpha = max(found.alpha, float(alpha.max()))
    return found


def _rows(region: RegionReader) -> Iterator[Pixels]:
    row_bytes = region.width * region.samples * region.dtype.itemsize
    unit = max(1, region.block_rows)
    step = unit * max(1, _LOOK_BYTES // (row_bytes * unit))
    for top in range(0, region.height, step):
        bottom = min(region.height, top + step)
        yield region.rows(top, bottom).reshape(bottom - top, region.width, region.samples)


class _Levelled:
    """An image with samples of 16 bits, of one that has signed, wide or floating ones."""

    def __init__(self, region: RegionReader, colours: int, range_: _Range) -> None:
        self._region = region
        self._colours = colours
        self._least, self._most = range_.least or 0, range_.most or 0
        self._alpha = range_.alpha
        self.width, self.height, self.samples = region.width, region.height, region.samples
        self.dtype = np.dtype(np.uint16)
        self.block_rows = region.block_rows
        kind = region.dtype.kind
        fits = self._least >= 0 and self._most <= _FULL
        # Of 8 bits with a sign the greatest is 127, which is nearly black among 16 bits.
        self._unchanged = fits and kind in "iu" and region.dtype.itemsize > 1
        self._linear = kind == "f" and colours == 3 and self._least >= 0 and self._most <= 1
        self.done = (self._said(), *(_ENDLESS if range_.endless else ()))

    def rows(self, top: int, bottom: int) -> Pixels:
        rows = self._region.rows(top, bottom).reshape(bottom - top, self.width, self.samples)
        return banded(self._as_16_bits, rows)

    def _as_16_bits(self, rows: Pixels) -> Pixels:
        found = np.empty(rows.shape, np.uint16)
        found[:, :, : self._colours] = self._levelled(rows[:, :, : self._colours])
        if self.samples > self._colours:
            found[:, :, self._colours :] = self._opacity(rows[:, :, self._colours :])
        return found

    def _said(self) -> str:
        name = self._region.dtype.name
        if self._unchanged:
            return f"its {name} samples are stored as 16-bit ones, unchanged"
        if self._linear:
            return "its linear floating samples were converted to 16-bit RGB"
        span = f"{self._least:g} to {self._most:g}"
        return f"its {name} samples, {span}, were scaled to 16 bits"

    def _levelled(self, values: Pixels) -> Pixels:
        if self._unchanged:
            return values.astype(np.uint16)
        if self._linear:
            return _whole(srgb(np.clip(values, 0, 1, dtype=np.float64)) * _FULL)
        scale = _FULL / ((self._most - self._least) or 1)
        return _whole(self._above_least(values) * scale)

    def _above_least(self, values: Pixels) -> Pixels:
        if values.dtype.kind == "f":
            return values.astype(np.float64) - self._least
        # Without a sign a difference of two whole numbers is exact, however large they are.
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        least = unsigned.type(self._least % (1 << 8 * unsigned.itemsize))
        found: Pixels = (values.astype(unsigned) - least).astype(np.float64)
        return found

    def _opacity(self, alpha: Pixels) -> Pixels:
        whole = alpha.dtype.kind != "f"
        most = float(np.iinfo(alpha.dtype).max) if whole else max(1.0, self._alpha)
        return _whole(alpha.astype(np.float64) * (_FULL / most))


_ENDLESS = (
    "values that are infinite or no numbers were left out of that: they are white or black",
)


def _whole(values: Pixels) -> Pixels:
    numbers = np.nan_to_num(values, nan=0, posinf=_FULL, neginf=0)
    found: Pixels = np.rint(np.clip(numbers, 0, _FULL)).astype(np.uint16)
    return found
