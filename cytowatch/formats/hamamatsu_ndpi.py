"""Hamamatsu NDPI: a TIFF with the tag 65420 in its first directory.

Source: https://openslide.org/formats/hamamatsu/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="hamamatsu-ndpi",
    name="Hamamatsu NDPI",
    samples="8 bit, 3",
    marker="tag 65420",
    treated="native",
    reader="OpenSlide",
    extension="ndpi",
    oddities="A classic TIFF that can be larger than 4 GiB: pointers to directories have eight bytes, "
    "and the high halves of values follow each directory. Each level is a single JPEG strip "
    "with restart markers. A source lens of -1 marks the macro, -2 a map.",
    source="https://openslide.org/formats/hamamatsu/",
    matches=marked("hamamatsu-ndpi"),
    native=True,
    decides_colours=True,
)
