"""A tile of a TIFF as a JPEG of its own: its bytes as they are, with the tables and the colours before them.

Nothing is decoded. A tile of a TIFF leaves out what its directory states: the tables (tag 347) and
whether its samples are RGB or YCbCr (tag 262). Viewers that know no TIFF need both in the stream.

Source: TIFF Technical Note 2; ITU-T T.81, annex B; the Adobe marker as libjpeg reads it (Adobe TN 5116).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["GREY", "RGB", "YCBCR", "Like", "NotPlainError", "leading", "standing"]

#: PhotometricInterpretation.
GREY, RGB, YCBCR = 1, 2, 6
_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
#: JFIF's mark means YCbCr, Adobe's says which: of both the directory of the TIFF knows better.
_OF_COLOURS = frozenset({0xE0, 0xEE})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Baseline, extended and progressive, with Huffman codes: what every browser reads.
_SHOWN = frozenset({0xC0, 0xC1, 0xC2})
#: Markers without a length, which no writer puts before a scan.
_ALONE = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xDA)})
#: Adobe's segment, up to the byte that names the transform.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


class NotPlainError(ValueError):
    """The stream cannot stand alone, or is not what its directory says: it has to be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Like:
    """What every tile of a level is: its size in pixels, its samples, and PhotometricInterpretation."""

    width: int
    height: int
    samples: int
    photometric: int


def leading(tables: bytes, photometric: int) -> bytes:
    """What stands before each tile of a level; `tables` is its directory's tag 347, which may be empty.

    Raises
    ------
    NotPlainError
        The tables are not a JPEG.
    """
    colours = b"" if photometric == GREY else _ADOBE + bytes([photometric == YCBCR])
    if not tables:
        return _BEGIN + colours
    data = tables.rstrip(b"\0").removesuffix(_END)
    kept, at = [], len(_BEGIN)
    if data[:2] != _BEGIN:
        raise NotPlainError("its tables are not a JPEG")
    while at < len(data):
        marker, end = _segment(data, at)
        if marker in _FRAMES or marker == _SCAN:
            raise NotPlainError("its tables have an image in them")
        if marker not in _OF_COLOURS:
            kept.append(data[at:end])
        at = end
    return _BEGIN + colours + b"".join(kept)


def standing(tile: bytes, lead: bytes, like: Like) -> bytes:
    """`tile` as a JPEG of its own; `lead` is what `leading` gave for its level.

    Raises
    ------
    NotPlainError
        It is not a JPEG, has another size than its directory says, or is of a kind that browsers do not read.

    Examples
    --------
    >>> standing(b"GIF89a", leading(b"", RGB), Like(width=8, height=8, samples=3, photometric=RGB))
    Traceback (most recent call last):
    ...
    cytowatch.panel.pixels.jpegs.NotPlainError: no JPEG
    """
    if tile[:2] != _BEGIN:
        raise NotPlainError("no JPEG")
    kept, at, begin, framed = [lead], len(_BEGIN), len(_BEGIN), False
    while True:
        marker, end = _segment(tile, at)
        if marker == _SCAN:
            break
        if marker in _OF_COLOURS:
            kept.append(tile[begin:at])
            begin = end
        elif marker in _FRAMES:
            if framed or marker not in _SHOWN or not _is_like(tile[at + 4 : end], like):
                raise NotPlainError("another image than its directory says")
            framed = True
        at = end
    if not framed:
        raise NotPlainError("a JPEG without a frame")
    kept.append(tile[begin:])
    return b"".join(kept)


def _segment(data: bytes, at: int) -> tuple[int, int]:
    """(marker, where it ends) of the segment at `at`."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] in _ALONE:
        raise NotPlainError("a damaged JPEG")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
    if end > len(data) or end < at + 4:
        raise NotPlainError("a damaged JPEG")
    return data[at + 1], end


def _is_like(frame: bytes, like: Like) -> bool:
    if len(frame) < 6:
        return False
    return struct.unpack_from(">BHHB", frame) == (8, like.height, like.width, like.samples)
