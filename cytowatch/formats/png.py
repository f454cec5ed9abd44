"""PNG: begins with 89 50 4E 47.

Source: ISO/IEC 15948
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a PNG."""
    return "begins with 89 50 4E 47" if probe.head.startswith(b"\x89PNG\r\n\x1a\n") else None


FORMAT = Format(
    id="png",
    name="PNG",
    samples="8 bit, 1 or 3",
    marker="89 50 4E 47",
    treated="pyramid derived",
    reader="libvips",
    extension="png",
    oddities="Palettes and samples of 1, 2 and 4 bits are expanded. Transparency is laid over white. "
    "16 bits are kept. Interlaced files are read as a whole. The orientation from eXIf, or "
    "else from XMP, is applied. Of an animation the first picture is used, with a warning.",
    source="ISO/IEC 15948",
    matches=matches,
)
