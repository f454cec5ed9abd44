"""BMP: begins with ``BM``.

Source: Microsoft, Bitmap Storage
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.structure import bmp

__all__ = ["FORMAT"]

#: The sizes of the second header that are in use: OS/2 1 and 2, Windows 3, 4, 5 and their kin.
_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})


def matches(probe: Probe) -> str | None:
    """The evidence that it is a bitmap; the two letters by themselves could begin a text."""
    known = bmp.parsed(probe.head).second_bytes in _HEADERS
    return "begins with BM and a known header" if probe.head.startswith(b"BM") and known else None


FORMAT = Format(
    id="bmp",
    name="BMP",
    samples="8 bit, 3",
    marker="BM",
    treated="pyramid derived",
    reader="rows by pread, else Pillow",
    extension="bmp",
    oddities="Plain 24-bit and 32-bit files are read row by row, mostly from the bottom. Pillow reads "
    "run-length coded, palette and OS/2 kinds, under a memory limit that is checked from the "
    "header. An alpha channel that is zero everywhere is ignored. If the stated start of the "
    "pixels lies inside the header or the palette, they are read from behind it if the length "
    "of the file agrees; otherwise the file is refused. The pixel "
    "size is that of its pixels per metre, if a scanner or a microscope can have it.",
    source="Microsoft, Bitmap Storage",
    matches=matches,
)
