"""Sakura: an SQLite database that OpenSlide takes for a slide.

Source: https://openslide.org/formats/sakura/
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import openslide_vendor

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a Sakura slide."""
    if not probe.head.startswith(b"SQLite format 3\0") or openslide_vendor(probe) != "sakura":
        return None
    return "an SQLite database with the tables of a Sakura slide"


FORMAT = Format(
    id="sakura",
    name="Sakura SVSLIDE",
    samples="8 bit, 3",
    marker="SQLite format 3, and OpenSlide finds a Sakura slide",
    treated="native",
    reader="OpenSlide",
    extension="svslide",
    oddities="Tiles are JPEGs in a table. Any other SQLite database is not an image.",
    source="https://openslide.org/formats/sakura/",
    matches=matches,
    native=True,
)
