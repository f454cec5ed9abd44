"""Whether a file is whole, by its own structure: headers and directories, never pixels.

A connection that is cut while a slide is written looks exactly like a normal close, so quiet
by itself proves nothing. What cannot be understood counts as whole: its fate is an error with a
reason, not an endless wait.

A client that sets the size first and is cut later leaves a hole: bytes up to the end that nobody
ever wrote. They count as not there. What was written counts, black pixels as well, but for zeros
where a header, a directory or the end of packed pixels must be: those are reported as missing too.

A hole counts wherever it lies in a part of the file. Zeros that were written in the middle of packed
pixels are found while the file is hashed (`arrival`). docs/formats.md lists what cannot be seen.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

from cytowatch import durable
from cytowatch.formats.completeness import announced, ends, gaps, judging, raster, short
from cytowatch.formats.doubles import is_whole_slide
from cytowatch.formats.structure import jp2, netpbm, zip_end
from cytowatch.formats.structure.places import pread
from cytowatch.formats.structure.tiff import SUB_IFDS, Directory, Tiff, TiffError
from cytowatch.record.lacking import amount

__all__ = ["missing"]

_ZERO_LOOK = 4096
#: Chunk headers that are walked in a PNG, marker segments in a JPEG: more is not an honest file.
_MOST_CHUNKS = 1_000_000
#: Places in a JPEG with bytes between two segments.
_MOST_STRAYS = 100
#: How many tiles and strips are compared with the size of the file.
_MOST_SEGMENTS = 20_000_000
#: The offsets of strips, and of tiles.
_LISTS = frozenset({273, 324})
_TAIL = 1 << 16
#: TIFF compressions whose data neither begins nor ends with many zeros: CCITT group 4, LZW, JPEG,
#: deflate, JPEG 2000, LZMA, Zstandard, WebP, JPEG XL.
_NEVER_ZERO = frozenset({4, 5, 7, 8, 32946, 33003, 33005, 34712, 34925, 50000, 50001, 50002, 52546})
#: Values of up to this many bytes stand in the directory itself.
_INLINE_BYTES = 8
_LONGEST_VALUES = 64 << 20
#: Some writers round the length of a tile up.
_MOST_PADDING = 32
#: Tags whose values are never all zero: bits, offsets and lengths of strips and tiles, tables, the
#: offsets of levels, an ICC profile (which may well end with a hundred of them).
_NEVER_ALL_ZERO = (258, 273, 279, 324, 325, 330, 347, 34675)
#: Tags of text, which may be padded, but not with a whole page of zeros.
_TEXTS = (270, 700)


def missing(descriptor: int, size_bytes: int, *, late: bool = False) -> str | None:
    """What the file behind `descriptor` lacks, as a phrase; None when it is whole.

    With `late` nothing more is waited for: what a reader of every pixel can do without is not missing.

    Raises
    ------
    OSError
        It cannot be read.
    """
    if size_bytes == 0:
        return None
    head = pread(descriptor, _ZERO_LOOK, 0)
    if not head.strip(b"\0"):
        return "its content (still only zeros)"
    there = _written(descriptor, size_bytes)
    # A reader would find zeros where nothing was written.
    late = late and there == size_bytes
    lacking = _lacking(head, descriptor, there, late=late)
    if lacking is None and there < size_bytes and short.tar_mark(head) is not None:
        # What was written may end between two members, which looks like the end of the tar.
        lacking = short.tar(descriptor, size_bytes)
    if lacking is None:
        lacking = judging.judged(descriptor, there, gaps.holes(descriptor, there)).lacking
    if lacking is None:
        lacking = raster.lacking_end(descriptor, there)
    if there == size_bytes:
        return lacking
    if lacking is None and not _is_known(head):
        # Data files of a set do not state their length.
        lacking = "its end"
    # Its size looks right to anyone who sees it in a folder.
    set_before = f"its size was set, and nothing was written behind the first {there:,} bytes"
    return None if lacking is None else f"{lacking}; {set_before}"


def _is_known(head: bytes) -> bool:
    return any(head.startswith(magic) for magic, _ in _LOOKS) or bool(short.tar_mark(head))


def _lacking(head: bytes, descriptor: int, size_bytes: int, *, late: bool) -> str | None:
    if is_whole_slide(head):
        return ends.dicom(descriptor, size_bytes)
    # Before all others: a tar begins with the name of its first member, which may look like anything.
    if short.tar_mark(head) is not None:
        return short.tar(descriptor, size_bytes)
    for magic, look in _LOOKS:
        if head.startswith(magic):
            # Only a TIFF may state more than a reader needs.
            return (
                _tiff(descriptor, size_bytes, late=late)
                if look is _tiff
                else look(descriptor, size_bytes)
            )
    if head[128:132] == b"DICM":
        return ends.dicom(descriptor, size_bytes)
    if any(magic.startswith(head) for magic, _ in _LOOKS):
        return "all but its first bytes"
    return None


def _written(descriptor: int, size_bytes: int) -> int:
    """Where the written bytes end: before a hole that goes on to the end of the file.

    The size where there is none, and on a filesystem that makes holes of zeros by itself.
    """
    if not _is_hole(descriptor, size_bytes - 1) or not durable.leaves_holes(descriptor):
        return size_bytes
    written, hole = 0, size_bytes - 1
    while hole - written > 1:
        middle = (written + hole) // 2
        if _is_hole(descriptor, middle):
            hole = middle
        else:
            written = middle
    return hole


def _is_hole(descriptor: int, at: int) -> bool:
    """Whether nothing was written at `at` and behind it."""
    try:
        os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        return error.errno == errno.ENXIO
    return False


def _jpeg(descriptor: int, size_bytes: int) -> str | None:
    """Walk the marker segments to the first scan; the end must come after it (T.81, B.1.1)."""
    lacking = "the end of the image (JPEG EOI marker)"
    at, strays = 2, 0
    for _ in range(_MOST_CHUNKS):
        segment = pread(descriptor, 4, at)
        if len(segment) < 4:
            return lacking
        if not any(segment):
            # libjpeg skips stray bytes; zeros up to the end of the file are not stray bytes.
            tail = pread(descriptor, _ZERO_LOOK, max(at, size_bytes - _ZERO_LOOK))
            return None if any(tail) else lacking
        if segment[0] != 0xFF:
            # libjpeg skips these too.
            skipped = pread(descriptor, _TAIL, at).find(b"\xff")
            strays += 1
            if skipped < 0 or strays > _MOST_STRAYS:
                return None
            at += skipped
            continue
        marker, length = segment[1], struct.unpack(">H", segment[2:])[0]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xD9:
            return None
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
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
        if mark in pread(descriptor, end - begin, begin):
            return True
        if end - _TAIL <= size_bytes - 64 * _TAIL:
            return False
        end = begin + 1 if begin > least else least
    return False


def _png(descriptor: int, size_bytes: int) -> str | None:
    at = 8
    for _ in range(_MOST_CHUNKS):
        header = pread(descriptor, 8, at)
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


def _tiff(descriptor: int, size_bytes: int, *, late: bool = False) -> str | None:
    try:
        tiff = Tiff(descriptor, size_bytes)
    except TiffError as error:
        return f"its first directory ({error})"
    if tiff.broken:
        return tiff.broken
    if tiff.endless and not late:
        return "the last bytes of its last directory"
    lacking = announced.lacking(tiff)
    if lacking is not None:
        return lacking
    looked_at = 0
    slide = any(one.tiled for one in tiff.directories)
    for number, directory in enumerate([*tiff.directories, *tiff.sub_directories]):
        looked_at += max(
            (directory.tags[tag].count for tag in _LISTS & directory.tags.keys()), default=0
        )
        if looked_at > _MOST_SEGMENTS:
            # No honest slide has so many; its kind is found out later, where that may take its time.
            return None
        spare = slide and number > 0 and not directory.tiled
        lacking = _segments(directory, number, size_bytes, spare=spare, late=late)
        if lacking is not None:
            return lacking
    return None


def _segments(
    directory: Directory, number: int, size_bytes: int, *, spare: bool, late: bool
) -> str | None:
    """Which of its tags, tiles or strips are missing; a `spare` picture may be blank on purpose."""
    what = "tile" if directory.tiled else "strip"
    last = final = (0, 0)
    try:
        for tag in directory.tags.values():
            if tag.end > size_bytes:
                return f"the values of a tag of directory {number}"
        if _has_zeroed_tag(directory):
            return f"the values of a tag of directory {number} (still only zeros)"
        for index, (offset, count) in enumerate(directory.segments()):
            if offset + count > size_bytes:
                if late and not directory.tiled and offset < size_bytes:
                    # Some state too much: a reader finds out whether all rows are there.
                    continue
                return (
                    f"{what} {index} of directory {number} ({amount(size_bytes, offset + count)})"
                )
            final = (offset, count)
            last = max(last, final)
        counts = directory.tags.get(325 if directory.tiled else 279)
        # Some writers leave out the length of a single strip; readers take the rest of the file.
        listed = counts if counts is not None and counts.count > 1 else None
        if listed and final[0] and not final[1] and directory.tiff.is_zero_from(listed.end - 2):
            return f"the end of the list of {what}s of directory {number} (still only zeros)"
        if directory.number(259, 1) in _NEVER_ZERO and _is_packed_zero(directory, *last):
            if spare and gaps.is_blanked(directory.tiff.bytes, last[0], sum(last), size_bytes):
                # A label that was removed on purpose.
                return None
            return f"the content of a {what} of directory {number} (still only zeros)"
    except TiffError as error:
        return f"the list of {what}s of directory {number} ({error})"
    return None


def _has_zeroed_tag(directory: Directory) -> bool:
    """Whether values outside of the directory are zeros that go on to the end of the file."""
    for number in (*_NEVER_ALL_ZERO, *_TEXTS):
        tag = directory.tags.get(number)
        length = tag.end - tag.offset if tag is not None else 0
        if tag is None or not _INLINE_BYTES < length <= _LONGEST_VALUES:
            continue
        zeros = _ZERO_LOOK if number in _TEXTS else length
        if length >= zeros and _is_zeroed(directory, tag.end - zeros, zeros):
            return True
    levels = directory.numbers(SUB_IFDS)
    return any(levels) and not all(levels)


def _is_packed_zero(directory: Directory, offset: int, count: int) -> bool:
    """Whether packed pixels begin with zeros, or end with some that go on to the end of the file."""
    if count < 8:
        return False
    if not any(directory.tiff.bytes(offset, 8)):
        return True
    zeros = _MOST_PADDING
    return count > zeros and _is_zeroed(directory, offset + count - zeros, zeros)


def _is_zeroed(directory: Directory, offset: int, count: int) -> bool:
    """Whether nothing but zeros is there, and behind it."""
    tiff = directory.tiff
    return tiff.is_zero_from(offset) and not any(tiff.bytes(offset, count))


def _zip(descriptor: int, size_bytes: int) -> str | None:
    """The end record, which is written last, and the central directory that it names."""
    lacking = "the central directory of the zip"
    begin = max(0, size_bytes - _TAIL - zip_end.BYTES)
    tail = pread(descriptor, size_bytes - begin, begin)
    at = zip_end.last_end(tail)
    if at < 0:
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
    (b"ZISRAWFILE", short.czi),
    (jp2.MARK, short.jp2),
    (jp2.BEGIN, short.jpeg2000_codestream),
    (b"SIS\0", short.ets),
    *((b"P%d" % kind, netpbm.missing) for kind in range(1, 7)),
    (b"BM", short.bmp),
    (b"\x1f\x8b\x08", ends.tar_gz),
    (b"SQLite format 3\0", ends.sqlite),
    (b"GN\x02\0", ends.ngr),
    *((text, ends.index_file) for text in ends.INDEX_FILES),
)
