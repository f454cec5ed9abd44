"""PNG: begins with 89 50 4E 47.

Source: the PNG specification, third edition, section 5.2.
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a PNG."""
    return "begins with 89 50 4E 47" if probe.head.startswith(b"\x89PNG") else None


FORMAT = Format(
    id="png",
    name="PNG",
    samples="8 bit, 1 or 3",
    marker="89 50 4E 47",
    treated="pyramid derived",
    reader="libvips",
    extension="png",
    matches=matches,
)
