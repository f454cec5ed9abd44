"""What a file that no format claims looks like, in words for a person."""

from __future__ import annotations

import puremagic

from cytowatch.formats.base import Probe
from cytowatch.formats.marks import vendor

__all__ = ["NOT_YET", "looks_like"]

#: Slides that are recognised and not supported yet.
NOT_YET = {
    "leica-scn": "a Leica SCN slide",
    "philips-tiff": "a Philips TIFF slide",
    "ventana-bif": "a Ventana BIF slide",
    "huron-tiff": "a Huron TIFF slide",
    "ome-tiff": "an OME-TIFF image",
}

#: Kinds that puremagic does not know, or names less well than a lab would.
_LAB = (
    (b"ZISRAWFILE", "a Carl Zeiss CZI image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (b"[Virtual Microscope Specimen]", "the index file of a Hamamatsu VMS slide"),
    (b"SQLite format 3\x00", "an SQLite database (a Sakura slide is one)"),
    (b"BM", "a BMP image"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
)


def looks_like(probe: Probe) -> str:
    """A phrase such as ``a PDF document``, ``an empty file``, ``data of an unknown kind``."""
    if probe.size_bytes == 0:
        return "an empty file"
    mark = vendor(probe)
    if mark is not None and mark[0] in NOT_YET:
        return NOT_YET[mark[0]]
    head = probe.head
    if not head.strip(b"\0"):
        return "a file whose beginning holds only zeros"
    for magic, phrase in _LAB:
        if head.startswith(magic):
            return phrase
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "a PNM image (PGM, PPM or PBM)"
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a damaged TIFF, whose first directory cannot be read"
    return _by_library(head) or _text_or_data(head)


def _by_library(head: bytes) -> str | None:
    try:
        found = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError, IndexError):
        return None
    if not found or found[0].confidence < 0.3 or not found[0].name:
        return None
    name = found[0].name
    return f"{_article(name)} {name}"


def _article(name: str) -> str:
    """``an`` where the name begins with a vowel when it is said aloud: an HTML document."""
    first = name.split(maxsplit=1)[0]
    spelt = len(first) > 1 and first.isupper()
    return "an" if first[0].upper() in ("AEFHILMNORSX" if spelt else "AEIOU") else "a"


def _text_or_data(head: bytes) -> str:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start > len(head) - 4 else ""
    if text and all(char.isprintable() or char.isspace() for char in text):
        return "a text file"
    return "data of an unknown kind"
