"""In the decoder process: open a deployed pyramid and draw regions of it as 8-bit pixels.

Memory bound: a region is read in bands of at most `_BAND_PX` pixels, each reduced before the next one
is read, so a decoder holds some 50 MB beside the libraries for any request, and what OpenSlide keeps of
what it has decoded: all decoders together some `_KEPT_BYTES`. `iiif` and `web`
bound how large a picture is; `_MOST_PX` bounds how much of a level may be read for one.
"""

from __future__ import annotations

import functools
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openslide
import pyvips
from PIL import Image

from cytowatch.panel.pixels.answers import MOST_DECODERS

__all__ = ["Drawing", "DrawingError", "Facts", "Window", "jpeg", "open_image"]

_BAND_PX = 4_000_000
#: A level may be this much larger than the region asked for, because there is no smaller one.
_MOST_PX = 300_000_000
_QUALITY = 90
#: A tile of an NDPI is cut from strips as wide as a level, each decoded as a whole: with the 32 MiB that OpenSlide
#: keeps by itself, each tile of a wide level decodes them again.
_KEPT_BYTES = 512 << 20
_LEAST_KEPT_BYTES = 32 << 20
#: What lies outside of these shares of all pixels is shown as black or white.
_DARKEST, _LIGHTEST = 0.1, 99.9
_SAMPLE_PX = 2_000_000

Pixels = np.ndarray[Any, np.dtype[Any]]


class DrawingError(Exception):
    """This region cannot be drawn; the message is for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the manifest says of an image: its file, samples, and (width, height) of its levels."""

    file: str
    bits: int
    levels: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which samples are shown as black and as white; both belong to the range of the samples."""

    low: float
    high: float


class Drawing(ABC):
    """One open image. `pixels` is what a subclass adds."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._window: Window | None = None

    @abstractmethod
    def pixels(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """A region that lies in `level`, in its pixels: (rows, columns, 1 or 3) samples."""

    @property
    def window(self) -> Window:
        """The range of samples that is shown unless a viewer asks for another window.

        It comes from the smallest level: nearly all of its samples lie in it.
        """
        if self._window is None:
            width, height = self.facts.levels[-1]
            rows = max(1, min(height, _SAMPLE_PX // max(1, width)))
            top = (height - rows) // 2
            found = self.pixels(len(self.facts.levels) - 1, 0, top, min(width, _SAMPLE_PX), rows)
            low, high = (float(one) for one in np.percentile(found, (_DARKEST, _LIGHTEST)))
            self._window = Window(low=low, high=max(high, low + 1))
        return self._window

    def draw(
        self,
        level: int,
        box: tuple[int, int, int, int],
        size: tuple[int, int],
        window: Window | None = None,
    ) -> Image.Image:
        """The region `box` of `level` (x, y, width, height in its pixels), drawn in `size` pixels.

        Raises
        ------
        DrawingError
            It does not lie in the level, or is too large.
        """
        x, y, width, height = box
        wide, tall = self.facts.levels[level]
        if min(x, y) < 0 or not (0 < width <= wide - x and 0 < height <= tall - y):
            raise DrawingError(f"{box} does not lie in a level of {wide} x {tall} pixels")
        if width * height > _MOST_PX:
            raise DrawingError(
                f"{width:,} x {height:,} pixels are too many to be read for one picture"
            )
        step = max(1, min(width // size[0], height // size[1]))
        rows = max(step, _BAND_PX // width // step * step)
        bands = []
        for top in range(0, height, rows):
            picture = self._band(level, x, y + top, width, min(rows, height - top), window)
            bands.append(picture.reduce(step) if step > 1 else picture)
        whole = bands[0] if len(bands) == 1 else _stacked(bands)
        return whole if whole.size == size else whole.resize(size, Image.Resampling.LANCZOS)

    def _band(
        self, level: int, x: int, y: int, width: int, height: int, window: Window | None
    ) -> Image.Image:
        return _picture(self._shown(self.pixels(level, x, y, width, height), window))

    def _shown(self, pixels: Pixels, window: Window | None) -> Pixels:
        if pixels.dtype == np.uint8 and window is None:
            return pixels
        held = window or self.window
        scaled = (pixels.astype(np.float32) - held.low) * (255 / (held.high - held.low))
        # What is not a number is shown as black.
        found: Pixels = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
        return found


class _BySlide(Drawing):
    """What OpenSlide opens: regions of 8 bits, over the slide's own background."""

    def __init__(self, facts: Facts, slide: openslide.OpenSlide) -> None:
        super().__init__(facts)
        self._slide = slide
        slide.set_cache(_kept())
        colour = slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
        self._background = f"#{colour}" if len(colour) == 6 else "#ffffff"

    def pixels(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        return np.asarray(self._region(level, x, y, width, height))

    def _band(
        self, level: int, x: int, y: int, width: int, height: int, window: Window | None
    ) -> Image.Image:
        if window is None:
            return self._region(level, x, y, width, height)
        # A window is measured in samples.
        return super()._band(level, x, y, width, height, window)

    def _region(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        scale = self._slide.level_downsamples[level]
        place = (round(x * scale), round(y * scale))
        found: Image.Image = self._slide.read_region(place, level, (width, height))
        # The bands of colours are not looked at: that takes eight times as long.
        if np.asarray(found)[:, :, 3].min() < 255:
            found = Image.alpha_composite(Image.new("RGBA", found.size, self._background), found)
        return found.convert("RGB")


class _ByPages(Drawing):
    """A pyramid that OpenSlide does not open, such as one of 16 bits: each level is a page of it."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._pages: dict[int, pyvips.Image] = {}

    def pixels(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        page = self._pages.get(level)
        if page is None:
            page = self._pages[level] = self._page(level)
        found: Pixels = np.atleast_3d(page.crop(x, y, width, height).numpy())
        # Anything that follows the colours is not a colour.
        return found[:, :, :3] if found.shape[2] >= 3 else found[:, :, :1]

    def _page(self, level: int) -> pyvips.Image:
        if len(self.facts.levels) > 1:
            found = pyvips.Image.tiffload(self.facts.file, page=level)
        else:
            found = pyvips.Image.new_from_file(self.facts.file)
        if (found.width, found.height) != self.facts.levels[level]:
            raise DrawingError(f"level {level} has {found.width} x {found.height} pixels")
        return found


def open_image(facts: Facts) -> Drawing:
    """Open the image that `facts` describes.

    Raises
    ------
    DrawingError
        It cannot be opened, or is not what the manifest says.
    """
    if facts.bits == 8:
        try:
            slide = openslide.OpenSlide(facts.file)
        except openslide.OpenSlideError:
            return _ByPages(facts)
        if slide.level_dimensions != facts.levels:
            raise DrawingError(f"its levels are {slide.level_dimensions}")
        return _BySlide(facts, slide)
    return _ByPages(facts)


def jpeg(picture: Image.Image) -> bytes:
    """`picture` as a JPEG, its colours as finely sampled as its light."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()


@functools.lru_cache(maxsize=1)
def _kept() -> openslide.OpenSlideCache:
    """What the images of this process keep of what they have decoded, all together."""
    return openslide.OpenSlideCache(max(_LEAST_KEPT_BYTES, _KEPT_BYTES // MOST_DECODERS))


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _stacked(bands: Sequence[Image.Image]) -> Image.Image:
    whole = Image.new(bands[0].mode, (bands[0].width, sum(one.height for one in bands)))
    top = 0
    for one in bands:
        whole.paste(one, (0, top))
        top += one.height
    return whole
