"""3DHistech MRXS: a JPEG beside a folder of its name with Slidedat.ini.

Source: https://openslide.org/formats/mirax/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="mirax-mrxs",
    name="3DHistech MRXS",
    samples="8 bit, 3",
    marker=".mrxs beside a folder with Slidedat.ini; a set of files",
    treated="native",
    reader="OpenSlide",
    extension="mrxs",
    oddities="The .mrxs is a small JPEG; the slide is in the folder, where Slidedat.ini names "
    "Index.dat and every Data file. SLIDE_CREATION_FINISHED = False in it means that the "
    "scanner is still working. File and folder are renamed together, and can differ in case. "
    "If an index or data file has another SLIDE_ID, it belongs to another slide: the reason "
    "is mixed_slides. The index says how long each Data file is; a shorter one is missing its end. Anything "
    "else the folder holds (a Data file that Slidedat.ini does not name, pictures, notes, other slides) is kept beside the slide, and a warning and the note name it.",
    source="https://openslide.org/formats/mirax/",
    matches=marked("mirax-mrxs"),
    native=True,
)
