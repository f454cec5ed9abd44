"""What a file that no format claims looks like, in words for a person."""

from __future__ import annotations

import re

import puremagic

from cytowatch.formats.base import Probe

__all__ = ["looks_like"]

#: Kinds that puremagic does not know, or names less well than a lab would.
_LAB = (
    (b"SQLite format 3\x00", "an SQLite database, and no slide of Sakura's"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"BM", "a text or a damaged bitmap: it begins with BM"),
)


def looks_like(probe: Probe) -> str:
    """A phrase such as ``a PDF document``, ``an empty file``, ``data of an unknown kind``."""
    if probe.size_bytes == 0:
        return "an empty file"
    head = probe.head
    if not head.strip(b"\0"):
        return "a file whose beginning holds only zeros"
    for magic, phrase in _LAB:
        if head.startswith(magic):
            return phrase
    if head[128:132] == b"DICM":
        return "a DICOM file without whole-slide pixels"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a damaged TIFF, whose first directory cannot be read"
    if re.match(rb"P[1-6]\s", head):
        # The library takes it for an image, but its header is none.
        return _text_or_data(head)
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
