"""Pictures that a file holds behind the one that becomes the pyramid, in formats that mostly hold one.

Source: PNG, third edition, 11.3.6 (acTL); CIPA DC-007 (Multi-Picture Format); the netpbm pages on streams of
images; ISO/IEC 15444-2, Annex M (several codestreams)
"""

from __future__ import annotations

import os
import re
import struct

from cytowatch.formats.structure import jp2, netpbm
from cytowatch.formats.structure.places import bytes_at
from cytowatch.formats.structure.tiff import Tiff, TiffError

__all__ = ["told"]

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_MPF = b"MPF\0"
#: ImageJ and MetaMorph write stacks as one page; SGI's tag has the depth of a volume.
_OF_IMAGEJ = re.compile(r"ImageJ=[^\n]*\nimages=(\d{1,9})\n")
_METAMORPH, _DEPTH = 33629, 32997
_MP_ENTRIES, _MP_ENTRY_BYTES = 0xB002, 16
#: Kinds of pictures that are smaller ones of the first: for a screen, and for another one.
_THUMBNAILS = range(0x010000, 0x020000)
_MOST_PARTS = 100_000


def told(path: str) -> list[str]:
    """That the file holds further pictures, as a line; empty if it holds none, or cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        count, what = _count(descriptor, os.fstat(descriptor).st_size)
    except struct.error:
        return []
    finally:
        os.close(descriptor)
    return (
        [f"it has {what if count < 1 else f'{count} {what}'}: the first one is the pyramid"]
        if what
        else []
    )


def _count(descriptor: int, size_bytes: int) -> tuple[int, str]:
    """(how many pictures there are or 0, what they are); nothing of a single one."""
    head = bytes_at(descriptor, 16, 0)
    count, what = 1, ""
    if head.startswith(_PNG):
        count, what = _animated(descriptor), "pictures of an animation"
    elif head.startswith(_JPEG):
        count, what = _multiple(descriptor), "pictures"
    elif head[:2] in (b"II", b"MM"):
        count, what = _stacked(descriptor, size_bytes), "planes"
    elif head.startswith(jp2.MARK):
        found = jp2.boxes(descriptor, size_bytes, most=_MOST_PARTS)
        count, what = sum(box.kind == jp2.CODESTREAM for box in found), "pictures"
    elif (end := netpbm.end(descriptor)) and bytes_at(descriptor, 1, end) == b"P":
        return (
            (0, "further pictures behind it")
            if netpbm.is_header(bytes_at(descriptor, 4096, end), kinds=b"123456")
            else (1, "")
        )
    return (count, what) if count > 1 else (1, "")


def _stacked(descriptor: int, size_bytes: int) -> int:
    """The planes of a TIFF that lie behind one another in its only directory, as no page of their own."""
    try:
        tiff = Tiff(descriptor, size_bytes)
        [page] = tiff.directories
        stated = _OF_IMAGEJ.match(page.text(270))
        of_metamorph = page.tags.get(_METAMORPH)
        return max(
            int(stated[1]) if stated else 1,
            of_metamorph.count if of_metamorph is not None else 1,
            page.number(_DEPTH, 1),
        )
    except (TiffError, ValueError):
        return 1


def _animated(descriptor: int) -> int:
    """The number of pictures that acTL states, which stands before the pixels."""
    at = len(_PNG)
    for _ in range(_MOST_PARTS):
        head = bytes_at(descriptor, 12, at)
        if len(head) < 12 or head[4:8] in (b"IDAT", b"IEND"):
            return 1
        if head[4:8] == b"acTL":
            return int.from_bytes(head[8:12])
        at += 12 + int.from_bytes(head[:4])
    return 1


def _multiple(descriptor: int) -> int:
    """The pictures that the index of a multi-picture file lists, without thumbnails."""
    at = 2
    for _ in range(_MOST_PARTS):
        head = bytes_at(descriptor, 8, at)
        if len(head) < 8 or head[0] != 0xFF or head[1] == 0xDA:
            return 1
        if head[1] == 0xFF:
            at += 1
            continue
        length = int.from_bytes(head[2:4])
        if head[1] == 0xE2 and head[4:] == _MPF:
            return _listed(bytes_at(descriptor, max(0, length - 6), at + 8))
        at += 2 + length
    return 1


def _listed(index: bytes) -> int:
    order = "<" if index[:2] == b"II" else ">"
    [at] = struct.unpack_from(f"{order}I", index, 4)
    [tags] = struct.unpack_from(f"{order}H", index, at)
    for entry in range(at + 2, at + 2 + 12 * tags, 12):
        number, _, length, place = struct.unpack_from(f"{order}HHII", index, entry)
        if number == _MP_ENTRIES:
            rows = range(place, place + length, _MP_ENTRY_BYTES)
            kinds = (struct.unpack_from(f"{order}I", index, row)[0] & 0xFFFFFF for row in rows)
            return sum(kind not in _THUMBNAILS for kind in kinds)
    return 1
