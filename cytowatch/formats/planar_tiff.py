"""Planar TIFF: a TIFF of no vendor, without a pyramid of tiled levels.

Source: TIFF 6.0
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import levels, vendor

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a flat TIFF."""
    if probe.tiff is None or vendor(probe) or levels(probe.tiff):
        return None
    return "a TIFF without a pyramid of tiled levels"


FORMAT = Format(
    id="planar-tiff",
    name="Planar TIFF",
    samples="8 bit, 1 or 3",
    marker="TIFF without a pyramid of tiled levels",
    treated="pyramid derived",
    reader="libvips, else tifffile",
    extension="tif",
    oddities="What libvips does not read (ZSTD, LZMA, LERC or JPEG 2000 in TIFF) goes to tifffile. "
    "Of several pages the first that is neither a reduced image nor a mask is the pyramid. Tiles that "
    "the file leaves out are counted in a warning. 16 bits and floating samples end in a lossless "
    "pyramid of 16 bits; fewer bits are spread, wide, signed and floating samples scaled. "
    "YCbCr, Lab and samples that ExtraSamples does not call transparency go to tifffile as well: "
    "what is neither colour nor transparency is left out and named. A pixel size is taken from the tags of the "
    "standard and from what ImageJ, MetaMorph, NIS-Elements, Micro-Manager, LSM and GeoTIFF (in metres) state beside them.",
    source="TIFF 6.0",
    matches=matches,
)
