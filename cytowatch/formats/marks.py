"""Which vendor a file is of: one decision for all formats, so that exactly one can match.

Source: https://openslide.org/formats/ (a page per vendor); the OME-TIFF specification.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable

from cytowatch.formats.base import Probe
from cytowatch.formats.structure.tiff import NDPI_MARK, Tiff, TiffError

__all__ = ["Mark", "levels", "marked", "openslide_vendor", "vendor"]

#: (a format's id, by which evidence).
Mark = tuple[str, str]


def vendor(probe: Probe) -> Mark | None:
    """The vendor of a file by its content; None when it has no vendor's mark."""
    if probe.head.startswith(b"\xff\xd8\xff"):
        return _mirax(probe)
    tiff = probe.tiff
    if tiff is None:
        return _text(probe.head)
    try:
        return _cellsens(probe) or _vendor(tiff)
    except TiffError:
        return None


def marked(id: str) -> Callable[[Probe], str | None]:  # noqa: A002
    """What a format that is recognised by its vendor's mark has for `Format.matches`."""

    def matches(probe: Probe) -> str | None:
        found = vendor(probe)
        return found[1] if found is not None and found[0] == id else None

    return matches


#: In the folder of a VSI.
_ETS = re.compile(r"stack\d+/frame_t.*\.ets")


def _mirax(probe: Probe) -> Mark | None:
    ini = f"{probe.stem}/Slidedat.ini"
    return ("mirax-mrxs", f"a JPEG beside {ini}") if ini in probe.beside else None


def _cellsens(probe: Probe) -> Mark | None:
    """A VSI is a small TIFF; only the folder beside it tells it from any other."""
    for path in sorted(probe.beside):
        folder, _, inside = path.partition("/")
        if folder == f"_{probe.stem}_" and _ETS.fullmatch(inside):
            return "olympus-vsi", f"a TIFF beside {path}"
    return None


def _text(head: bytes) -> Mark | None:
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"[Virtual Microscope Specimen]"):
        return "hamamatsu-vms", "begins with [Virtual Microscope Specimen]"
    if begin.startswith(b"[Uncompressed Virtual Microscope Specimen]"):
        return "hamamatsu-vmu", "begins with [Uncompressed Virtual Microscope Specimen]"
    return None


#: Every format asks for the vendor of one file; nothing of a file is kept longer than its structure, which is large.
_decided: weakref.WeakKeyDictionary[Tiff, Mark | None] = weakref.WeakKeyDictionary()


def _vendor(tiff: Tiff) -> Mark | None:
    if tiff not in _decided:
        _decided[tiff] = _decide(tiff)
    return _decided[tiff]


def _decide(tiff: Tiff) -> Mark | None:
    first = tiff.directories[0]
    description = first.text(270)
    software = first.text(305)
    marks = (
        ("hamamatsu-ndpi", NDPI_MARK in first.tags, "tag 65420"),
        ("aperio-svs", description.startswith("Aperio"), "description starts with Aperio"),
        (
            "leica-scn",
            "http://www.leica-microsystems.com/scn" in description,
            "XML namespace of leica-microsystems scn",
        ),
        (
            "philips-tiff",
            software.startswith("Philips") and "DPUfsImport" in description,
            "Software starts with Philips, XML DataObject DPUfsImport",
        ),
        ("ventana-bif", "<iScan" in first.text(700), "iScan XML in tag 700"),
        ("huron-tiff", first.text(271).startswith("Huron"), "Make starts with Huron"),
        ("trestle", software.startswith("MedScan"), "Software starts with MedScan"),
        ("ome-tiff", description.rstrip().endswith("OME>"), "description ends with OME>"),
    )
    return next(((name, evidence) for name, found, evidence in marks if found), None)


def levels(tiff: Tiff) -> list[tuple[int, int]]:
    """The sizes of the tiled levels of a pyramid without a vendor's mark, largest first.

    Empty unless the first directory is tiled, every other tiled one is a reduced image of the
    same proportions, and there are two or more. Pages in strips are thumbnails or labels, and
    are passed over, as OpenSlide does.
    """
    try:
        tiled = [one for one in tiff.directories if one.tiled]
        if len(tiled) < 2 or not tiff.directories[0].tiled:
            return []
        if not all(one.reduced for one in tiled[1:]):
            return []
        sizes = sorted({one.size for one in tiled}, reverse=True)
    except TiffError:
        return []
    width, height = sizes[0]
    if len(sizes) < 2 or sizes[0] != tiled[0].size or not all(w and h for w, h in sizes):
        return []
    # A small level is rounded by up to a pixel, which at 3 pixels is a third.
    same = all(abs(w * height / width - h) <= 2 for w, h in sizes)
    return sizes if same else []


def openslide_vendor(probe: Probe) -> str | None:
    """What OpenSlide takes the probed file for; None where it may not be opened, or is not a slide."""
    if probe.path is None:
        return None
    # Imported here: the daemon itself never decodes, and never gives a path.
    import openslide

    found: str | None = openslide.OpenSlide.detect_format(probe.path)
    return found
