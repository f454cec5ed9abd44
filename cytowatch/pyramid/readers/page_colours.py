"""What the samples of a page mean, and how they become grey, RGB or inks.

Source: TIFF 6.0
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cytowatch.pyramid.colours import LUMA, REFERENCE, rgb_of_lab, rgb_of_ycbcr
from cytowatch.pyramid.meaning import (
    CIELAB,
    DECODED,
    ICCLAB,
    PALETTE,
    SEPARATED,
    WHITE_IS_ZERO,
    YCBCR,
    meaning,
)
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.page_kinds import check_kind, photometric, rationals
from cytowatch.pyramid.samples import inverted, spread, unmultiplied
from cytowatch.record.errors import ConversionError

__all__ = ["Colours"]


class Colours:
    """Guards that every sample of one page of tifffile is taken for what its tags say.

    With `ycbcr` its decoder leaves YCbCr as it is.

    Raises
    ------
    ConversionError
        Nothing here reads such samples.
    """

    def __init__(self, page: Any, *, ycbcr: bool = False) -> None:
        self._page = page
        self._stored = int(page.samplesperpixel)
        kind = photometric(page)
        self._means = meaning(kind, self._stored, tuple(page.extrasamples))
        self._palette = page.colormap if kind == PALETTE else None
        self._inverted = kind == WHITE_IS_ZERO
        self._lab = kind in (CIELAB, ICCLAB)
        self.ycbcr = ycbcr or (kind == YCBCR and page.compression not in DECODED)
        self.cmyk = kind == SEPARATED
        check_kind(page, kind, self._stored, self._means.colours)
        colours = 3 if self._palette is not None else self._means.colours
        self.samples = colours + (self._means.alpha is not None)
        # tifffile makes it when it is used first, which must not be in several threads at a time.
        page.decode  # noqa: B018
        if page.dtype is None:
            raise ConversionError("unsupported_samples", "its samples are of an unknown kind")
        narrow = page.dtype == bool or self._palette is not None
        dtype = np.dtype(np.uint8) if narrow else page.dtype
        self.dtype = np.dtype(dtype).newbyteorder("=")
        if self.dtype.kind not in "uif":
            raise ConversionError("unsupported_samples", f"its samples are {self.dtype}")
        whole = 8 * self.dtype.itemsize
        self._bits = page.bitspersample if isinstance(page.bitspersample, int) else whole
        #: What has to be done to its samples, as lines.
        self.done = tuple(self._said())
        #: Whether `plain` changes anything.
        self.converted = bool(self.done) or self._inverted or self._means.premultiplied

    def _said(self) -> Iterator[str]:
        """What has to be done to its samples."""
        kept, stored = self._means.colours, self._stored
        if self._palette is not None:
            yield "its palette was expanded to RGB"
        elif self.dtype in (np.uint8, np.uint16) and self._bits < 8 * self.dtype.itemsize:
            yield f"its {self._bits}-bit samples were expanded to {8 * self.dtype.itemsize} bits"
        if self._lab:
            yield "converted from lab to sRGB"
        if self.ycbcr:
            yield "converted from YCbCr to RGB"
        if stored > kept + (self._means.alpha is not None):
            first = "first is" if kept == 1 else f"first {kept} are"
            yield f"it has {stored} samples per pixel: the {first} the pyramid"

    def plain(self, pixels: Pixels) -> Pixels:
        """Its colours as grey, RGB or inks, and its transparency if it has one."""
        if pixels.dtype == np.bool_:
            pixels = pixels.view(np.uint8)
        colours = self._coloured(pixels[:, :, : self._means.colours])
        place = self._means.alpha
        if place is None:
            return colours
        alpha = pixels[:, :, place : place + 1]
        if self._palette is not None:
            alpha = (alpha >> max(0, self._bits - 8)).astype(np.uint8)
        alpha = self._spread(alpha)
        if self._means.premultiplied:
            colours = self._divided(colours, alpha)
        return np.concatenate([colours, alpha], axis=2)

    def _divided(self, colours: Pixels, alpha: Pixels) -> Pixels:
        """Colours that were multiplied by `alpha` as before; where white is zero, their darkness was."""
        if not self._inverted:
            return unmultiplied(colours, alpha)
        bits = 8 * colours.dtype.itemsize
        return inverted(unmultiplied(inverted(colours, bits), alpha), bits)

    def _coloured(self, pixels: Pixels) -> Pixels:
        if self._palette is not None:
            wide = np.moveaxis(self._palette[:, pixels[:, :, 0].astype(np.intp)], 0, -1)
            # Some writers put 8 bits where 16 are meant.
            shift = 8 if self._palette.max() > 255 else 0
            found: Pixels = (wide >> shift).astype(np.uint8)
            return found
        if self._inverted:
            pixels = inverted(pixels, self._bits)
        pixels = self._spread(pixels)
        if self._lab:
            return rgb_of_lab(pixels, icc=self._page.photometric == ICCLAB)
        if self.ycbcr:
            luma = rationals(self._page, 529, LUMA)
            return rgb_of_ycbcr(pixels, luma, rationals(self._page, 532, REFERENCE))
        return pixels

    def _spread(self, pixels: Pixels) -> Pixels:
        narrow = pixels.dtype in (np.uint8, np.uint16)
        return spread(pixels, self._bits) if narrow else pixels
