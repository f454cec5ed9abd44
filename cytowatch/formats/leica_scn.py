"""Leica SCN: a BigTIFF whose XML is of the namespace of leica-microsystems scn.

Source: https://openslide.org/formats/leica/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="leica-scn",
    name="Leica SCN",
    samples="8 bit, 3",
    marker="XML namespace of leica-microsystems scn",
    treated="native",
    reader="OpenSlide",
    extension="scn",
    oddities="One collection holds a macro of the whole slide and one or more main images. OpenSlide "
    "shows all brightfield images in one plane.",
    source="https://openslide.org/formats/leica/",
    matches=marked("leica-scn"),
    native=True,
)
