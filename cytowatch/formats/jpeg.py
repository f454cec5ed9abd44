"""JPEG: begins with FF D8 FF.

Source: ITU-T T.81, Annex B
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import vendor

__all__ = ["FORMAT", "is_jpeg_ls"]

_JPEG_LS = 0xF7


def matches(probe: Probe) -> str | None:
    """The evidence that it is a JPEG, and not the head of a set."""
    jpeg = probe.head.startswith(b"\xff\xd8\xff") and not is_jpeg_ls(probe.head)
    return "begins with FF D8 FF" if jpeg and vendor(probe) is None else None


def is_jpeg_ls(head: bytes) -> bool:
    """Whether its frame is one of JPEG-LS, which shares only its markers with JPEG (T.87, C.1)."""
    at = 2
    while head[at : at + 1] == b"\xff" and at + 4 <= len(head):
        # Segments of applications, tables and comments may come before the frame.
        if head[at + 1] not in (0xDB, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0)):
            return head[at + 1] == _JPEG_LS
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    return False


FORMAT = Format(
    id="jpeg",
    name="JPEG",
    samples="8 bit, 1 or 3",
    marker="FF D8 FF",
    treated="pyramid derived",
    reader="libvips",
    extension="jpg",
    oddities="The orientation from EXIF, or else from XMP, is applied. CMYK and YCCK are converted "
    "with their own profile, or with a general one. The 72 or 96 dpi of a camera is not a "
    "pixel size. A warning from the decoder is recorded, and counts as damage if pixels are "
    "lost. Of several pictures in one file the first is used, with a warning.",
    source="ITU-T T.81, Annex B",
    matches=matches,
)
