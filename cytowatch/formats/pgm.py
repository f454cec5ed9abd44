"""PGM: begins with P2 or P5; its family P1 to P6 is ``pnm``.

Source: https://netpbm.sourceforge.net/doc/pgm.html
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.structure.netpbm import is_header

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a PGM."""
    found = is_header(probe.head, kinds=b"25")
    return f"begins with {probe.head[:2].decode()}" if found else None


FORMAT = Format(
    id="pgm",
    name="PGM (its family P1–P6 as pnm)",
    samples="8 bit, 1",
    marker="P2 / P5",
    treated="pyramid derived",
    reader="rows by pread, else Pillow",
    extension="pgm",
    oddities="A text that merely starts with P5 does not count: two numbers and a maximum must follow. "
    "P5 of 8 and 16 bits is read row by row; Pillow reads plain P2 under a memory limit. If "
    "the maximum is not that of 8 or 16 bits, values are scaled.",
    source="https://netpbm.sourceforge.net/doc/pgm.html",
    matches=matches,
)
