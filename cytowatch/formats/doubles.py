"""Files that are two formats on purpose: which one they are taken for.

A DICOM of a whole slide whose preamble is the header of a TIFF (or of anything else) is DICOM: to a
reader of DICOM the 128 bytes before its mark mean nothing, and viewers of slides open it as one.
An archive that is appended to an image stays where it is: the image is taken, the archive is named.

Source: DICOM PS3.10, section 7.1; PKWARE APPNOTE 6.3.10, section 4.3.16
"""

from __future__ import annotations

import struct

from cytowatch.formats.structure import zip_end
from cytowatch.formats.structure.places import pread

__all__ = ["has_zip_behind", "is_last_part", "is_whole_slide"]

#: VL Whole Slide Microscopy Image Storage (DICOM PS3.4, table B.5-1).
_WHOLE_SLIDE = b"1.2.840.10008.5.1.4.1.1.77.1.6"
#: MediaStorageSOPClassUID, (0002,0002), of explicit VR.
_CLASS = b"\x02\x00\x02\x00UI"
_ZIP_ENTRY = b"PK\x01\x02"
_MOST_COMMENT = 1 << 16
#: A number that stands in the fields of zip64.
_UNSTATED = 0xFFFF


def is_whole_slide(head: bytes) -> bool:
    """Whether a file that begins so is DICOM of the class of whole slides.

    >>> is_whole_slide(b"II*" + bytes(125) + b"DICM" + b"\\2\\0\\2\\0UI\\x1e\\0" + _WHOLE_SLIDE)
    True
    """
    at = head.find(_CLASS, 132)
    if head[128:132] != b"DICM" or at < 0:
        return False
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    return head[at + 8 : at + 8 + length].rstrip(b"\0 ") == _WHOLE_SLIDE


def has_zip_behind(descriptor: int, size_bytes: int) -> bool:
    """Whether the file ends with the directory of a zip, no matter what it begins with."""
    begin, tail, at = _end(descriptor, size_bytes)
    if at < 0:
        return False
    entries, length = struct.unpack_from("<HI", tail, at + 10)
    [comment] = struct.unpack_from("<H", tail, at + 20)
    directory = begin + at - length
    ends = at + zip_end.BYTES + comment == len(tail) and entries > 0 and directory > 0
    return ends and pread(descriptor, 4, directory) == _ZIP_ENTRY


def is_last_part(descriptor: int, size_bytes: int) -> bool:
    """Whether it ends with the directory of a zip that began in another file (number of this disk)."""
    _, tail, at = _end(descriptor, size_bytes)
    return at >= 0 and 0 < int.from_bytes(tail[at + 4 : at + 6], "little") < _UNSTATED


def _end(descriptor: int, size_bytes: int) -> tuple[int, bytes, int]:
    """(where the last bytes of the file begin, those, where in them the end of a zip is or -1)."""
    begin = max(0, size_bytes - _MOST_COMMENT - zip_end.BYTES)
    tail = pread(descriptor, size_bytes - begin, begin)
    return begin, tail, zip_end.last_end(tail)
