"""Hamamatsu NDPI: a TIFF with the tag 65420 in its first directory.

Source: https://openslide.org/formats/hamamatsu/
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import vendor

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a Hamamatsu slide."""
    match vendor(probe):
        case ("hamamatsu-ndpi", evidence):
            return evidence
        case _:
            return None


FORMAT = Format(
    id="hamamatsu-ndpi",
    name="Hamamatsu NDPI",
    samples="8 bit, 3",
    marker="tag 65420",
    treated="native",
    reader="OpenSlide",
    extension="ndpi",
    matches=matches,
    native=True,
)
