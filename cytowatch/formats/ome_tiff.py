"""OME-TIFF: a TIFF whose first description ends with ``OME>``.

Source: https://ome-model.readthedocs.io/en/stable/ome-tiff/specification.html
"""

from __future__ import annotations

import re

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import marked

__all__ = ["FORMAT", "other_files"]

#: Of XML: a value stands in quotes of either kind, and a name may have a prefix.
_VALUE = r"\s*=\s*(?:\"([^\"]*)\"|'([^']*)')"
_OWN = re.compile(rf"<(?:\w+:)?OME\b[^>]*\bUUID{_VALUE}")
_UUID = re.compile(rf"<(?:\w+:)?UUID\b[^>]*?(?:\bFileName{_VALUE}[^>]*)?>\s*([^<\s]+)")
_BINARY_ONLY = re.compile(rf"<(?:\w+:)?BinaryOnly\b[^>]*\bMetadataFile{_VALUE}")


def other_files(description: str) -> list[str]:
    """The files, other than itself, that the OME-XML of one says its planes or metadata lie in.

    A file names itself by its UUID, with the name that it was written under.

    >>> other_files("<OME><BinaryOnly MetadataFile='a.companion.ome' UUID='urn:uuid:1'/></OME>")
    ['a.companion.ome']
    """
    own = _OWN.search(description)
    named = {uuid: one or other or uuid for one, other, uuid in _UUID.findall(description)}
    if own is not None:
        named.pop(own[1] or own[2], None)
    elif len(named) == 1:
        named.clear()
    elsewhere = (one or other for one, other in _BINARY_ONLY.findall(description))
    return sorted({*named.values(), *elsewhere})


def _spread(probe: Probe) -> tuple[str, str] | None:
    others = other_files(probe.tiff.directories[0].text(270)) if probe.tiff is not None else []
    if not others:
        return None
    said = "an OME-TIFF that is spread over several files is not supported"
    return "unsupported_format", f"{said}: {others[0]!r} belongs to it"


FORMAT = Format(
    id="ome-tiff",
    name="OME-TIFF",
    samples="8 bit, 1 or 3",
    marker="description ends OME>",
    treated="native if pyramidal, else pyramid derived",
    reader="OpenSlide, else tifffile",
    extension="ome.tif",
    oddities="Native if OpenSlide sees every level. OpenSlide sees only one level of a pyramid in "
    "SubIFDs, so a pyramid is derived, and JPEG tiles are copied into it as they are. Each "
    "series becomes a pyramid, except a label, a macro or overview, and a thumbnail, by their names. Three channels that are named or coloured red, green and blue "
    "are one RGB picture, and so are three 8-bit channels with neither names nor colours. "
    "Otherwise the first plane (of fluorescence, focus, time) is used, and the others are "
    "listed. An OME-TIFF that refers to other files is not supported, and the error says so.",
    source="https://ome-model.readthedocs.io/en/stable/ome-tiff/specification.html",
    matches=marked("ome-tiff"),
    native=True,
    else_derived=True,
    often_derived=True,
    least_levels=2,
    refuses=_spread,
)
