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
    oddities="The .vsi is a small TIFF with a preview, the slide is in the .ets files; file and "
    "folder are renamed together. Without any .ets it is taken for the TIFF that it is when the wait is "
    "over. slideio has wheels for x86_64 only: elsewhere it is an "
    "error of its own, reader_missing.",
    source="https://bio-formats.readthedocs.io/en/latest/formats/cellsens-vsi.html",
    matches=marked("olympus-vsi"),
)
