"""DICOM: whole-slide microscopy, one file or one folder per slide.

Source: https://openslide.org/formats/dicom/
"""

from __future__ import annotations

import os

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import openslide_vendor

__all__ = ["FORMAT", "series"]

#: VL Whole Slide Microscopy Image Storage (DICOM PS3.4, table B.5-1).
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"

_DEFLATED = b"1.2.840.10008.1.2.1.99"


def matches(probe: Probe) -> str | None:
    """The evidence that it is a whole slide in DICOM; where nothing may be decoded, by its class."""
    if probe.head[128:132] != b"DICM":
        return None
    if probe.path is None:
        return "DICM at 128, of the class of whole slides" if series(probe) else None
    vendor = openslide_vendor(probe)
    # Of one that is a TIFF as well OpenSlide goes by the name, which is not the last one that it gets.
    if vendor == "dicom" or (vendor is not None and series(probe)):
        return "DICM at 128, whole-slide pixels"
    return None


def series(probe: Probe) -> str | None:
    """The UID of the series that a part of a whole slide belongs to; None if it is not such a part."""
    # pydicom would inflate a deflated file whole, and OpenSlide reads no such slide.
    if probe.head[128:132] != b"DICM" or _DEFLATED in probe.head:
        return None
    # Imported here: hardly any lab drops DICOM, and it takes a third of a second.
    import pydicom

    with open(os.dup(probe.descriptor), "rb") as file:
        file.seek(0)
        try:
            found = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "SOPClassUID"]
            )
            return str(found.SeriesInstanceUID) if found.SOPClassUID == _WHOLE_SLIDE else None
        except Exception:  # noqa: BLE001 - no matter what it raises, it is taken for no part of a slide
            return None


FORMAT = Format(
    id="dicom",
    name="DICOM WSI",
    samples="8 bit, 3",
    marker="DICM at 128, and OpenSlide finds whole-slide pixels",
    treated="native",
    reader="OpenSlide",
    extension="dcm",
    oddities="A DICOM file whose preamble is a TIFF header counts as DICOM. If its JPEG frames have "
    "other colours than it states (YCbCr for RGB, or RGB for YCbCr), which OpenSlide would "
    "believe, a pyramid is derived with the right colours, or a warning says so; one is derived as well if JPEG frames are cut off at the edges of a level. OpenSlide reads JPEG, JPEG 2000 and "
    "interleaved RGB of 8 bits in one focal plane; from several planes, of which the first is used, grey, palettes, samples in planes, 16 bits, YCbCr without JPEG, run lengths, JPEG-LS and lossless "
    "JPEG a pyramid is derived. Each level "
    "is a file, or several: the files of a concatenation are joined, and one that is missing is named. A level that was split without one is joined by the places that its frames state; "
    "tiles that are in no file are white (black in grey images), and a warning counts them. Frames that lie between the tiles or over each other, and split levels whose frames state no places, are not supported. The files of one series in one folder are one slide, if their names end in "
    ".dcm, .dicom, .dic, .dc3, .ima, .img, nothing, or a number as UIDs do. A DICOM file of another kind (a CT, a "
    "report) is not supported, and the error says so.",
    source="https://openslide.org/formats/dicom/",
    matches=matches,
    native=True,
)
