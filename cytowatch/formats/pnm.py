"""PNM: PBM and PPM, the family of PGM; begins with P1, P3, P4 or P6.

Source: https://netpbm.sourceforge.net/doc/pnm.html
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.structure.netpbm import is_header

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a PBM or PPM."""
    found = is_header(probe.head, kinds=b"1346")
    return f"begins with {probe.head[:2].decode()}" if found else None


FORMAT = Format(
    id="pnm",
    name="PNM (PBM, PPM)",
    samples="1 or 8 bit, 1 or 3",
    marker="P1 / P3 / P4 / P6",
    treated="pyramid derived",
    reader="rows by pread, else Pillow",
    extension="pnm",
    oddities="P6 is read row by row; Pillow reads the others under a memory limit. In a PBM, 1 is "
    "black. Of several pictures in one file the first is used, with a warning.",
    source="https://netpbm.sourceforge.net/doc/pnm.html",
    matches=matches,
)
