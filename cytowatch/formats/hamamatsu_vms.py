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
    oddities="The set is what the index names: ImageFile(x,y), MapFile, OptimisationFile, "
    "MacroImage, all in the folder of the index; a name that leads elsewhere is refused. "
    "JPEGs called name(x,y).jpg, name_macro.jpg and name_map2.jpg wait for their index, "
    "and name.jpg with them; what its name alone makes a part of a slide is taken for a picture when the wait is "
    "over. Names may differ from the index in case.",
    source="https://openslide.org/formats/hamamatsu/",
    matches=marked("hamamatsu-vms"),
    native=True,
)
