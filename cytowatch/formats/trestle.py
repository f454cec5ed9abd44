"""Trestle: a TIFF whose Software starts with ``MedScan``.

Source: https://openslide.org/formats/trestle/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="trestle",
    name="Trestle TIFF",
    samples="8 bit, 3",
    marker="Software starts MedScan",
    treated="native",
    reader="OpenSlide",
    extension="tif",
    oddities="Tiles overlap; the description states by how much.",
    source="https://openslide.org/formats/trestle/",
    matches=marked("trestle"),
    native=True,
)
