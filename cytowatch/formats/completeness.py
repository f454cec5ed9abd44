"""Whether a file is whole, by its own structure: headers and directories, never pixels.

A connection that is cut while a slide is written looks exactly like a normal close, so quiet
alone proves nothing. What cannot be understood counts as whole: its fate is an error with a
reason, not an endless wait.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from cytowatch.formats import extents
from cytowatch.formats.tiff import Directory, Tiff, TiffError

__all__ = ["missing"]

_ZERO_LOOK = 4096
#: Chunk headers that are walked in a PNG, marker segments in a JPEG: more is no honest file.
_MOST_CHUNKS = 1_000_000
#: Tiles and strips that are held against the size of the file.
_MOST_SEGMENTS = 20_000_000
#: The offsets of strips, and of tiles.
_LISTS = frozenset({273, 324})
_TAIL = 1 << 16
_ZIP_END = b"PK\x05\x06"
#: TIFF compressions whose data never begins with eight zeros: LZW, JPEG, deflate, JPEG 2000.
_NEVER_ZERO = frozenset({5, 7, 8, 32946, 33003, 33005, 34712})


def missing(descriptor: int, size_bytes: int) -> str | None:
    """What the file behind `descriptor` lacks, as a phrase; None when it is whole.

    Raises
    ------
    OSError
        It cannot be read.
    """
    if size_bytes == 0:
        return None
    head = os.pread(descriptor, _ZERO_LOOK, 0)
    if not head.strip(b"\0"):
        return "its content (only zeros so far)"
    for magic, look in _LOOKS:
        if head.startswith(magic):
            return look(descriptor, size_bytes)
    if extents.tar_mark(head) is not None:
        return extents.tar(descriptor, size_bytes)
    if any(magic.startswith(head) for magic, _ in _LOOKS):
        return "all but its first bytes"
    return None


def _jpeg(descriptor: int, size_bytes: int) -> str | None:
    """Walk the marker segments to the first scan; after it, the end must come (T.81, B.1.1)."""
    lacking = "the end of the image (JPEG EOI marker)"
    at = 2
    for _ in range(_MOST_CHUNKS):
        segment = os.pread(descriptor, 4, at)
        if len(segment) < 4:
            return lacking
        if segment[0] != 0xFF:
            return None
        marker, length = segment[1], struct.unpack(">H", segment[2:])[0]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xD9:
            return None
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        at += 2 + length
        if marker == 0xDA:
            break
    return None if _found_backwards(descriptor, size_bytes, b"\xff\xd9", at) else lacking


def _found_backwards(descriptor: int, size_bytes: int, mark: bytes, least: int) -> bool:
    """Whether `mark` stands after `least`, where what follows it may be any junk."""
    end = size_bytes
    # Entropy-coded data never holds FF D9, so wherever it is found a scan has ended.
    while end > least:
        begin = max(least, end - _TAIL)
        if mark in os.pread(descriptor, end - begin, begin):
            return True
        if end - _TAIL <= size_bytes - 64 * _TAIL:
            return False
        end = begin + 1 if begin > least else least
    return False


def _png(descriptor: int, size_bytes: int) -> str | None:
    at = 8
    for _ in range(_MOST_CHUNKS):
        header = os.pread(descriptor, 8, at)
        if len(header) < 8:
            break
        length, kind = struct.unpack(">I4s", header)
        if not any(header):
            return "its content (zeros where a chunk should begin)"
        if not kind.isalpha():
            return None
        at += 12 + length
        if kind == b"IEND":
            return None if at <= size_bytes else "the end of the image (PNG IEND chunk)"
    return "the end of the image (PNG IEND chunk)"


def _tiff(descriptor: int, size_bytes: int) -> str | None:
    try:
        tiff = Tiff(descriptor, size_bytes)
    except TiffError as error:
        return f"its first directory ({error})"
    if tiff.broken:
        return tiff.broken
    looked_at = 0
    for number, directory in enumerate([*tiff.directories, *tiff.sub_directories]):
        looked_at += max(
            (directory.tags[tag].count for tag in _LISTS & directory.tags.keys()), default=0
        )
        if looked_at > _MOST_SEGMENTS:
            # No honest slide has so many; what it is is found out where it may take its time.
            return None
        lacking = _segments(directory, number, size_bytes)
        if lacking is not None:
            return lacking
    return None


def _segments(directory: Directory, number: int, size_bytes: int) -> str | None:
    what = "tile" if directory.tiled else "strip"
    last = (0, 0)
    try:
        compressed = directory.number(259, 1) in _NEVER_ZERO
        for tag in directory.tags.values():
            if tag.end > size_bytes:
                return f"the values of a tag of directory {number}"
        for index, (offset, count) in enumerate(directory.segments()):
            if offset + count > size_bytes:
                return (
                    f"{what} {index} of directory {number} "
                    f"(ends at {offset + count:,}, the file has {size_bytes:,} bytes)"
                )
            last = max(last, (offset, count))
        # A client that sets the size first leaves zeros where the last of it will be.
        if compressed and last[1] >= 8 and not any(directory.tiff.bytes(last[0], 8)):
            return f"the content of a {what} of directory {number} (only zeros so far)"
    except TiffError as error:
        return f"the list of {what}s of directory {number} ({error})"
    return None


def _zip(descriptor: int, size_bytes: int) -> str | None:
    """The end record, which is written last, and the central directory that it names."""
    lacking = "the central directory of the zip"
    begin = max(0, size_bytes - _TAIL - 22)
    tail = os.pread(descriptor, size_bytes - begin, begin)
    at = tail.rfind(_ZIP_END)
    if at < 0 or len(tail) < at + 22:
        return lacking
    length, offset = struct.unpack_from("<II", tail, at + 12)
    if offset == 0xFFFFFFFF or length == 0xFFFFFFFF:
        return None if tail.rfind(b"PK\x06\x07", 0, at) >= 0 else lacking
    return None if offset + length <= begin + at else lacking


_LOOKS: tuple[tuple[bytes, Callable[[int, int], str | None]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"PK\x03\x04", _zip),
    (b"PK\x05\x06", _zip),
    (b"ZISRAWFILE", extents.czi),
    (b"\x00\x00\x00\x0cjP  ", extents.jp2),
    (b"\xff\x4f\xff\x51", extents.jpeg2000_codestream),
    (b"SIS\0", extents.ets),
    (b"P4", extents.pnm),
    (b"P5", extents.pnm),
    (b"P6", extents.pnm),
    (b"BM", extents.bmp),
)
