"""Philips TIFF: Software starts with ``Philips``, the description is a DPUfsImport object.

Source: https://openslide.org/formats/philips/
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT"]

FORMAT = Format(
    id="philips-tiff",
    name="Philips TIFF",
    samples="8 bit, 3",
    marker="Software starts Philips, XML DataObject DPUfsImport",
    treated="native",
    reader="OpenSlide",
    extension="tiff",
    oddities="The sizes of lower levels include padding. DICOM_PIXEL_SPACING has one pixel size per "
    "level. Label and macro are pages, or base64 in the XML.",
    source="https://openslide.org/formats/philips/",
    matches=marked("philips-tiff"),
    native=True,
)
