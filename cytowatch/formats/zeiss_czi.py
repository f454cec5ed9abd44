"""Carl Zeiss CZI: begins with ``ZISRAWFILE``.

Source: Zeiss, ZISRAW (CZI) file format 1.2
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a CZI."""
    return "begins with ZISRAWFILE" if probe.head.startswith(b"ZISRAWFILE") else None


FORMAT = Format(
    id="zeiss-czi",
    name="Carl Zeiss CZI",
    samples="8 bit, 1 or 3",
    marker="ZISRAWFILE",
    treated="converted",
    reader="pylibCZIrw",
    extension="czi",
    oddities="Every scene becomes a pyramid of its own. If there are more channels, focal planes or "
    "times than a viewer shows, the first is used and the others are listed. Label and "
    "preview are kept as files. 16 bits are kept. Areas that a mosaic does not cover are "
    "black, with a note if another plane covers them. cytowatch itself reads 16-bit colours "
    "that zstd packs byte by byte, because the Zeiss library reads them wrongly.",
    source="Zeiss, ZISRAW (CZI) file format 1.2",
    matches=matches,
)
