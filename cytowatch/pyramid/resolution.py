"""The pixel size that a source states, if it is one that a microscope or a scanner can have."""

from __future__ import annotations

import math
import os

from cytowatch.formats.tiff import Tiff, TiffError, main_page
from cytowatch.model import Mpp

__all__ = ["erase", "plausible", "stated"]

#: Above this a pixel is a screen's: 72 dpi are 353 µm. Below the other no light resolves it.
_LARGEST_UM, _SMALLEST_UM = 100.0, 0.001
_UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
_RESOLUTION_UNIT, _NONE = 296, 1


def plausible(x: float | None, y: float | None) -> Mpp | None:
    """`Mpp(x, y)` in micrometres per pixel, or None where it cannot be a slide's.

    >>> plausible(0.25, 0.25), plausible(352.8, 352.8), plausible(None, 1.0)
    (Mpp(x=0.25, y=0.25), None, None)
    """
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
        return None
    fits = all(_SMALLEST_UM <= value <= _LARGEST_UM for value in (x, y))
    return Mpp(x, y) if fits else None


def stated(path: str, xres: float, yres: float) -> Mpp | None:
    """What the file at `path` states; `xres` and `yres` are libvips' pixels per millimetre.

    libvips takes the numbers of a TIFF without a unit as pixels per millimetre, so a TIFF is
    asked directly (TIFF 6.0, ResolutionUnit).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
        page = tiff.directories[main_page(tiff)]
        unit = page.number(_RESOLUTION_UNIT, 2)
        x, y = page.ratio(282), page.ratio(283)
        um = _UM_PER_UNIT.get(unit)
        return plausible(um / x, um / y) if um and x and y else None
    except TiffError:
        return plausible(1000 / xres, 1000 / yres) if xres > 0 and yres > 0 else None
    finally:
        os.close(descriptor)


def erase(path: str) -> None:
    """State in every directory of the TIFF at `path` that its resolution has no unit.

    libvips cannot write that: it says 1 px/mm, which readers take for 1000 µm.

    Raises
    ------
    TiffError
        It is no TIFF.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
        value = _NONE.to_bytes(2, "little" if tiff.order == "<" else "big")
        for directory in [*tiff.directories, *tiff.sub_directories]:
            if tag := directory.tags.get(_RESOLUTION_UNIT):
                os.pwrite(descriptor, value, tag.offset)
    finally:
        os.close(descriptor)
