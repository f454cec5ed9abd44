"""JPEG: begins with FF D8 FF.

Source: ITU-T T.81, Annex B
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import vendor

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a JPEG, and not the head of a set."""
    jpeg = probe.head.startswith(b"\xff\xd8\xff")
    return "begins with FF D8 FF" if jpeg and vendor(probe) is None else None


FORMAT = Format(
    id="jpeg",
    name="JPEG",
    samples="8 bit, 1 or 3",
    marker="FF D8 FF",
    treated="pyramid derived",
    reader="libvips",
    extension="jpg",
    oddities="EXIF orientation is applied, CMYK and YCCK are converted through their profile. 72 or "
    "96 dpi of a camera is no pixel size. What the decoder warns of is told, "
    "and is damage where pixels are lost.",
    source="ITU-T T.81, Annex B",
    matches=matches,
)
