"""JPEG 2000: a JP2 signature box, or a bare codestream FF 4F FF 51.

Source: ISO/IEC 15444-1, Annexes A and I
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.structure import jp2

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is JPEG 2000."""
    if probe.head.startswith(jp2.SIGNATURE):
        return "begins with a JP2 signature box"
    if probe.head.startswith(jp2.BEGIN):
        return "begins with a JPEG 2000 codestream"
    return None


FORMAT = Format(
    id="jp2",
    name="JPEG 2000",
    samples="8 bit, 1 or 3",
    marker="JP2 signature box, or FF 4F FF 51",
    treated="pyramid derived",
    reader="imagecodecs",
    extension="jp2",
    oddities="A tiled file is read tile by tile: the main header and the parts of one tile form a "
    "codestream. A file without tiles is decoded as a whole, and refused by its header if "
    "memory does not allow that. The same holds for a file whose tiles start between two "
    "samples of subsampled colours. sYCC, CMYK, palettes, subsampling, signed samples and "
    "samples of other than 8 or 16 bits become RGB or grey. CIELab, other YCbCr and "
    "components of different depths are refused. If the components have different steps, the "
    "file is decoded as a whole; if all have the same step, it has as many pixels as samples. "
    "Opacity counts as transparency, and so does a single extra sample without a stated "
    "meaning. Other extra samples are left out, with a warning. The pixel size is that of "
    "the capture resolution. An orientation in a box of Exif or XMP is not applied, because other programs do not apply it either; a warning reports it.",
    source="ISO/IEC 15444-1, Annexes A and I",
    matches=matches,
)
