"""How long a file must be, told by its header or by a walk over its parts: never by its pixels.

Each function gives what a file lacks, as a phrase, or None; what it cannot understand is whole.

Source: ISO/IEC 15444-1 (JPEG 2000); Zeiss, ZISRAW (CZI) 1.2; Microsoft, Bitmap Storage; netpbm;
POSIX.1-2001 (ustar); the ETS container as Bio-Formats reads it.
"""

from __future__ import annotations

import os
import re
import struct
import tarfile

__all__ = ["bmp", "czi", "ets", "jp2", "jpeg2000_codestream", "pnm", "pnm_mark", "tar", "tar_mark"]

_MOST_PARTS = 1_000_000
_LARGEST_DIRECTORY = 512 << 20
#: Nothing in it can match in two ways: a header of spaces must not take for ever. A number of
#: more digits is none that an image can have.
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,18})(?:\s|#[^\n]*\n)+(\d{1,18})\s", re.DOTALL)
_PNM_MOST = re.compile(rb"(?:\s|#[^\n]*\n)*(\d{1,18})\s", re.DOTALL)


def _short(need: int, size_bytes: int) -> str | None:
    if need <= size_bytes:
        return None
    return f"its last {need - size_bytes:,} bytes (it has {size_bytes:,} of {need:,})"


def bmp(descriptor: int, size_bytes: int) -> str | None:
    """The rows of an uncompressed bitmap; the size of the others is not stated anywhere."""
    head = os.pread(descriptor, 34, 0)
    if len(head) < 34:
        return "its header"
    begin, second, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", head, 10)
    if second < 40 or packing != 0 or width <= 0 or bits not in (1, 4, 8, 16, 24, 32):
        return None
    stride = (width * bits + 31) // 32 * 4
    # The padding of the last row may be absent.
    return _short(begin + stride * (abs(height) - 1) + (width * bits + 7) // 8, size_bytes)


def pnm_mark(head: bytes, kinds: bytes) -> str | None:
    """By what a PNM of one of the `kinds`, which are digits, is told; None if it is none.

    >>> pnm_mark(b"P6 300 200 255 ", b"36"), pnm_mark(b"P6 is a road", b"36")
    ('begins with P6 and a size', None)
    """
    if _PNM.match(head) is None or head[1] not in kinds:
        return None
    return f"begins with {head[:2].decode()} and a size"


def pnm(descriptor: int, size_bytes: int) -> str | None:
    """The rows of a binary PNM."""
    head = os.pread(descriptor, 4096, 0)
    sizes = _PNM.match(head)
    if sizes is None:
        return None
    width, height = int(sizes[1]), int(sizes[2])
    if head[1:2] == b"4":
        return _short(sizes.end() + (width + 7) // 8 * height, size_bytes)
    most = _PNM_MOST.match(head, sizes.end())
    if most is None:
        return None
    samples = (3 if head[1:2] == b"6" else 1) * (2 if int(most[1]) > 255 else 1)
    return _short(most.end() + width * height * samples, size_bytes)


def czi(descriptor: int, size_bytes: int) -> str | None:
    """The directory of a CZI, whose place is written into the header when all else is there."""
    head = os.pread(descriptor, 112, 0)
    if len(head) < 112:
        return "its header"
    directory, metadata, pending = struct.unpack_from("<qqi", head, 84)
    if pending:
        return "the end of its writing (its header says that an update is pending)"
    if directory <= 0:
        return "its directory of images (the writer has not closed it)"
    for what, at in (("directory of images", directory), ("metadata", metadata)):
        if at <= 0:
            continue
        segment = os.pread(descriptor, 32, at)
        if len(segment) < 32:
            return f"its {what} (at {at:,}, the file has {size_bytes:,} bytes)"
        allocated, used = struct.unpack_from("<qq", segment, 16)
        end = at + 32 + (used or allocated)
        if segment.startswith(b"ZISRAW") and end > size_bytes:
            return f"a part of its {what}"
    return _last_image(descriptor, directory, size_bytes)


def _last_image(descriptor: int, directory: int, size_bytes: int) -> str | None:
    """The image that lies last in the file; the directory may lie before it."""
    [count] = struct.unpack("<i", os.pread(descriptor, 4, directory + 32).ljust(4, b"\0"))
    used = struct.unpack("<q", os.pread(descriptor, 8, directory + 24).ljust(8, b"\0"))[0]
    entries = os.pread(descriptor, min(max(used, 0), _LARGEST_DIRECTORY), directory + 160)
    at, last = 0, 0
    for _ in range(max(0, count)):
        if entries[at : at + 2] != b"DV" or at + 32 > len(entries):
            break
        [position] = struct.unpack_from("<q", entries, at + 6)
        last = max(last, position)
        at += 32 + 20 * max(0, struct.unpack_from("<i", entries, at + 28)[0])
    segment = os.pread(descriptor, 32, last)
    if last >= size_bytes or (last and len(segment) < 32):
        return f"an image (at {last:,}, the file has {size_bytes:,} bytes)"
    if segment.startswith(b"ZISRAWSUBBLOCK"):
        allocated, used = struct.unpack_from("<qq", segment, 16)
        return _short(last + 32 + (used or allocated), size_bytes)
    return None


def ets(descriptor: int, size_bytes: int) -> str | None:
    """The list of tiles of an ETS, and the last of them."""
    head = os.pread(descriptor, 64, 0)
    if len(head) < 64:
        return "its header"
    axes = struct.unpack_from("<I", head, 12)[0]
    where, count = struct.unpack_from("<QI", head, 32)
    entry = 20 + 4 * axes
    if not 0 < axes < 16 or count > 50_000_000:
        return None
    if where + count * entry > size_bytes:
        return "the list of its tiles"
    for number in {0, count // 2, count - 1} if count else set():
        offset, length = struct.unpack_from(
            "<QI", os.pread(descriptor, entry, where + number * entry), 4 + 4 * axes
        )
        if offset + length > size_bytes:
            return f"tile {number} (ends at {offset + length:,}, the file has {size_bytes:,} bytes)"
    return None


def jp2(descriptor: int, size_bytes: int) -> str | None:
    """The boxes of a JP2 up to its codestream, and the codestream."""
    at = 0
    for _ in range(10_000):
        head = os.pread(descriptor, 16, at)
        if len(head) < 8:
            return "the box with the codestream"
        length, kind = struct.unpack_from(">I4s", head)
        inner = 8
        if length == 1 and len(head) == 16:
            length, inner = struct.unpack_from(">Q", head, 8)[0], 16
        length = length or size_bytes - at
        if length < inner:
            return None
        if at + length > size_bytes and kind != b"jp2c":
            return "the box with the codestream"
        if kind == b"jp2c":
            return _short(at + length, size_bytes) or _parts(descriptor, at + inner, at + length)
        at += length
    return None


def jpeg2000_codestream(descriptor: int, size_bytes: int) -> str | None:
    """The tile-parts of a bare codestream."""
    return _parts(descriptor, 0, size_bytes)


def _parts(descriptor: int, at: int, end: int) -> str | None:
    at += 2
    for _ in range(_MOST_PARTS):
        head = os.pread(descriptor, 12, at)
        if head[:2] == b"\xff\xd9":
            return None
        if len(head) < 4 or at >= end:
            return "the end of the codestream (EOC marker)"
        if head[:2] != b"\xff\x90":
            # A marker of the main header; anything else is damage, and no lack.
            if head[0] != 0xFF or head[1] < 0x4F:
                return None
            at += 2 + struct.unpack_from(">H", head, 2)[0]
            continue
        if len(head) < 12:
            return "a part of a tile"
        number, length = struct.unpack_from(">HI", head, 4)
        if length == 0:
            tail = os.pread(descriptor, 64, max(at, end - 64))
            return None if b"\xff\xd9" in tail else "the end of the codestream (EOC marker)"
        if length < 12:
            return None
        at += length
        if at > end:
            return f"a part of tile {number} (ends at {at:,}, the file has {end:,} bytes)"
    return None


def tar_mark(head: bytes) -> str | None:
    """By what the first block of a tar is told, as a phrase; None if it is none.

    >>> tar_mark(bytes(512)) is None
    True
    """
    if head[257:262] == b"ustar":
        return "ustar at 257"
    # Of before POSIX.1-1988, as `tar --format=v7` still writes.
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return "the checksum of a tar's first block"


def tar(descriptor: int, size_bytes: int) -> str | None:
    """The members of a tar that is not compressed, and the block of zeros after them."""
    at = 0
    for _ in range(_MOST_PARTS):
        head = os.pread(descriptor, 512, at)
        if len(head) < 512:
            return "the end of the tar"
        if not any(head):
            return None
        field = head[124:136]
        try:
            length = (
                int.from_bytes(field[1:], "big")
                if field[0] & 0x80
                else int(field.strip(b" \0") or b"0", 8)
            )
        except ValueError:
            return None
        at += 512 + -(-length // 512) * 512
        if at > size_bytes:
            return "the end of a member of the tar"
    return None
