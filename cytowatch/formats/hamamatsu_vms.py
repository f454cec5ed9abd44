"""Hamamatsu VMS: an INI file that names the JPEGs of one slide.

Source: https://openslide.org/formats/hamamatsu/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="hamamatsu-vms",
    name="Hamamatsu VMS",
    samples="8 bit, 3",
    marker="[Virtual Microscope Specimen]; a set of files",
    treated="native",
    reader="OpenSlide",
    extension="vms",
    oddities="The index names the files of the set: ImageFile(x,y), MapFile, OptimisationFile, "
    "MacroImage, all in its own folder. A name that leads elsewhere is refused. JPEGs named "
    "name(x,y).jpg, name_macro.jpg, name_map2.jpg and name.jpg wait for their index; if none "
    "arrives in time, each counts as a picture, unless together they can only be a slide. Names "
    "can differ from the index in case.",
    source="https://openslide.org/formats/hamamatsu/",
    matches=marked("hamamatsu-vms"),
    native=True,
)
