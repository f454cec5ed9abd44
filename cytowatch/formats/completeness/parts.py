"""Where each part of a file lies, and how its bytes are packed: structure only, never a pixel.

Asked only where a file has a gap, so it may take its time. What is in no part (padding, room that a
writer reserved) may hold anything.

Source: TIFF 6.0; ISO/IEC 15948 (PNG); ISO/IEC 15444-1 (JPEG 2000); Zeiss, ZISRAW (CZI) 1.2; DICOM
PS3.5, annex A.4; PKWARE APPNOTE 6.3.10; the ETS container as Bio-Formats reads it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from cytowatch.formats.completeness.raster import bmp_rows
from cytowatch.formats.structure import czi, jp2, netpbm
from cytowatch.formats.structure.places import pread
from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError

__all__ = ["Packing", "Part", "is_plain", "of_file", "packing_of"]

_MOST_PARTS = 1_000_000
_MOST_BOXES = 10_000


class Packing(Enum):
    """How the bytes of a part are packed, as far as it decides which zeros may be in it."""

    PLAIN = "plain"  #: Zeros are black pixels, or anything that the part holds.
    JPEG = "jpeg"  #: A JPEG stream: its tables say whether zeros can be flat pixels.
    JPEG_2000 = "jpeg2000"  #: A codestream: an empty packet is one zero byte.
    ZLIB = "zlib"  #: Zeros may be a stored block or a flat area; the checksum decides.
    DEFLATE = "deflate"  #: The same without the header of zlib and its checksum.
    PNG_CHUNK = "png-chunk"  #: A chunk with its checksum.
    ZSTD = "zstd"  #: A block that does not pack well may hold up to 2 KiB of zeros.
    JPEG_XR = "jpeg-xr"  #: Flat pixels behind others give half a KiB of zeros (tried).
    NEVER = "never"  #: None of these holds so many zeros: text, LZW, LZMA, WebP, JPEG XL, CCITT, PackBits.


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes `begin` to `end` hold `what`.

    `tables` are the JPEG tables that stand elsewhere; `spare` is the name of a label or an overview,
    without which the slide is whole.
    """

    begin: int
    end: int
    what: str
    packing: Packing
    tables: bytes = b""
    spare: str | None = None


#: TIFF compressions; what is missing here is not judged.
_BY_COMPRESSION = {
    1: Packing.PLAIN,
    **dict.fromkeys((2, 3, 4, 5, 32773, 34925, 34887, 50001, 50002, 52546), Packing.NEVER),
    **dict.fromkeys((6, 7, 34892), Packing.JPEG),
    **dict.fromkeys((8, 32946), Packing.ZLIB),
    **dict.fromkeys((33003, 33004, 33005, 34712), Packing.JPEG_2000),
    50000: Packing.ZSTD,
    34926: Packing.ZSTD,
    22610: Packing.JPEG_XR,
    34934: Packing.JPEG_XR,
}
#: By how a transfer syntax of DICOM begins: JPEG, JPEG 2000, JPEG-LS and run lengths.
_BY_SYNTAX = (
    (b"1.2.840.10008.1.2.4.5", Packing.JPEG),
    (b"1.2.840.10008.1.2.4.9", Packing.JPEG_2000),
    (b"1.2.840.10008.1.2.4.8", Packing.NEVER),
    (b"1.2.840.10008.1.2.5", Packing.NEVER),
)
_BY_ETS = {0: Packing.PLAIN, 2: Packing.JPEG, 3: Packing.JPEG_2000, 5: Packing.JPEG}
_JPEG_TABLES = 347


def packing_of(directory: Directory) -> Packing | None:
    """How the tiles or strips of a TIFF's directory are packed; None if it is not known here."""
    return _BY_COMPRESSION.get(directory.number(259, 1))


def is_plain(descriptor: int, size_bytes: int) -> bool:
    """Whether nothing in it is packed, as far as it is known: then zeros say nothing."""
    head = pread(descriptor, 4, 0)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        try:
            tiff = Tiff(descriptor, size_bytes)
            pages = [*tiff.directories, *tiff.sub_directories]
            return all(packing_of(one) in (Packing.PLAIN, None) for one in pages)
        except TiffError:
            return False
    return head.startswith(b"BM") or head[:2] in (b"P4", b"P5", b"P6")


def of_file(descriptor: int, size_bytes: int) -> Iterator[Part] | None:
    """Every part of the file behind `descriptor`; None for a file that is not known here."""
    head = pread(descriptor, 256, 0)
    for magic, look in _LOOKS:
        if head.startswith(magic):
            return look(descriptor, size_bytes)
    if head[128:132] == b"DICM":
        return _dicom(descriptor, size_bytes)
    return None


def _tiff(descriptor: int, size_bytes: int) -> Iterator[Part]:
    try:
        tiff = Tiff(descriptor, size_bytes)
        slide = any(one.tiled for one in tiff.directories)
        for number, directory in enumerate([*tiff.directories, *tiff.sub_directories]):
            yield from _of_directory(directory, number, slide=slide)
    except TiffError:
        return


def _of_directory(directory: Directory, number: int, *, slide: bool) -> Iterator[Part]:
    for name, values in directory.tags.items():
        if values.end - values.offset > 8:
            what = f"the values of tag {name} of directory {number}"
            yield Part(begin=values.offset, end=values.end, what=what, packing=Packing.PLAIN)
    packing = packing_of(directory)
    tables = b""
    if packing is Packing.JPEG and _JPEG_TABLES in directory.tags:
        tag = directory.tags[_JPEG_TABLES]
        tables = directory.tiff.bytes(tag.offset, min(tag.count, 1 << 16))
    kind = "tile" if directory.tiled else "strip"
    spare = _picture(directory) if slide and number and not directory.tiled else None
    for index, (begin, count) in enumerate(directory.segments()):
        if begin and count:
            yield Part(
                begin=begin,
                end=begin + count,
                what=f"{kind} {index} of directory {number}",
                packing=packing or Packing.PLAIN,
                tables=tables,
                spare=spare,
            )


def _picture(directory: Directory) -> str:
    about = directory.text(270).lower()
    return next((name for name in ("label", "macro") if name in about), "label or overview")


def _whole(packing: Packing, what: str) -> Callable[[int, int], Iterator[Part]]:
    def look(_descriptor: int, size_bytes: int) -> Iterator[Part]:
        yield Part(begin=0, end=size_bytes, what=what, packing=packing)

    return look


def _png(descriptor: int, size_bytes: int) -> Iterator[Part]:
    at = 8
    for _ in range(_MOST_PARTS):
        header = pread(descriptor, 8, at)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header)
        if not kind.isalpha():
            # Where a chunk should begin.
            yield Part(begin=at, end=size_bytes, what="a chunk", packing=Packing.NEVER)
            return
        what = f"the chunk {kind.decode()} at {at:,}"
        yield Part(begin=at, end=at + 12 + length, what=what, packing=Packing.PNG_CHUNK)
        at += 12 + length
        if kind == b"IEND":
            return


def _jp2(descriptor: int, size_bytes: int) -> Iterator[Part]:
    for box in jp2.boxes(descriptor, size_bytes, most=_MOST_BOXES):
        if box.kind == jp2.CODESTREAM:
            end = min(box.end, size_bytes)
            yield Part(begin=box.begin, end=end, what="its codestream", packing=Packing.JPEG_2000)
            return


def _czi(descriptor: int, size_bytes: int) -> Iterator[Part]:
    kinds = {
        0: Packing.PLAIN, 1: Packing.JPEG, 2: Packing.NEVER, 4: Packing.JPEG_XR,
        5: Packing.ZSTD, 6: Packing.ZSTD,
    }  # fmt: skip
    for number, block in enumerate(czi.blocks(descriptor, size_bytes)):
        what = f"image {number}"
        # Its name is the first thing in it.
        yield Part(begin=block.at, end=block.at + 16, what=what, packing=Packing.NEVER)
        packing = kinds.get(block.compression, Packing.PLAIN)
        yield Part(begin=block.begin, end=block.end, what=what, packing=packing)
    for begin, end in czi.texts(descriptor, size_bytes):
        yield Part(begin=begin, end=end, what="its metadata", packing=Packing.NEVER)


def _ets(descriptor: int, size_bytes: int) -> Iterator[Part]:
    head = pread(descriptor, 64, 0).ljust(64, b"\0")
    axes, inner_at = struct.unpack_from("<II", head, 12)
    where, count = struct.unpack_from("<QI", head, 32)
    inner = pread(descriptor, 24, inner_at)
    packing = _BY_ETS.get(inner[20], Packing.PLAIN) if len(inner) > 20 else Packing.PLAIN
    entry = 20 + 4 * axes
    if not 0 < axes < 16 or where + count * entry > size_bytes:
        return
    what = "the list of its tiles"
    # The first tile is at 0, 0, which black pixels before the list would go on into; four zeros end the last.
    begin, end = where + 4 + 4 * axes, where + count * entry - 4
    yield Part(begin=begin, end=end, what=what, packing=Packing.NEVER)
    for number in range(count):
        listed = pread(descriptor, entry, where + number * entry)
        offset, length = struct.unpack_from("<QI", listed, 4 + 4 * axes)
        if length:
            what = f"tile {number}"
            yield Part(begin=offset, end=offset + length, what=what, packing=packing)


def _zip(descriptor: int, size_bytes: int) -> Iterator[Part]:
    """The members: what is stored may hold zeros, and has a checksum that unpacking compares."""
    import zipfile

    with os.fdopen(os.dup(descriptor), "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
            return
    for one in members:
        local = pread(descriptor, 30, one.header_offset)
        if len(local) < 30 or not local.startswith(b"PK\x03\x04"):
            what = "the header of a member"
            end = one.header_offset + 30
            yield Part(begin=one.header_offset, end=end, what=what, packing=Packing.NEVER)
            continue
        begin = one.header_offset + 30 + sum(struct.unpack_from("<HH", local, 26))
        packing = Packing.DEFLATE if one.compress_type == zipfile.ZIP_DEFLATED else Packing.PLAIN
        end = begin + one.compress_size
        yield Part(begin=begin, end=end, what="a member of the zip", packing=packing)


def _dicom(descriptor: int, size_bytes: int) -> Iterator[Part]:
    """The fragments of packed pixels; what is not packed is one part."""
    head = pread(descriptor, 16 << 20, 0)
    at = head.find(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff")
    if at < 0:
        yield Part(begin=132, end=size_bytes, what="its content", packing=Packing.PLAIN)
        return
    packing = next((one for mark, one in _BY_SYNTAX if mark in head[:1024]), Packing.PLAIN)
    at += 12
    for number in range(-1, 10 * _MOST_PARTS):
        item = pread(descriptor, 8, at)
        if not item.startswith(b"\xfe\xff\x00\xe0") or len(item) < 8:
            if not item.startswith(b"\xfe\xff\xdd\xe0"):
                yield Part(begin=at, end=at + 8, what="a frame", packing=Packing.NEVER)
            return
        [length] = struct.unpack_from("<I", item, 4)
        # The first is the table of offsets.
        if number >= 0 and length:
            what = f"frame {number}"
            yield Part(begin=at + 8, end=at + 8 + length, what=what, packing=packing)
        at += 8 + length


def _bmp(descriptor: int, size_bytes: int) -> Iterator[Part]:
    rows = bmp_rows(descriptor)
    begin = rows.begin if rows is not None else 0
    yield Part(begin=begin, end=size_bytes, what="its pixels", packing=Packing.PLAIN)


def _pnm(descriptor: int, size_bytes: int) -> Iterator[Part]:
    plain = pread(descriptor, 2, 0) in (b"P1", b"P2", b"P3")
    begin = 0 if plain else netpbm.begin(descriptor)
    packing = Packing.NEVER if plain else Packing.PLAIN
    yield Part(begin=begin, end=size_bytes, what="its pixels", packing=packing)


_LOOKS: tuple[tuple[bytes, Callable[[int, int], Iterator[Part]]], ...] = (
    (b"\xff\xd8\xff", _whole(Packing.JPEG, "its pixels")),
    (b"\x89PNG\r\n\x1a\n", _png),
    *((magic, _tiff) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"PK\x03\x04", _zip),
    (b"ZISRAWFILE", _czi),
    (jp2.MARK, _jp2),
    (jp2.BEGIN, _whole(Packing.JPEG_2000, "its codestream")),
    (b"SIS\0", _ets),
    *((b"P%d" % kind, _pnm) for kind in range(1, 7)),
    (b"BM", _bmp),
    (b"[", _whole(Packing.NEVER, "its text")),
    (b"\xef\xbb\xbf[", _whole(Packing.NEVER, "its text")),
)
