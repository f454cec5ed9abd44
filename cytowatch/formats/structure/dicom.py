"""Where the pixels of a DICOM lie that are not packed, and how long a row of them is.

Source: DICOM PS3.5, 7.1 (data elements) and annexes A.1 and A.2; PS3.6
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cytowatch.formats.structure.places import pread

__all__ = ["Unpacked", "unpacked"]

_TRANSFER_SYNTAX = b"\x02\x00\x10\x00UI"
_IMPLICIT, _EXPLICIT = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"
_PIXELS = b"\xe0\x7f\x10\x00"
_SAMPLES, _PLANAR, _COLUMNS, _BITS = 0x0002, 0x0006, 0x0011, 0x0100
#: The pixels come last but for padding; before them profiles and positions of frames are the longest.
_LONGEST_HEAD = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """Bytes `begin` to `end` are rows of `stride` bytes; `stride` is 0 where it is not known."""

    begin: int
    end: int
    stride: int


def unpacked(descriptor: int) -> Unpacked | None:
    """The pixels behind `descriptor`, if they are not packed and their place is found.

    Raises
    ------
    OSError
        It cannot be read.
    """
    head = pread(descriptor, 4096, 0)
    at = head.find(_TRANSFER_SYNTAX)
    if head[128:132] != b"DICM" or at < 0:
        return None
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    syntax = head[at + 8 : at + 8 + length].rstrip(b"\0 ")
    if syntax not in (_IMPLICIT, _EXPLICIT):
        return None
    explicit = syntax == _EXPLICIT
    head = pread(descriptor, _LONGEST_HEAD, 0)
    found = _pixels(head, at, explicit=explicit)
    if found is None:
        return None
    begin, stated = found
    columns, bits = (_value(head[:begin], tag, explicit=explicit) for tag in (_COLUMNS, _BITS))
    samples = _value(head[:begin], _SAMPLES, explicit=explicit)
    planar = _value(head[:begin], _PLANAR, explicit=explicit)
    stride = columns * (1 if planar else samples) * bits // 8
    return Unpacked(begin=begin, end=begin + stated, stride=stride)


def _pixels(head: bytes, at: int, *, explicit: bool) -> tuple[int, int] | None:
    """(where they begin, how many bytes they are)."""
    while (at := head.find(_PIXELS, at + 1)) >= 0:
        kind, stated = head[at + 4 : at + 8], head[at + 8 : at + 12]
        if explicit and kind in (b"OB\0\0", b"OW\0\0") and len(stated) == 4:
            [length] = struct.unpack("<I", stated)
            return (at + 12, length) if length < 0xFFFFFFFF else None
        if not explicit and len(kind) == 4:
            [length] = struct.unpack("<I", kind)
            return (at + 8, length) if length < 0xFFFFFFFF else None
    return None


def _value(head: bytes, element: int, *, explicit: bool) -> int:
    """The number of group 28, which describes pixels; 0 where it is not there."""
    mark = struct.pack("<HH", 0x0028, element) + (b"US\x02\x00" if explicit else b"\x02\0\0\0")
    at = head.rfind(mark)
    return int.from_bytes(head[at + 8 : at + 10], "little") if at >= 0 else 0
