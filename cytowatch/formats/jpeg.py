"""JPEG: begins with FF D8 FF.

Source: ITU-T T.81, Annex B.
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a JPEG."""
    return "begins with FF D8 FF" if probe.head.startswith(b"\xff\xd8\xff") else None


FORMAT = Format(
    id="jpeg",
    name="JPEG",
    samples="8 bit, 1 or 3",
    marker="FF D8 FF",
    treated="pyramid derived",
    reader="libvips",
    extension="jpg",
    matches=matches,
)
