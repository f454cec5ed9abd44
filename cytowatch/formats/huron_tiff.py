"""Huron TIFF: a TIFF whose Make starts with ``Huron``.

Source: https://openslide.org/formats/huron/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="huron-tiff",
    name="Huron Technologies TIFF",
    samples="8 bit, 3",
    marker="Make starts Huron",
    treated="native",
    reader="OpenSlide",
    extension="tif",
    oddities="The second directory is a thumbnail in strips. The label has subfile type 1, the macro "
    "9.",
    source="https://openslide.org/formats/huron/",
    matches=marked("huron-tiff"),
    native=True,
)
