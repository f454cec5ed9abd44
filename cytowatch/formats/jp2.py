"""JPEG 2000: a JP2 signature box, or a bare codestream FF 4F FF 51.

Source: ISO/IEC 15444-1, Annexes A and I
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is JPEG 2000."""
    if probe.head.startswith(b"\x00\x00\x00\x0cjP  \r\n\x87\n"):
        return "begins with a JP2 signature box"
    if probe.head.startswith(b"\xff\x4f\xff\x51"):
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
    oddities="A tiled one is read tile by tile: the main header and one tile's parts are a "
    "codestream of their own. One without tiles is decoded whole, and refused from its "
    "header where memory does not allow that, as is one whose tiles begin between two samples "
    "of subsampled colours. sYCC, CMYK, palettes, subsampling, signed samples and those of other "
    "than 8 or 16 bits become RGB or grey; CIELab, other YCbCr and components of different "
    "depths are refused. Where components have steps of their own it is decoded whole; where all have the same, "
    "it has as many pixels as samples. Opacity is transparency, and so is one sample more than there are colours of which "
    "nothing is said; other samples are left out and named.",
    source="ISO/IEC 15444-1, Annexes A and I",
    matches=matches,
)
