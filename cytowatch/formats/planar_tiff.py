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
    oddities="If libvips cannot read a file (ZSTD, LZMA, LERC or JPEG 2000 in TIFF), tifffile does. In "
    "a file of several pages, the pyramid is made from the first page that is neither a "
    "reduced image nor a mask, or from a larger image in its SubIFDs, of which it is the "
    "preview. Three 8-bit channels of ImageJ are one RGB picture, unless their tables of colours or their "
    "names say something else. Tiles that the file leaves out are counted in a warning. "
    "16-bit and floating-point samples become a lossless 16-bit pyramid; samples of fewer "
    "bits are expanded; wide, signed and floating-point samples are scaled. tifffile also "
    "reads YCbCr, Lab, and samples that ExtraSamples does not call transparency. A sample "
    "that is neither colour nor transparency is left out, with a warning. If the marks of a JPEG say that it is "
    "RGB or YCbCr and PhotometricInterpretation states the other, the JPEG is right; a JPEG 2000 is YCbCr if that is "
    "stated and its components were not transformed together. The pixel size "
    "comes from the standard tags, and from the notes of ImageJ, MetaMorph, NIS-Elements, "
    "Micro-Manager, LSM and GeoTIFF (in metres).",
    source="TIFF 6.0",
    matches=matches,
)
