"""The directories of a CZI: which images and attachments it has, where they lie, and how each is packed.

Source: Zeiss, "ZISRAW (CZI) File Format" 1.2, FileHeader, SubBlockDirectory, SubBlock and AttachmentDirectory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cytowatch.formats.structure.places import bytes_at

__all__ = [
    "HEADER_BYTES",
    "Attachment",
    "Block",
    "Header",
    "Piece",
    "attachments",
    "blocks",
    "content",
    "header",
    "pieces",
    "texts",
]

#: Each segment begins with its name and two lengths; what it holds comes behind them.
HEADER_BYTES = 32
_FIRST_BYTES = 112
_ENTRIES_AT = 128
_ATTACHMENTS_AT = 256
_LARGEST_DIRECTORY = 512 << 20
_MOST_ATTACHMENTS = 1_000_000
#: The fixed part of a sub-block takes at least this many bytes.
_LEAST_FIXED = 256
_ENTRY = struct.Struct("<2siqii6xi")
_DIMENSION_BYTES = 20
_ATTACHMENT = struct.Struct("<2s10xqi16s8s80s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Where the directories begin; 0 where one is not written. `is_pending` while an update is under way."""

    images: int
    metadata: int
    is_pending: bool
    attachments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An image of the directory, whose sub-block begins at `at`; `dimensions` as they stand in its entry."""

    at: int
    pixel_type: int
    compression: int
    dimensions: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sub-block begins at `at`; its pixels are bytes `begin` to `end`, packed by `compression`."""

    at: int
    begin: int
    end: int
    compression: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An attachment whose segment begins at `at`: a label, a preview, a list of times."""

    at: int
    kind: bytes
    name: str


def header(descriptor: int) -> Header | None:
    """What the first segment says; None where the file is shorter."""
    head = bytes_at(descriptor, _FIRST_BYTES, 0)
    if len(head) < _FIRST_BYTES:
        return None
    images, metadata, pending, listed = struct.unpack_from("<qqiq", head, 84)
    return Header(images=images, metadata=metadata, is_pending=pending != 0, attachments=listed)


def pieces(descriptor: int, *, strictly: bool = False) -> Iterator[Piece]:
    """Every image that the directory lists, as far as it can be read.

    Raises
    ------
    ValueError
        It cannot be read to its end, if `strictly`.
    """
    first = header(descriptor)
    at = first.images if first is not None else 0
    head = bytes_at(descriptor, HEADER_BYTES + 4, at) if at > 0 else b""
    if strictly and not head.startswith(b"ZISRAWDIRECTORY"):
        raise ValueError("it has no directory of images")
    used, count = struct.unpack_from("<qi", head.ljust(HEADER_BYTES + 4, b"\0"), 24)
    most = min(used, _LARGEST_DIRECTORY)
    entries = bytes_at(descriptor, most, at + HEADER_BYTES + _ENTRIES_AT)
    begin = 0
    for _ in range(max(0, count)):
        if entries[begin : begin + 2] != b"DV" or begin + _ENTRY.size > len(entries):
            if strictly:
                raise ValueError("its directory of images ends too early")
            return
        _, pixel_type, place, _, compression, dimensions = _ENTRY.unpack_from(entries, begin)
        end = begin + _ENTRY.size + _DIMENSION_BYTES * max(0, dimensions)
        if strictly and end > len(entries):
            raise ValueError("its directory of images ends too early")
        yield Piece(
            at=place,
            pixel_type=pixel_type,
            compression=compression,
            dimensions=entries[begin + _ENTRY.size : end],
        )
        begin = end


def content(descriptor: int, piece: Piece) -> tuple[int, int]:
    """(offset, bytes) of the pixels of a piece, as they are packed."""
    sizes = bytes_at(descriptor, 16, piece.at + HEADER_BYTES).ljust(16, b"\0")
    metadata_bytes, _, size_bytes = struct.unpack("<iiq", sizes)
    fixed_bytes = max(_LEAST_FIXED, 16 + _ENTRY.size + len(piece.dimensions))
    begin = piece.at + HEADER_BYTES + fixed_bytes + max(0, metadata_bytes)
    return begin, max(0, size_bytes)


def blocks(descriptor: int, size_bytes: int) -> Iterator[Block]:
    """Every sub-block that the directory lists and that lies in the file."""
    for piece in pieces(descriptor):
        if 0 < piece.at < size_bytes:
            begin, length = content(descriptor, piece)
            yield Block(at=piece.at, begin=begin, end=begin + length, compression=piece.compression)


def attachments(descriptor: int, *, most: int = _MOST_ATTACHMENTS) -> Iterator[Attachment]:
    """The first `most` attachments that the directory of them lists."""
    first = header(descriptor)
    at = first.attachments if first is not None else 0
    head = bytes_at(descriptor, HEADER_BYTES + 4, at) if at > 0 else b""
    if len(head) < HEADER_BYTES + 4 or not head.startswith(b"ZISRAWATTDIR"):
        return
    count = max(0, min(struct.unpack_from("<i", head, HEADER_BYTES)[0], most))
    begin = at + HEADER_BYTES + _ATTACHMENTS_AT
    entries = bytes_at(descriptor, count * _ATTACHMENT.size, begin)
    for place in range(0, len(entries) - _ATTACHMENT.size + 1, _ATTACHMENT.size):
        schema, where, _, _, kind, name = _ATTACHMENT.unpack_from(entries, place)
        if schema == b"A1":
            yield Attachment(
                at=where,
                kind=kind.rstrip(b"\0"),
                name=name.split(b"\0")[0].decode("ascii", "replace"),
            )


def texts(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Where the XML of the whole file begins and ends."""
    first = header(descriptor)
    at = first.metadata if first is not None else 0
    if 0 < at < size_bytes - HEADER_BYTES - 256:
        [length] = struct.unpack("<i", bytes_at(descriptor, 4, at + HEADER_BYTES).ljust(4, b"\0"))
        if length > 0:
            yield at + HEADER_BYTES + 256, at + HEADER_BYTES + 256 + length
