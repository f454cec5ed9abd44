"""OME-TIFF: a TIFF whose first description ends with ``OME>``.

Source: https://ome-model.readthedocs.io/en/stable/ome-tiff/specification.html
"""

from __future__ import annotations

import re

from cytowatch.formats.base import Format
from cytowatch.formats.marks import marked

__all__ = ["FORMAT", "other_files"]

_UUID = re.compile(r"<UUID\b[^>]*?(?:FileName=\"([^\"]*)\"[^>]*)?>\s*([^<\s]+)")
_BINARY_ONLY = re.compile(r"<BinaryOnly\b[^>]*MetadataFile=\"([^\"]*)\"")


def other_files(description: str) -> list[str]:
    """The files, other than itself, that the OME-XML of one says its planes or metadata lie in.

    A file names itself by its UUID, with the name that it was written under.
    """
    own = re.search(r"<OME\b[^>]*\bUUID=\"([^\"]+)\"", description)
    named = {uuid: name or uuid for name, uuid in _UUID.findall(description)}
    if own is not None:
        named.pop(own[1], None)
    elif len(named) == 1:
        named.clear()
    return sorted({*named.values(), *_BINARY_ONLY.findall(description)})


FORMAT = Format(
    id="ome-tiff",
    name="OME-TIFF",
    samples="8 bit, 1 or 3",
    marker="description ends OME>",
    treated="native if pyramidal, else pyramid derived",
    reader="OpenSlide, else tifffile",
    extension="ome.tif",
    oddities="Native where OpenSlide sees every level; of a pyramid in SubIFDs it sees one, so that "
    "one is derived, and JPEG tiles are copied into it as they are. Each series becomes a "
    "pyramid; of its planes the first is taken and the others are named. One that refers to other files is not supported, and says so.",
    source="https://ome-model.readthedocs.io/en/stable/ome-tiff/specification.html",
    matches=marked("ome-tiff"),
    native=True,
)
