"""Which way a JPEG or PNG must be turned, as its Exif says, or else its XMP.

libvips only asks Exif, and of a PNG only what comes before its pixels. A JPEG 2000 may have both as well, in boxes
that no standard knows: exiftool and exiv2 write and list them, but Pillow 13, GDAL 3.10, OpenCV 5, OpenJPEG, imagecodecs and iipsrv
show its pixels as they are stored.

Source: CIPA DC-008 (Exif) 4.6; PNG, third edition, 11.3.4.5 (eXIf); Adobe, XMP part 3 (storage in files);
ImageMagick, "Raw profile type" in text chunks of PNG; exiftool, Jpeg2000.pm; github.com/ruven/iipsrv/issues/147.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator

from cytowatch.formats.structure import jp2
from cytowatch.formats.structure.places import bytes_at

__all__ = ["of_file", "of_jp2"]

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW = (b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp")
#: The boxes of a JPEG 2000 for Exif, as exiftool and as Adobe call them, and for XMP.
_EXIF_BOXES = (b"JpgTiffExif->JP2", bytes.fromhex("0537cdab9d0c4431a72afa561f2a113e"))
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
#: Chunks or segments that are walked, and bytes of one that are read or unpacked.
_MOST_PARTS = 1_000_000
_MOST_BYTES = 4 << 20
_ORIENTATION = 274
#: As an attribute or as an element.
_IN_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']\s*|>\s*)([1-8])\s*[\"'<]")
#: Types of TIFF: a whole number of 16 or 32 bits.
_WHOLE = {3: "H", 4: "I"}


def of_file(path: str) -> int | None:
    """1 to 8 as in TIFF and Exif; None where the file says nothing, or is neither JPEG nor PNG."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(descriptor, 8, 0)
        if head == _PNG:
            said = list(_of_png(descriptor))
        elif head.startswith(_JPEG):
            said = list(_of_jpeg(descriptor))
        else:
            return None
    finally:
        os.close(descriptor)
    return _stated(said)


def of_jp2(descriptor: int) -> int | None:
    """The same of a JPEG 2000, which other programs show as it is stored."""
    return _stated(list(_of_jp2(descriptor)))


def _stated(said: list[bytes]) -> int | None:
    exif = (_in_exif(data.removeprefix(_EXIF)) for data in said if not _is_xmp(data))
    xmp = (_in_xmp(data) for data in said if _is_xmp(data))
    return next((one for one in (*exif, *xmp) if one is not None), None)


def _of_jpeg(descriptor: int) -> Iterator[bytes]:
    """The content of each APP1 before the first scan."""
    at = 2
    for _ in range(_MOST_PARTS):
        head = os.pread(descriptor, 4, at)
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:
            return
        if head[1] == 0xFF:
            at += 1
            continue
        length = int.from_bytes(head[2:])
        if head[1] == 0xE1:
            data = os.pread(descriptor, max(0, length - 2), at + 4)
            if data.startswith((_EXIF, _XMP)):
                yield data
        at += 2 + length


def _of_jp2(descriptor: int) -> Iterator[bytes]:
    """What the boxes for Exif and XMP hold, before the codestream and behind it."""
    for box in jp2.boxes(descriptor, os.fstat(descriptor).st_size):
        if box.kind != b"uuid":
            continue
        data = bytes_at(descriptor, min(box.end - box.begin, _MOST_BYTES), box.begin)
        if data.startswith(_EXIF_BOXES):
            # Some writers put JPEG's mark before it.
            yield data[16:].removeprefix(_EXIF).removeprefix(b"EXIF\0\0")
        elif data.startswith(_XMP_BOX):
            yield _XMP + data[16:]


def _of_png(descriptor: int) -> Iterator[bytes]:
    """What eXIf holds, and the texts that hold Exif or XMP; before the pixels and behind them."""
    at = 8
    for _ in range(_MOST_PARTS):
        head = os.pread(descriptor, 8, at)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4])
        if head[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt") and length <= _MOST_BYTES:
            data = os.pread(descriptor, length, at + 8)
            found = data if head[4:] == b"eXIf" else _text(head[4:], data)
            if found is not None:
                yield found
        at += 12 + length


def _text(kind: bytes, data: bytes) -> bytes | None:
    """Exif or XMP out of a text chunk; None for any other text."""
    keyword, _, rest = data.partition(b"\0")
    try:
        if kind == b"iTXt" and keyword == _XMP_KEYWORD:
            packed = rest[:1] == b"\1"
            text = rest[2:].split(b"\0", 2)[2]
            return _XMP + (_unpacked(text) if packed else text)
        if kind in (b"tEXt", b"zTXt") and keyword in _RAW:
            # A name, a length and the bytes as hexadecimal digits, each on lines of their own.
            text = _unpacked(rest[1:]) if kind == b"zTXt" else rest
            found = bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
            return _XMP + found if keyword.endswith(b"xmp") else found
    except (IndexError, ValueError, zlib.error):
        pass
    return None


def _unpacked(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MOST_BYTES)


def _is_xmp(data: bytes) -> bool:
    return data.startswith(_XMP)


def _in_xmp(data: bytes) -> int | None:
    found = _IN_XMP.search(data)
    return int(found[1]) if found else None


def _in_exif(data: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        [at] = struct.unpack_from(f"{order}I", data, 4)
        [count] = struct.unpack_from(f"{order}H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            number, kind, values = struct.unpack_from(f"{order}HHI", data, entry)
            if number == _ORIENTATION and kind in _WHOLE and values == 1:
                [value] = struct.unpack_from(f"{order}{_WHOLE[kind]}", data, entry + 8)
                return int(value) if value in range(1, 9) else None
    except struct.error:
        pass
    return None
