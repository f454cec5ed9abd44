"""What a JPEG states before its pixels begin.

Source: ITU-T T.81, annex B; JFIF 1.02; the Adobe marker as libjpeg reads it (Adobe TN 5116);
ITU-T T.832, annex A, for JPEG XR.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "TABLES",
    "Frame",
    "Head",
    "bare",
    "frame",
    "head",
    "height",
    "is_ycbcr",
    "precision",
    "segments",
    "size",
    "with_tables",
    "xr_is_cut",
]

#: The markers of quantisation and Huffman tables.
TABLES = frozenset({0xDB, 0xC4})
_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"
_JFIF, _ADOBE, _SCAN = 0xE0, 0xEE, 0xDA
#: The first of the notes of applications, and the last marker behind them.
_APPLICATIONS, _COMMENT = 0xE0, 0xFE
#: Frames with Huffman codes in one scan; progressive, lossless and arithmetic ones have others.
_SEQUENTIAL = frozenset({0xC0, 0xC1})
#: Markers without a length, which no writer puts here, and the byte that fills.
_ALONE = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xDA)})
#: Any other marker.
_WITH_LENGTH = re.compile(rb"\xff[^\x00\x01\xd0-\xd9\xff]")
#: IMAGE_OFFSET and IMAGE_BYTE_COUNT in the directory of a JPEG XR.
_XR_OFFSET, _XR_COUNT = 0xBCC0, 0xBCC1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Before a frame; a real one has ten.
_MOST_SEGMENTS = 100


class Frame(NamedTuple):
    """What the header of a picture states: its size in pixels, its samples, and their bits."""

    width: int
    height: int
    samples: int
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Size in pixels, samples, and how colours are stored.

    `sampling` is the share of chroma, (across, down): (2, 2) is 4:2:0. `ids` are the names of its
    components. `adobe` is the transform that an Adobe marker names: 0 for none, 1 for YCbCr; None
    without such a marker.
    """

    width: int
    height: int
    samples: int
    sampling: tuple[int, int]
    ids: bytes
    jfif: bool
    adobe: int | None


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, where it begins, where it ends) of each segment up to the scan.

    Raises
    ------
    ValueError
        It is not a JPEG, or ends before its scan.
    """
    if data[:2] != _BEGIN:
        raise ValueError("no JPEG")
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SCAN:
            return
        if marker in _ALONE:
            break
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        yield marker, at, end
        at = end
    raise ValueError("a JPEG without a scan")


def precision(data: bytes) -> int:
    """How many bits its samples have.

    Raises
    ------
    ValueError
        It is not a JPEG, or a damaged one.
    """
    for marker, at, end in segments(data):
        if marker in _FRAMES and end > at + 4:
            return data[at + 4]
    raise ValueError("a JPEG without a frame")


def head(data: bytes) -> Head | None:
    """The head of a sequential JPEG of 8 bits with one or three samples; None for any other.

    None as well where JFIF's mark is not the first: some libraries look for it there only.

    Raises
    ------
    ValueError
        It is not a JPEG, or a damaged one.
    """
    frame, jfif, adobe = b"", False, None
    for marker, at, end in segments(data):
        body = data[at + 4 : end]
        if marker == _JFIF and body.startswith(b"JFIF\0"):
            if at != len(_BEGIN):
                return None
            jfif = True
        elif marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        elif marker in _FRAMES:
            if marker not in _SEQUENTIAL:
                return None
            frame = body
    if len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:
        raise ValueError("a JPEG without a frame")
    bits, height, width, samples = struct.unpack_from(">BHHB", frame)
    factors = [(part >> 4, part & 15) for part in frame[7 : 6 + 3 * samples : 3]]
    if bits != 8 or samples not in (1, 3):
        return None
    # A single sample has no chroma, no matter what its factors say.
    sampling = factors[0] if samples == 3 else (1, 1)
    if samples == 3 and factors[1:] != [(1, 1), (1, 1)]:
        return None
    return Head(
        width=width,
        height=height,
        samples=samples,
        sampling=sampling,
        ids=frame[6 : 6 + 3 * samples : 3],
        jfif=jfif,
        adobe=adobe,
    )


def is_ycbcr(data: bytes, *, stated: bool) -> bool | None:
    """Whether its colours are YCbCr, as its markers tell and libjpeg reads them; None if unknown.

    Without any marker it is what is `stated` of it elsewhere, unless its chroma is subsampled: RGB never is.
    """
    try:
        found = head(data)
    except (ValueError, struct.error):
        return None
    if found is None or found.samples != 3:
        return None
    if found.jfif and found.adobe == 0:
        # The two marks contradict each other.
        return None
    if found.jfif or found.adobe is not None:
        return found.adobe != 0
    if found.ids == b"RGB":
        return False
    return found.sampling != (1, 1) or stated


def height(data: bytes) -> int:
    """Rows of pixels as the frame states them; 0 where there is none."""
    try:
        frame = next(at for marker, at, _ in segments(data) if marker in _FRAMES)
        return int(struct.unpack_from(">H", data, frame + 5)[0])
    except (ValueError, StopIteration, struct.error):
        return 0


def frame(data: bytes) -> tuple[Frame, int] | None:
    """What the frame states, and where it ends; None where `data` ends before that, or is not a JPEG."""
    try:
        for marker, at, end in itertools.islice(segments(data), _MOST_SEGMENTS):
            if marker in _FRAMES and at + 10 <= end <= len(data):
                bits, height, width, samples = struct.unpack_from(">BHHB", data, at + 4)
                return Frame(width, height, samples, bits), end
    except (ValueError, struct.error):
        pass
    return None


def size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the frame states them; None where `data` ends before it, or is not a JPEG."""
    found = frame(data)
    return found[0][:2] if found is not None else None


def bare(data: bytes) -> bytes | None:
    """The same picture without anything that libjpeg only complains of: its first complaint hides all others.

    These are bytes between the segments, the notes of applications (an unknown revision of JFIF, or transform
    of Adobe), and numbers in the head of a scan that mean something in progressive ones only. None without a
    scan.
    """
    kept = [_BEGIN]
    at, sequential = len(_BEGIN), False
    # As `next_marker` of libjpeg does; stray bytes may be as many as the file has.
    while (found := _WITH_LENGTH.search(data, at)) is not None and found.end() + 2 <= len(data):
        at, marker = found.start(), data[found.start() + 1]
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker == _SCAN:
            head = bytearray(data[at:end])
            if sequential and len(head) >= 8:
                head[-3:] = b"\0\x3f\0"
            return b"".join((*kept, head, data[end:]))
        sequential = sequential or marker in _SEQUENTIAL
        if not _APPLICATIONS <= marker <= _COMMENT:
            kept.append(data[at:end])
        at = end
    return None


def with_tables(data: bytes, tables: bytes) -> bytes:
    """An abbreviated stream and the tables that its TIFF has for it (tag 347) as one."""
    shared = tables.rstrip(b"\0").removesuffix(_END)
    return shared + data[len(_BEGIN) :] if shared else data


def xr_is_cut(data: bytes) -> bool:
    """Whether a JPEG XR ends before its own directory says it does; its decoder does not mind."""
    try:
        [at] = struct.unpack_from("<I", data, 4)
        [entries] = struct.unpack_from("<H", data, at)
        fields = (struct.unpack_from("<HHII", data, at + 2 + 12 * n) for n in range(entries))
        values = {tag: value for tag, _, _, value in fields}
    except struct.error:
        return True
    return int(values.get(_XR_OFFSET, 0)) + int(values.get(_XR_COUNT, 0)) > len(data)
