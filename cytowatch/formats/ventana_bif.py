"""Ventana BIF: a TIFF with iScan XML in tag 700.

Source: https://openslide.org/formats/ventana/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="ventana-bif",
    name="Ventana BIF",
    samples="8 bit, 3",
    marker="iScan XML in tag 700",
    treated="native",
    reader="OpenSlide",
    extension="bif",
    oddities="Tiles overlap by amounts that the XML states. The description of each level is level=N "
    "mag=M.",
    source="https://openslide.org/formats/ventana/",
    matches=marked("ventana-bif"),
    native=True,
)
