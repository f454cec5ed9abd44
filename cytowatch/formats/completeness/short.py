"""How long a file must be, told by its header or by a walk over its parts: never by its pixels.

Each function gives what a file lacks, as a phrase, or None; what it cannot understand is whole.

Source: ISO/IEC 15444-1 (JPEG 2000); Zeiss, ZISRAW (CZI) 1.2; Microsoft, Bitmap Storage;
POSIX.1-2001 (ustar); the ETS container as Bio-Formats reads it.
"""

from __future__ import annotations

import struct
import tarfile

from cytowatch.formats.structure import bmp as bitmap
from cytowatch.formats.structure import czi as structure
from cytowatch.formats.structure.jp2 import (
    ALONE,
    CODESTREAM,
    EOC,
    SOT,
    boxes,
    ends_near,
    segments,
)
from cytowatch.formats.structure.places import pread
from cytowatch.record.lacking import amount

__all__ = ["bmp", "czi", "ets", "jp2", "jpeg2000_codestream", "short", "tar", "tar_mark"]

_MOST_PARTS = 1_000_000
#: Before the codestream of a JP2.
_MOST_BOXES = 10_000
#: Below it there is no marker of a JPEG 2000 with a length.
_LEAST_MARKER = 0xFF4F
#: More members than this are refused when they are unpacked, unless an administrator allows them: to go from one
#: to the next for a million of them held a thread of the daemon, and its end, for half a minute.
_MOST_MEMBERS = 200_000
#: What a tar is written in, by default and at most.
_RECORD_BYTES, _LARGEST_RECORD = 10240, 1 << 20
#: The type of a member that goes on from an earlier volume (GNU tar).
_CONTINUED = b"M"
#: Packings of an ETS whose data never begins with eight zeros: JPEG, JPEG 2000, lossless JPEG.
_ETS_PACKED = (b"\x02", b"\x03", b"\x05")


def short(need: int, size_bytes: int) -> str | None:
    """The last bytes of a file that must have `need` of them."""
    if need <= size_bytes:
        return None
    return f"its last {need - size_bytes:,} bytes ({amount(size_bytes, need)})"


def bmp(descriptor: int, size_bytes: int) -> str | None:
    """The rows of a bitmap, or its run-length codes if their length is stated."""
    found = bitmap.header(descriptor)
    if found.is_cut or size_bytes < bitmap.LEAST_BYTES:
        return "its header"
    if found.is_run_length:
        # Some state a wrong length; the codes end with 0 1.
        ended = b"\0\1" in pread(descriptor, 4, max(0, size_bytes - 4))
        return None if ended else short(found.begin + found.packed_bytes, size_bytes)
    if not found.has_rows or not (found.is_windows or found.second_bytes == bitmap.OS2_BYTES):
        return None
    # The padding of the last row may be absent.
    rows = found.stride * (abs(found.height) - 1) + found.used
    return short(found.begin + rows, size_bytes)


def czi(descriptor: int, size_bytes: int) -> str | None:
    """The directory of a CZI, whose place is written into the header when all else is there."""
    first = structure.header(descriptor)
    if first is None:
        return "its header"
    if first.is_pending:
        return "the end of its writing (its header says that an update is pending)"
    if first.images <= 0:
        return "its directory of images (the writer has not closed it)"
    # The directories may lie before what they list: of that the last one is looked at.
    image = max((one.at for one in structure.pieces(descriptor)), default=0)
    attachment = max((one.at for one in structure.attachments(descriptor)), default=0)
    for what, at in (
        ("its directory of images", first.images),
        ("its metadata", first.metadata),
        ("its directory of attachments", first.attachments),
        ("an image", image),
        ("an attachment", attachment),
    ):
        lacking = _segment(descriptor, at, size_bytes, what) if at > 0 else None
        if lacking is not None:
            return lacking
    return None


def _segment(descriptor: int, at: int, size_bytes: int, what: str) -> str | None:
    """Whether the segment at `at` of a CZI is there to its end; `what` it holds."""
    if at + 32 > size_bytes:
        return f"{what} ({amount(size_bytes, at + 32)})"
    segment = pread(descriptor, 32, at).ljust(32, b"\0")
    # Every segment has a length.
    if not any(segment[16:32]):
        return f"{what} (still only zeros)"
    allocated, used = struct.unpack_from("<qq", segment, 16)
    end = at + 32 + (used or allocated)
    if segment.startswith(b"ZISRAW") and end > size_bytes:
        return f"a part of {what} ({amount(size_bytes, end)})"
    return None


def ets(descriptor: int, size_bytes: int) -> str | None:
    """The list of tiles of an ETS, and the last of them."""
    head = pread(descriptor, 64, 0)
    if len(head) < 64:
        return "its header"
    axes = struct.unpack_from("<I", head, 12)[0]
    where, count = struct.unpack_from("<QI", head, 32)
    entry = 20 + 4 * axes
    if not 0 < axes < 16 or count > 50_000_000:
        return None
    if where + count * entry > size_bytes:
        return "the list of its tiles"
    inner = pread(descriptor, 24, struct.unpack_from("<I", head, 16)[0])
    packed = inner.startswith(b"ETS\0") and inner[20:21] in _ETS_PACKED
    for number in {0, count // 2, count - 1} if count else set():
        offset, length = struct.unpack_from(
            "<QI", pread(descriptor, entry, where + number * entry), 4 + 4 * axes
        )
        if not offset and not length:
            return "the list of its tiles (still only zeros)"
        if offset + length > size_bytes:
            return f"tile {number} ({amount(size_bytes, offset + length)})"
        if packed and length >= 8 and not any(pread(descriptor, 8, offset)):
            return f"the content of tile {number} (still only zeros)"
    return None


def jp2(descriptor: int, size_bytes: int) -> str | None:
    """The boxes of a JP2 up to its codestream, and the codestream."""
    at = 0
    for box in boxes(descriptor, size_bytes, most=_MOST_BOXES):
        if box.kind == bytes(4) and box.end == size_bytes:
            return "the box with the codestream (still only zeros)"
        if box.end < box.begin:
            return None
        if box.kind == CODESTREAM:
            end = min(box.end, size_bytes)
            lacking = _parts(descriptor, box.begin, end)
            # Some state too great a length for a box whose codestream ends; one that cannot be walked is
            # believed to be as long as it says.
            ended = lacking is None and ends_near(descriptor, box.begin, end)
            return None if ended else lacking or short(box.end, size_bytes)
        at = box.end
    return "the box with the codestream" if at + 8 > size_bytes else None


def jpeg2000_codestream(descriptor: int, size_bytes: int) -> str | None:
    """The tile-parts of a bare codestream."""
    return _parts(descriptor, 0, size_bytes)


def _parts(descriptor: int, at: int, end: int) -> str | None:
    without_end = "the end of the codestream (EOC marker)"
    for one in segments(descriptor, at + 2, end, most=_MOST_PARTS):
        if one.marker == EOC:
            return None
        if one.at >= end:
            return without_end
        if one.is_cut:
            return "a part of a tile" if one.marker == SOT else without_end
        if not one.marker:
            return "a part of the codestream (still only zeros)"
        if one.is_open:
            return None if ends_near(descriptor, one.at, end) else without_end
        if one.marker == SOT and one.end > end:
            return f"a part of tile {one.tile} ({amount(end, one.end)})"
        # Anything that is not a marker of the main header is damage, and not a missing part.
        if one.marker < _LEAST_MARKER and one.marker not in ALONE:
            return None
    return None


def tar_mark(head: bytes) -> str | None:
    """By which mark the first block of a tar is recognised, as a phrase; None if it is none.

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


def _pads(descriptor: int, at: int, size_bytes: int) -> bool:
    """Whether what begins with zeros at `at` ends a tar: two blocks of them, and as many as fill the last record.

    Of a copy whose size was set first, and which broke off between two members, all that never came is zeros.
    """
    zeros = size_bytes - at
    if zeros <= _RECORD_BYTES + 512:
        return True
    # Records of another length are a power of two, for tapes.
    record = 1 << (zeros - 513).bit_length()
    if record <= _LARGEST_RECORD and size_bytes % record == 0:
        return True
    some = pread(descriptor, min(zeros, _LARGEST_RECORD), at)
    # What was joined to it, if anything, is named when it is unpacked.
    return any(some) or any(pread(descriptor, 512, size_bytes - 512))


def tar(descriptor: int, size_bytes: int) -> str | None:
    """The members of a tar that is not compressed, and the block of zeros after them."""
    at = 0
    for _ in range(_MOST_MEMBERS):
        head = pread(descriptor, 512, at)
        if len(head) < 512:
            return "the end of the tar"
        if not any(head):
            return (
                None
                if _pads(descriptor, at, size_bytes)
                else "the end of the tar (still only zeros)"
            )
        if tar_mark(head) is None:
            # Of more than 8 GiB the length may stand in a record before it, so this is not a header.
            return None
        if head[156:157] == _CONTINUED:
            # One of several volumes, which is never whole by itself.
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
