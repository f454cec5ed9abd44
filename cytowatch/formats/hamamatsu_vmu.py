"""Hamamatsu VMU: an INI file that names the NGR files of one slide.

Source: https://openslide.org/formats/hamamatsu/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="hamamatsu-vmu",
    name="Hamamatsu VMU",
    samples="8 bit, 3",
    marker="[Uncompressed Virtual Microscope Specimen]; a set of files",
    treated="native",
    reader="OpenSlide",
    extension="vmu",
    oddities="Like VMS, with uncompressed NGR images instead of JPEGs.",
    source="https://openslide.org/formats/hamamatsu/",
    matches=marked("hamamatsu-vmu"),
    native=True,
)
