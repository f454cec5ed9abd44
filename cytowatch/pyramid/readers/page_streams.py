"""What the stream of a tile itself says of its colours or its size, where it knows better than the tags of its page.

A JPEG has marks of its own. A JPEG 2000 whose components were not transformed together, nor subsampled, is
YCbCr where its page states that, and where Aperio's number for YCbCr says so; else its decoder makes RGB of it.

Source: TIFF Technical Note 2; ISO/IEC 15444-1, A.6.1; https://openslide.org/formats/aperio/; Esri, LERC's Lerc2.h
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from cytowatch.formats.structure import jpeg
from cytowatch.formats.structure.places import bytes_at
from cytowatch.pyramid.contradicted import RGB, YCBCR, of_stream
from cytowatch.pyramid.readers.jp2_codestream import is_rgb_decoded

__all__ = ["JPEGS_2000", "LERC", "Own", "lerc_size", "own_colours"]

_JPEG = 7
JPEGS_2000 = frozenset({33003, 33004, 33005, 34712})
_YCBCR_OF_APERIO = 33003
LERC = 34887
#: The scan begins before, unless a profile is in the way.
_LONGEST_HEAD = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The `photometric` that the stream says in place of what is stated; `ycbcr` if its decoder leaves it as that."""

    photometric: int | None = None
    ycbcr: bool = False
    done: tuple[str, ...] = ()


def own_colours(page: Any, descriptor: int) -> Own:
    """What the first tile or strip of a page of tifffile says of its colours."""
    if page.compression in JPEGS_2000:
        # Its decoder enlarges chroma, and tifffile would refuse it.
        page.subsampling = (1, 1)
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    first = next(((at, count) for at, count in places if at and count), None)
    stated = int(page.photometric)
    is_contiguous = int(page.planarconfig or 1) == 1 and int(page.samplesperpixel) == 3
    if first is None or not is_contiguous or stated not in (RGB, YCBCR):
        return Own()
    head = bytes_at(descriptor, min(first[1], _LONGEST_HEAD), first[0])
    if page.compression == _JPEG:
        found = of_stream(jpeg.with_tables(head, page.jpegtables or b""), stated)
        if found is None:
            return Own()
        is_, said = ("YCbCr", "RGB") if found == YCBCR else ("RGB", "YCbCr")
        return Own(photometric=found, done=(f"its JPEG is {is_}, though it states {said}",))
    may_be = stated == YCBCR or page.compression == _YCBCR_OF_APERIO
    if page.compression not in JPEGS_2000 or not may_be:
        return Own()
    is_ycbcr = is_rgb_decoded(head) is False
    return Own(photometric=YCBCR if is_ycbcr else RGB, ycbcr=is_ycbcr)


def lerc_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a LERC blob; (0, 0) where it is packed once more, or not one."""
    try:
        [version] = struct.unpack_from("<i", data, 6)
        # A checksum came with the third version.
        height, width = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)
    except struct.error:
        return 0, 0
    return (width, height) if data.startswith(b"Lerc2 ") else (0, 0)
