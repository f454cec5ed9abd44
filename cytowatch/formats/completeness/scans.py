"""The scans of a JPEG, and how many zeros in each of them can be flat pixels.

Source: ITU-T T.81, annexes B, C and F.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cytowatch.formats.completeness.parts import Part
from cytowatch.formats.structure.places import pread

__all__ = ["scans"]

_CHUNK_BYTES = 1 << 20
#: In an entropy-coded part FF is followed by 00 or by a restart; anything else is the next marker.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_MOST_SEGMENTS = 100_000


@dataclass(slots=True)
class _Coding:
    """What was read of a JPEG up to one of its scans.

    `zeros` is what only the code of zeros means in each table, and its length in bits: the first
    symbol has it (annex C). `frame` is the marker of the frame, `blocks` how many each component has.
    """

    zeros: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    frame: int = 0
    blocks: dict[int, int] = field(default_factory=dict)


def scans(descriptor: int, part: Part) -> Iterator[tuple[int, int, int]]:
    """(begin, end, most zeros that may be flat pixels) of each entropy-coded part of a JPEG, in bytes.

    A stream that cannot be walked counts as one that holds no zeros.
    """
    coding = _Coding()
    _read_tables(part.tables[2:], coding)
    at = part.begin + 2
    for _ in range(_MOST_SEGMENTS):
        head = pread(descriptor, 4, at)
        if at >= part.end or head[:2] == b"\xff\xd9":
            return
        if head[:1] != b"\xff" or len(head) < 4:
            yield at, part.end, 0
            return
        marker, length = head[1], struct.unpack(">H", head[2:])[0]
        if marker in {0xFF, 0x01} or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        body = pread(descriptor, length - 2, at + 4) if length > 2 else b""
        at += 2 + length
        if marker == 0xC4:
            _read_huffman(body, coding)
        elif 0xC0 <= marker <= 0xCF and marker != 0xCC:
            coding.frame = marker
            coding.blocks = _blocks(body, samples=marker == 0xC3)
        elif marker == 0xDA:
            end = _end_of_scan(descriptor, at, part.end)
            yield at, end, _most_flat(body, coding)
            at = end


def _read_tables(data: bytes, coding: _Coding) -> None:
    """The Huffman tables of an abbreviated stream, as TIFF keeps them."""
    at = 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xD9, 0xDA):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xC4:
            _read_huffman(data[at + 4 : at + 2 + length], coding)
        at += 2 + length


def _read_huffman(body: bytes, coding: _Coding) -> None:
    at = 0
    while at + 18 <= len(body):
        counts = body[at + 1 : at + 17]
        bits = next((number for number, count in enumerate(counts, 1) if count), 16)
        coding.zeros[body[at] >> 4, body[at] & 15] = (body[at + 17], bits)
        at += 17 + sum(counts)


def _blocks(body: bytes, *, samples: bool) -> dict[int, int]:
    """How many blocks, or samples, each component of a frame has at most."""
    if len(body) < 6:
        return {}
    height, width, count = struct.unpack_from(">HHB", body, 1)
    rows = [body[at : at + 3] for at in range(6, 6 + 3 * count, 3)]
    across = max((one[1] >> 4 for one in rows if len(one) == 3), default=1) or 1
    down = max((one[1] & 15 for one in rows if len(one) == 3), default=1) or 1
    side = 1 if samples else 8
    mcus = -(-width // (side * across)) * -(-(height or 65535) // (side * down))
    return {one[0]: mcus * (one[1] >> 4) * (one[1] & 15) for one in rows if len(one) == 3}


def _most_flat(header: bytes, coding: _Coding) -> int:
    """How many bytes of zeros a scan may hold: as many as make all of its blocks like the first ones."""
    count = header[0] if header else 0
    if len(header) < 4 + 2 * count:
        return 0
    start, _, approximation = header[1 + 2 * count : 4 + 2 * count]
    bits = 0
    for number in range(count):
        which, tables = header[1 + 2 * number], header[2 + 2 * number]
        dc = coding.zeros.get((0, tables >> 4), (1, 0))
        ac = coding.zeros.get((1, tables & 15), (1, 0))
        match coding.frame:
            case 0xC0 | 0xC1 if dc[0] == 0 and ac[0] == 0:
                each = dc[1] + ac[1]
            case 0xC2 if start == 0 and approximation >> 4:
                # A refinement has one bit per block.
                each = 1
            case 0xC2 if start == 0 and dc[0] == 0:
                each = dc[1]
            case 0xC3 if dc[0] == 0:
                each = dc[1]
            case 0xC2 if start and ac[0] & 15 == 0 and ac[0] < 0xF0:
                # An end of band; but 0xF0 is sixteen zeros.
                each = ac[1]
            case _:
                return 0
        bits += each * coding.blocks.get(which, 0)
    return bits // 8 + 1


def _end_of_scan(descriptor: int, at: int, end: int) -> int:
    while at < end:
        chunk = pread(descriptor, min(_CHUNK_BYTES, end - at), at)
        found = _MARKER.search(chunk)
        if found is not None:
            return at + found.start()
        if len(chunk) < 2:
            break
        # A marker may lie across two chunks.
        at += len(chunk) - 1 if at + len(chunk) < end else len(chunk)
    return end
