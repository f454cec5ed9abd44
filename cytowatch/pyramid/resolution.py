"""The pixel size that a source states, if it is one that a microscope or a scanner can have."""

from __future__ import annotations

import os

from cytowatch.formats.structure.main import main_directory
from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError
from cytowatch.model import Mpp
from cytowatch.pyramid import calibration
from cytowatch.pyramid.calibration import plausible

__all__ = ["erase", "plausible", "stated"]

_UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
_RESOLUTION_UNIT, _NONE = 296, 1


def stated(path: str, xres: float, yres: float) -> Mpp | None:
    """What the file at `path` states; `xres` and `yres` are libvips' pixels per millimetre.

    libvips takes the numbers of a TIFF without a unit as pixels per millimetre, so a TIFF is
    asked directly (TIFF 6.0, ResolutionUnit), and what its writer says elsewhere in it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
        page = main_directory(tiff)
        return calibration.read(page) or _by_tags(page)
    except TiffError:
        return plausible(1000 / xres, 1000 / yres) if xres > 0 and yres > 0 else None
    finally:
        os.close(descriptor)


def _by_tags(page: Directory) -> Mpp | None:
    um = _UM_PER_UNIT.get(page.number(_RESOLUTION_UNIT, 2))
    x, y = page.ratio(282), page.ratio(283)
    # A picture that ImageJ has not calibrated has pixels for a unit, no matter what its resolution is.
    return plausible(um / x, um / y) if um and x and y and not calibration.is_none(page) else None


def erase(path: str) -> None:
    """State in every directory of the TIFF at `path` that its resolution has no unit.

    libvips cannot write that: it says 1 px/mm, which readers take for 1000 µm.

    Raises
    ------
    TiffError
        It is not a TIFF.
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
