"""What a file that no format claims looks like, in words for a person."""

from __future__ import annotations

import re
import struct

import puremagic

from cytowatch.formats.base import Probe
from cytowatch.formats.jpeg import is_jpeg_ls
from cytowatch.formats.strangers import known

__all__ = ["looks_like"]

_TEXT = "a text file"
#: What the library may call a text: the others of its names are for words that any text may begin with.
_KINDS_OF_TEXT = ("HTML", "XML", "RTF", "SVG", "PostScript", "JSON")
#: Names of the library that mean nothing to a person.
_NO_NAMES = frozenset({"TESTFILE", "UTF8 file"})
#: Kinds that puremagic does not know, or names less well than a lab would.
_LAB = (
    (b"SQLite format 3\x00", "an SQLite database, but not a Sakura slide"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"BM", "a text or a damaged bitmap"),
    *((b"P%d" % n, "a text or a damaged PNM image") for n in range(1, 7)),
)


def looks_like(probe: Probe) -> str:
    """A phrase such as ``a PDF document``, ``an empty file``, ``data of an unknown kind``."""
    if probe.size_bytes == 0:
        return "an empty file"
    head = probe.head
    if not head.strip(b"\0"):
        return "a file that begins with nothing but zeros"
    if stranger := known(head):
        return stranger[0]
    for magic, phrase in _LAB:
        if head.startswith(magic):
            return phrase
    if head[128:132] == b"DICM":
        return "a DICOM file without whole-slide pixels"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a damaged TIFF file"
    if re.match(rb"P[1-6]\s", head):
        # The library takes it for an image, but its header is not one.
        return _text_or_data(head)
    if head.startswith(b"\xff\xd8") and is_jpeg_ls(head):
        return "a JPEG-LS image"
    if _is_targa(head):
        return "a Targa image (TGA)"
    plain = _text_or_data(head)
    named = _by_library(head)
    # Words at the beginning of a text make the library see formats in it.
    if named is None or (plain == _TEXT and not any(kind in named for kind in _KINDS_OF_TEXT)):
        return plain
    return named


def _by_library(head: bytes) -> str | None:
    try:
        found = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError, IndexError):
        return None
    if not found or found[0].confidence < 0.3 or not found[0].name or found[0].name in _NO_NAMES:
        return None
    name = found[0].name
    return f"{_article(name)} {name}"


def _article(name: str) -> str:
    """``an`` where the name begins with a vowel when it is said aloud: an HTML document."""
    first = name.split(maxsplit=1)[0]
    spelt = len(first) > 1 and first.isupper()
    return "an" if first[0].upper() in ("AEFHILMNORSX" if spelt else "AEIOU") else "a"


def _is_targa(head: bytes) -> bool:
    """By its header, which has no mark (Truevision TGA 2.0): puremagic takes it for a spreadsheet."""
    if len(head) < 18:
        return False
    _, mapped, kind, _, colours, map_bits, _, _, width, height, bits, flags = struct.unpack_from(
        "<3B2HB4H2B", head
    )
    plain = kind in (2, 3, 10, 11) and mapped == 0 and colours == map_bits == 0
    palette = kind in (1, 9) and mapped == 1 and 0 < colours <= 256 and map_bits in (15, 16, 24, 32)
    depth = bits in (8, 15, 16, 24, 32) and flags & 0xC0 == 0
    return (plain or palette) and depth and width > 0 and height > 0


def _text_or_data(head: bytes) -> str:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start > len(head) - 4 else _western(head)
    if text and all(char.isprintable() or char.isspace() for char in text):
        return _TEXT
    return "data of an unknown kind"


def _western(head: bytes) -> str:
    """`head` as text of Windows' code page 1252, if nearly all of it is ASCII; else empty."""
    if sum(byte < 128 for byte in head) * 4 < len(head) * 3:
        return ""
    return head.decode("cp1252", "replace")
