"""Zip: an archive whose members become uploaded files of their own.

Source: PKWARE APPNOTE 6.3.10, section 4.3
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.strangers import office_document

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a zip; an empty one has only its end record."""
    begins = probe.head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK\x03\x04"))
    return "begins with a zip header" if begins and not office_document(probe.head) else None


FORMAT = Format(
    id="zip",
    name="Zip archive",
    samples="–",
    marker="PK 03 04",
    treated="extracted",
    reader="cytowatch itself: its own records, the standard library's decompressors",
    extension="zip",
    oddities="A hostile archive is refused as a whole. A damaged member is skipped, and the archive "
    "shows how many it lost. Zips above 4 GiB from the macOS Finder are unpacked to their "
    "real end. A zip in a zip is unpacked once. An Office document is not an archive.",
    source="PKWARE APPNOTE 6.3.10, section 4.3",
    matches=matches,
    extract=True,
)
