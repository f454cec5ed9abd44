"""DICOM: whole-slide microscopy, one file or one folder a slide.

Source: https://openslide.org/formats/dicom/
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import openslide_vendor

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a whole slide in DICOM."""
    if probe.head[128:132] != b"DICM" or openslide_vendor(probe) != "dicom":
        return None
    return "DICM at 128, whole-slide pixels"


FORMAT = Format(
    id="dicom",
    name="DICOM WSI",
    samples="8 bit, 3",
    marker="DICM at 128, and OpenSlide finds whole-slide pixels",
    treated="native",
    reader="OpenSlide",
    extension="dcm",
    oddities="Each level is a file; the files of one series in one folder are one slide. A DICOM "
    "file of another kind (a CT, a report) is no image here, and the error says so.",
    source="https://openslide.org/formats/dicom/",
    matches=matches,
    native=True,
)
