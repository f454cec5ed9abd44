"""The levels and planes that a TIFF promises and does not have yet: a writer may close it between two.

A pyramid is a whole TIFF after each of its levels. Where nothing promises the next one only quiet
shows that the last one is there: docs/how-to/new-user.md.

Source: https://openslide.org/formats/leica/ and /philips/; the OME-TIFF specification, TiffData.
"""

from __future__ import annotations

import re

from cytowatch.formats.structure.tiff import SUB_IFDS, Tiff, TiffError

__all__ = ["lacking"]

_SCN = "http://www.leica-microsystems.com/scn"
_SCN_DIRECTORY = re.compile(r"<dimension\b[^>]*\bifd=\"(\d{1,6})\"")
_PHILIPS_LEVEL = re.compile(r"Name=\"PIIM_PIXEL_DATA_REPRESENTATION_NUMBER\"")
_OME_DATA = re.compile(r"<(?:\w+:)?TiffData\b([^>]*?)(/?)>(\s*<(?:\w+:)?UUID\b)?")
_OME_NUMBER = re.compile(r"\b(IFD|PlaneCount)=\"(\d{1,8})\"")


def lacking(tiff: Tiff) -> str | None:
    """What `tiff` promises and does not have, as a phrase; None if nothing is missing."""
    try:
        first = tiff.directories[0]
        if any(0 in one.numbers(SUB_IFDS) for one in tiff.directories):
            return "a level (its place is reserved and still empty)"
        description = first.text(270)
        there = len(tiff.directories)
        promised = _promised(description, first.text(305))
    except TiffError:
        return None
    if promised <= there or tiff.cut or tiff.loops:
        return None
    return f"a level or plane (it announces {promised:,}, and has {there:,})"


def _promised(description: str, software: str) -> int:
    """How many directories there must be at least, by a description."""
    if _SCN in description:
        return max((int(one) + 1 for one in _SCN_DIRECTORY.findall(description)), default=0)
    if software.startswith("Philips") and "DPUfsImport" in description:
        return len(_PHILIPS_LEVEL.findall(description))
    if description.rstrip().endswith("OME>"):
        return _of_ome(description)
    return 0


def _of_ome(description: str) -> int:
    most = 0
    for attributes, _, elsewhere in _OME_DATA.findall(description):
        stated = {name: int(value) for name, value in _OME_NUMBER.findall(attributes)}
        # A plane that is named with a UUID may lie in another file.
        if not elsewhere and "PlaneCount" in stated:
            most = max(most, stated.get("IFD", 0) + stated["PlaneCount"])
    return most
