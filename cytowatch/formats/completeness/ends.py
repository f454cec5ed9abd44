"""Whether the end is there, of files that say little about their length: archives, sets, databases.

Source: RFC 1952 (gzip); DICOM PS3.5, annex A.4, and PS3.10; https://sqlite.org/fileformat.html;
https://openslide.org/formats/hamamatsu/
"""

from __future__ import annotations

import struct
import zlib

from cytowatch.formats.completeness.short import short, tar_mark
from cytowatch.formats.structure.dicom import unpacked
from cytowatch.formats.structure.places import pread

__all__ = ["INDEX_FILES", "dicom", "index_file", "ngr", "sqlite", "tar_gz"]

#: How the index files of sets begin, which are text.
INDEX_FILES = (
    b"[Virtual Microscope Specimen]",
    b"[Uncompressed Virtual Microscope Specimen]",
    b"[GENERAL]",
    b"\xef\xbb\xbf[GENERAL]",
)
_GZIP = b"\x1f\x8b\x08"
_TAIL_BYTES = 1 << 20
_BLOCK_BYTES = 512
#: Members of a gzip that are tried from the end backwards, and what they may unpack to together.
_MOST_TRIED = 64
_MOST_UNPACKED = 64 << 20
_LONGEST_LIST = 64 << 20
_DICOM_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
_TRANSFER_SYNTAX = b"\x02\x00\x10\x00UI"
#: JPEG, JPEG 2000 and run lengths: pixels in pieces with a mark behind the last.
_ENCAPSULATED = (b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5")


def tar_gz(descriptor: int, size_bytes: int) -> str | None:
    """The end of a tar that is packed with gzip, without unpacking it.

    A gzip ends with the length of what was packed, and that of a tar is a multiple of 512: of 512
    cuts one passes for an end. Of a gzip of several members the last may hold any length; it is
    looked for, and tried, in the last MiB. What is damaged before the end is not seen.
    """
    head = pread(descriptor, 4096, 0)
    try:
        stream = zlib.decompressobj(wbits=31)
        inner = stream.decompress(head, _BLOCK_BYTES)
    except zlib.error:
        return None
    lacking = "the end of the tar.gz"
    if len(inner) < _BLOCK_BYTES and size_bytes <= len(head) and not stream.eof:
        # If the first block is cut off, its checksum proves nothing.
        return lacking if inner[257:262] in (b"", b"ustar") else None
    if tar_mark(inner) is None:
        return None
    begin = max(0, size_bytes - _TAIL_BYTES)
    tail = pread(descriptor, size_bytes - begin, begin)
    # Zeros may be padding, or the upper bytes of the length.
    last = len(tail.rstrip(b"\0"))
    for end in range(last, min(last + 3, len(tail)) + 1):
        if end >= 8 and struct.unpack_from("<I", tail, end - 4)[0] % _BLOCK_BYTES == 0:
            return None
    return None if _ends_with_member(tail) else lacking


def _ends_with_member(tail: bytes) -> bool:
    """Whether a whole member of a gzip ends where `tail` ends, but for zeros."""
    at, left = len(tail), _MOST_UNPACKED
    for _ in range(_MOST_TRIED):
        at = tail.rfind(_GZIP, 0, at)
        if at < 0 or left <= 0:
            return False
        member = zlib.decompressobj(wbits=31)
        try:
            left -= len(member.decompress(tail[at:], left))
        except zlib.error:
            continue
        if member.eof and not member.unused_data.strip(b"\0"):
            return True
    return False


def dicom(descriptor: int, size_bytes: int) -> str | None:
    """The mark behind the last piece of packed pixels; where they are not packed, as many bytes as are stated."""
    head = pread(descriptor, 4096, 0)
    at = head.find(_TRANSFER_SYNTAX)
    if at < 0 or not head.startswith(_ENCAPSULATED, at + 8):
        pixels = unpacked(descriptor)
        return short(pixels.end, size_bytes) if pixels is not None else None
    # A file that is a TIFF as well lists all of its tiles behind its pixels.
    most = _LONGEST_LIST if head.startswith((b"II", b"MM")) else _TAIL_BYTES
    end = size_bytes
    while end > max(0, size_bytes - most):
        begin = max(0, end - _TAIL_BYTES)
        if _DICOM_END in pread(descriptor, end - begin, begin):
            return None
        # The mark may lie across the border.
        end = begin + len(_DICOM_END) - 1 if begin else 0
    return "the end of its pixels (DICOM sequence delimiter)"


def sqlite(descriptor: int, size_bytes: int) -> str | None:
    """The pages of a database, as many as its header counts."""
    head = pread(descriptor, 100, 0)
    if len(head) < 100:
        return "its header"
    [page_bytes] = struct.unpack_from(">H", head, 16)
    changed, pages = struct.unpack_from(">II", head, 24)
    [counted_for] = struct.unpack_from(">I", head, 92)
    if changed != counted_for:
        # An old library changed it last, and did not update the count.
        return None
    return short(pages * (65536 if page_bytes == 1 else page_bytes), size_bytes)


def ngr(descriptor: int, size_bytes: int) -> str | None:
    """The pixels of an image of a VMU: three samples of 16 bits each."""
    head = pread(descriptor, 28, 0)
    if len(head) < 28:
        return "its header"
    width, height = struct.unpack_from("<ii", head, 4)
    [begin] = struct.unpack_from("<i", head, 24)
    return short(begin + width * height * 6, size_bytes) if width > 0 and height > 0 else None


def index_file(descriptor: int, size_bytes: int) -> str | None:
    """A text, which one zero may end, but not many."""
    tail = pread(descriptor, 16, max(0, size_bytes - 16))
    return None if any(tail) else "the end of its text (still only zeros)"
