"""The directory of a CZI: which pieces of which planes it has, and how they are packed.

Zeiss' library counts planes from zero, whatever the file does, so the file itself is asked.

Source: Zeiss, "ZISRAW (CZI) File Format" 1.2, SubBlockDirectory and SubBlock; the header of zstd1 is that of libCZI.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["SubBlock", "is_misread", "read"]

_DIRECTORY_AT, _HEADER_BYTES = 84, 32
_ENTRIES_AT = 128
_MOST_BYTES = 1 << 30
_ENTRY = struct.Struct("<2siqii6xi")
_DIMENSION = struct.Struct("<4siifi")
_BGR48, _ZSTD1 = 4, 6
_LOOKED_INTO = 16


@dataclass(frozen=True, slots=True)
class SubBlock:
    """One piece: the numbers of its pixel type and of its packing, its offset, and where it starts in each dimension."""

    pixel_type: int
    compression: int
    offset: int
    start: dict[str, int]


def read(path: str) -> list[SubBlock]:
    """Every piece that the directory names; none if it cannot be read, which the library will say."""
    try:
        with open(path, "rb") as file:
            return _read(file)
    except (OSError, struct.error, ValueError, OverflowError, UnicodeDecodeError):
        return []


def _read(file: BinaryIO) -> list[SubBlock]:
    file.seek(_DIRECTORY_AT)
    [at] = struct.unpack("<q", file.read(8))
    file.seek(at)
    head = file.read(_HEADER_BYTES + _ENTRIES_AT)
    if not head.startswith(b"ZISRAWDIRECTORY"):
        return []
    [used] = struct.unpack_from("<q", head, 24)
    [count] = struct.unpack_from("<i", head, _HEADER_BYTES)
    data = file.read(min(used, _MOST_BYTES))
    found, place = [], 0
    for _ in range(count):
        _, pixel_type, offset, _, compression, dimensions = _ENTRY.unpack_from(data, place)
        place += _ENTRY.size
        start = {}
        for _ in range(dimensions):
            name, first, _, _, _ = _DIMENSION.unpack_from(data, place)
            start[name.rstrip(b"\0").decode("ascii")] = first
            place += _DIMENSION.size
        found.append(SubBlock(pixel_type, compression, offset, start))
    return found


def is_misread(path: str, blocks: list[SubBlock]) -> bool:
    """Whether Zeiss' library would make noise of it: three samples of 16 bits, their bytes apart in zstd."""
    odd = [one for one in blocks if (one.pixel_type, one.compression) == (_BGR48, _ZSTD1)]
    try:
        with open(path, "rb") as file:
            return any(_has_bytes_apart(file, one.offset) for one in odd[:_LOOKED_INTO])
    except (OSError, struct.error, ValueError, OverflowError):
        return False


def _has_bytes_apart(file: BinaryIO, offset: int) -> bool:
    file.seek(offset + _HEADER_BYTES)
    head = file.read(16 + _ENTRY.size)
    [metadata_bytes] = struct.unpack_from("<i", head, 0)
    [dimensions] = struct.unpack_from("<i", head, 16 + _ENTRY.size - 4)
    entry_bytes = 16 + _ENTRY.size + dimensions * _DIMENSION.size
    file.seek(offset + _HEADER_BYTES + max(256, entry_bytes) + metadata_bytes, os.SEEK_SET)
    # The length of the header, then the kind of what it says, then whether the bytes are apart.
    length, kind, flags = file.read(3).ljust(3, b"\0")
    return length == 3 and kind == 1 and bool(flags & 1)
