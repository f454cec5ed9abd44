"""Where the images of a CZI lie, and how each is packed, by its directory of sub-blocks.

Source: Zeiss, "ZISRAW (CZI) File Format" 1.2, SubBlockDirectory and SubBlock.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cytowatch.formats.structure.places import pread

__all__ = ["Block", "blocks", "texts"]

_HEADER_BYTES = 32
_ENTRIES_AT = 128
_LARGEST_DIRECTORY = 512 << 20
#: The fixed part of a sub-block takes at least this many bytes.
_LEAST_FIXED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sub-block begins at `at`; its pixels are bytes `begin` to `end`, packed by `compression`."""

    at: int
    begin: int
    end: int
    compression: int


def blocks(descriptor: int, size_bytes: int) -> Iterator[Block]:
    """Every sub-block that the directory lists and that lies in the file."""
    [directory] = struct.unpack("<q", pread(descriptor, 8, 84).ljust(8, b"\0"))
    if not 0 < directory < size_bytes:
        return
    head = pread(descriptor, _HEADER_BYTES + 4, directory).ljust(36, b"\0")
    [used], [count] = struct.unpack_from("<q", head, 24), struct.unpack_from("<i", head, 32)
    most = min(max(used, 0), _LARGEST_DIRECTORY)
    entries = pread(descriptor, most, directory + _HEADER_BYTES + _ENTRIES_AT)
    at = 0
    for _ in range(max(0, count)):
        if entries[at : at + 2] != b"DV" or at + 32 > len(entries):
            return
        position, _, compression = struct.unpack_from("<qii", entries, at + 6)
        length = 32 + 20 * max(0, struct.unpack_from("<i", entries, at + 28)[0])
        at += length
        if not 0 < position < size_bytes:
            continue
        sizes = pread(descriptor, 16, position + _HEADER_BYTES).ljust(16, b"\0")
        metadata, _, pixels = struct.unpack("<iiq", sizes)
        begin = position + _HEADER_BYTES + max(_LEAST_FIXED, 16 + length) + max(0, metadata)
        end = begin + max(0, pixels)
        yield Block(at=position, begin=begin, end=end, compression=compression)


def texts(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Where the XML of the whole file begins and ends."""
    [at] = struct.unpack("<q", pread(descriptor, 8, 92).ljust(8, b"\0"))
    if 0 < at < size_bytes - _HEADER_BYTES - 256:
        [length] = struct.unpack("<i", pread(descriptor, 4, at + _HEADER_BYTES).ljust(4, b"\0"))
        if length > 0:
            yield at + _HEADER_BYTES + 256, at + _HEADER_BYTES + 256 + length
