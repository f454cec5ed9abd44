"""PNM: PBM and PPM, the family of PGM; begins with P1, P3, P4 or P6.

Source: https://netpbm.sourceforge.net/doc/pnm.html
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.extents import pnm_mark

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a PBM or PPM."""
    return pnm_mark(probe.head, b"1346")


FORMAT = Format(
    id="pnm",
    name="PNM (PBM, PPM)",
    samples="1 or 8 bit, 1 or 3",
    marker="P1 / P3 / P4 / P6",
    treated="pyramid derived",
    reader="rows by pread, else Pillow",
    extension="pnm",
    oddities="P6 is read row by row, the others by Pillow under a limit of memory; the ones of a PBM "
    "are black.",
    source="https://netpbm.sourceforge.net/doc/pnm.html",
    matches=matches,
)
