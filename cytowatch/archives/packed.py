"""The bytes of one member of a zip, unpacked to where they really end.

What the directory states of their number is held against what comes out. The macOS Finder states it
modulo 2^32, so a member may be longer by a multiple of that, and by nothing else.

Source: PKWARE APPNOTE 6.3.10, sections 4.3.9 (data descriptor), 4.4.5 (methods), 5.8 (LZMA)
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from cytowatch.archives.common import DamagedMember
from cytowatch.archives.directory import WRAP, Entry, data_begin
from cytowatch.record.quoting import quoting

__all__ = ["chunks"]

_CHUNK_BYTES = 1 << 20
#: This much is read at a time; one byte may unpack to a thousand.
_READ_BYTES = 1 << 17
_PATCHED = 0x20
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
#: Methods that only some programs know, by the names that those give them.
_OTHERS = {1: "shrink", 6: "implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
#: No deflate stream unpacks to more than so many times its size.
_DENSEST = 1032
#: A data descriptor has these lengths: with 32 or 64 bits a size, without its mark or with it.
_DESCRIPTORS = (0, 12, 16, 20, 24)
_DAMAGE = (zlib.error, lzma.LZMAError, struct.error)


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most `max_length` bytes more of what `data` goes on with."""


def chunks(file: BinaryIO, entry: Entry, end: int) -> Iterator[bytes]:
    """The bytes of `entry`, piece by piece; no other member lies before `end`.

    Raises
    ------
    DamagedMember
        It is cut short, does not fit its checksum, or is packed in a way that is not supported.
    """
    if entry.flags & _PATCHED or entry.method not in (_STORED, _DEFLATED, _BZIP2, _LZMA):
        method = _OTHERS.get(entry.method, f"method {entry.method}")
        raise DamagedMember(
            f"unsupported_packing: packed with {method}; pack it as an ordinary zip"
        )
    try:
        begin = data_begin(file, entry)
        left = max(0, end - begin)
        if entry.method == _STORED:
            pieces = _stored(file, begin, _stored_bytes(entry, left))
        else:
            pieces = _unpacked(file, begin, left, entry)
        yield from _checked(pieces, entry, _most_bytes(entry, left))
    except (EOFError, ValueError) as error:
        # Those of this module speak for themselves.
        raise DamagedMember(f"damaged: {error}") from error
    except _DAMAGE as error:
        raise DamagedMember(f"damaged: {quoting('its bytes cannot be unpacked', error)}") from error
    except OSError as error:
        # bz2 reports damage by an OSError without a number, which no disk ever gives.
        if error.errno is not None:
            raise
        raise DamagedMember(f"damaged: {quoting('its bytes cannot be unpacked', error)}") from error


def _most_bytes(entry: Entry, left: int) -> int:
    """How many bytes may come out: as many as stated, or anything that fits if that can have wrapped."""
    may_wrap = not entry.wide and left * _DENSEST >= entry.size_bytes + WRAP
    return left * _DENSEST if may_wrap else entry.size_bytes


def _checked(pieces: Iterator[bytes], entry: Entry, most: int) -> Iterator[bytes]:
    count = crc = 0
    for piece in pieces:
        count += len(piece)
        crc = zlib.crc32(piece, crc)
        if count > most:
            raise ValueError("it is longer than stated")
        yield piece
    if count != entry.size_bytes and (entry.wide or count % WRAP != entry.size_bytes):
        raise ValueError(f"it has {count:,} bytes, {entry.size_bytes:,} are stated")
    if crc != entry.crc:
        raise ValueError("it does not fit its checksum (CRC-32)")


def _stored_bytes(entry: Entry, left: int) -> int:
    """How many bytes a member has that is not packed."""
    if not entry.wide and left >= entry.packed_bytes + WRAP:
        for descriptor in _DESCRIPTORS:
            if (left - descriptor) % WRAP == entry.packed_bytes:
                return left - descriptor
    return min(entry.packed_bytes, left)


def _stored(file: BinaryIO, begin: int, length: int) -> Iterator[bytes]:
    file.seek(begin)
    while length > 0 and (piece := file.read(min(length, _CHUNK_BYTES))):
        length -= len(piece)
        yield piece


def _unpacked(file: BinaryIO, begin: int, left: int, entry: Entry) -> Iterator[bytes]:
    """What comes out of the stream at `begin`, which has at most `left` bytes and its own end."""
    # What is stated may be what is left of a larger number, so the stream itself says where it ends.
    left = min(left, entry.packed_bytes) if entry.wide else left
    reader = _Reader(file, begin, left)
    unpack, ended = _unpacker(entry, reader)
    while not ended():
        piece = unpack()
        if not piece and not ended() and reader.is_empty:
            raise EOFError("its packed bytes end too early")
        if piece:
            yield piece


class _Reader:
    """Guards that nothing is read behind the last byte that a stream may have."""

    def __init__(self, file: BinaryIO, begin: int, length: int) -> None:
        self._file = file
        self._at = begin
        self._end = begin + length

    @property
    def is_empty(self) -> bool:
        """Whether every byte was read."""
        return self._at >= self._end

    def read(self, count: int = _READ_BYTES) -> bytes:
        """The next bytes, at most `count`."""
        # The same file is read elsewhere between two pieces.
        self._file.seek(self._at)
        found = self._file.read(min(count, self._end - self._at))
        self._at = self._at + len(found) if found else self._end
        return found


def _unpacker(entry: Entry, reader: _Reader) -> tuple[Callable[[], bytes], Callable[[], bool]]:
    """(what gives the next bytes, whether the stream has ended)."""
    if entry.method == _DEFLATED:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)

        def more() -> bytes:
            return inflate.decompress(inflate.unconsumed_tail or reader.read(), _CHUNK_BYTES)

        return more, lambda: inflate.eof
    other: _Unpacker = bz2.BZ2Decompressor() if entry.method == _BZIP2 else _lzma(reader)
    marked = entry.method == _BZIP2 or bool(entry.flags & 0x2)
    given = 0

    def next_bytes() -> bytes:
        nonlocal given
        wanted = _CHUNK_BYTES if marked else min(_CHUNK_BYTES, entry.size_bytes - given)
        found = other.decompress(reader.read() if other.needs_input else b"", wanted)  # type: ignore[attr-defined]
        given += len(found)
        return found

    # An LZMA stream without a mark at its end has as many bytes as are stated.
    return next_bytes, lambda: other.eof or (not marked and given >= entry.size_bytes)


def _lzma(reader: _Reader) -> lzma.LZMADecompressor:
    head = reader.read(4)
    [length] = struct.unpack("<2xH", head)
    properties = reader.read(length)
    # The one private function of the standard library that turns the zip's five bytes into a filter.
    decode = lzma._decode_filter_properties  # type: ignore[attr-defined]
    chain = [decode(lzma.FILTER_LZMA1, properties)]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain)
