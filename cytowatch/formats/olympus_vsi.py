"""CellSens VSI: a TIFF beside ``_<name>_/stack*/frame_t*.ets``.

Source: https://bio-formats.readthedocs.io/en/latest/formats/cellsens-vsi.html
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="olympus-vsi",
    name="CellSens VSI",
    samples="–",
    marker="TIFF beside _name_/stack*/frame_t*.ets; a set of files",
    treated="converted",
    reader="slideio",
    extension="vsi",
    oddities="The .vsi is a small TIFF with a preview; the slide is in the .ets files. File and folder "
    "are renamed together. The .vsi announces its stacks and their sizes: it waits for each of them, and without an "
    "overview or a label it is deployed with a warning in the end. A stack that is larger than any it announces, and pictures that somebody put into the folder, are kept "
    "beside the slide, with a warning. A .vsi that waits in vain for its .ets files counts as a TIFF. Of several channels, focal planes "
    "or times the first is used, and the others are listed; three channels are one RGB picture as in an OME-TIFF. A stack whose "
    "first plane lacks tiles that another one has is not supported, and neither are colours without compression. "
    "slideio says which images there are; JPEG and JPEG 2000 tiles are decoded without it. "
    "slideio has wheels only for x86_64; elsewhere the error is reader_missing.",
    source="https://bio-formats.readthedocs.io/en/latest/formats/cellsens-vsi.html",
    matches=marked("olympus-vsi"),
    needs="slideio",
)
