"""Aperio SVS: a TIFF whose first ImageDescription starts with ``Aperio``.

Source: https://openslide.org/formats/aperio/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="aperio-svs",
    name="Aperio / Leica SVS",
    samples="8 bit, 3",
    marker="description starts with Aperio",
    treated="native",
    reader="OpenSlide",
    extension="svs",
    oddities="Tiles are JPEG or JPEG 2000 (compressions 33003 and 33005). The second directory is a "
    "thumbnail in strips; label and macro come last. Some scanners write the pixel size with "
    "a comma. If the levels do not descend, or the tiles are packed otherwise (WebP, JPEG XL), OpenSlide refuses the file, and a pyramid is "
    "derived from its first page; so it is if its JPEG tiles are of other colours than PhotometricInterpretation states, or are cut off at the edges. "
    "In slides of other vendors such colours are a warning.",
    source="https://openslide.org/formats/aperio/",
    matches=marked("aperio-svs"),
    native=True,
)
