"""Which vendor a TIFF is of: one decision for all formats, so that exactly one can match.

Source: https://openslide.org/formats/ (a page a vendor); the OME-TIFF specification.
"""

from __future__ import annotations

import functools

from cytowatch.formats.base import Probe
from cytowatch.formats.tiff import NDPI_MARK, Tiff, TiffError

__all__ = ["Mark", "levels", "vendor"]

#: (what it is, by which evidence); the first is a format's id or the name of one not supported.
Mark = tuple[str, str]


def vendor(probe: Probe) -> Mark | None:
    """The vendor of a TIFF by its content; None when it is no TIFF, or bears no vendor's mark."""
    tiff = probe.tiff
    if tiff is None:
        return None
    try:
        return _vendor(tiff)
    except TiffError:
        return None


@functools.lru_cache(maxsize=64)
def _vendor(tiff: Tiff) -> Mark | None:
    first = tiff.directories[0]
    description = first.text(270)
    marks = (
        ("hamamatsu-ndpi", NDPI_MARK in first.tags, "tag 65420"),
        ("aperio-svs", description.startswith("Aperio"), "description starts with Aperio"),
        (
            "leica-scn",
            "http://www.leica-microsystems.com/scn" in description,
            "XML namespace of leica-microsystems scn",
        ),
        ("philips-tiff", first.text(305).startswith("Philips"), "Software starts with Philips"),
        ("ventana-bif", "<iScan" in first.text(700), "iScan XML in tag 700"),
        ("huron-tiff", first.text(271).startswith("Huron"), "Make starts with Huron"),
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
