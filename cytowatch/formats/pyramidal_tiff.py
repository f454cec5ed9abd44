"""Pyramidal TIFF: two or more levels, every one tiled, no vendor's mark.

Source: https://openslide.org/formats/generic-tiff/
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import levels, vendor

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a pyramid already."""
    if probe.tiff is None or vendor(probe):
        return None
    found = levels(probe.tiff)
    return f"{len(found)} tiled levels, no vendor's mark" if found else None


FORMAT = Format(
    id="pyramidal-tiff",
    name="Pyramidal TIFF",
    samples="8 bit, 1 or 3",
    marker="every level tiled, two or more levels, no vendor mark",
    treated="native",
    reader="OpenSlide",
    extension="tif",
    oddities="Pages in strips between the levels are thumbnails, and ignored. A pyramid is derived if "
    "OpenSlide refuses the file (JPEG 2000 tiles) or would show it wrongly: samples other "
    "than unsigned 8-bit ones, an orientation, a fourth sample that is not transparency, transparency beside grey or a "
    "palette, CMYK, Lab, YCbCr without a word on its chroma, or JPEG tiles of other colours or sizes than are stated (as where those at the edge are cut off).",
    source="https://openslide.org/formats/generic-tiff/",
    matches=matches,
    native=True,
    else_derived=True,
)
