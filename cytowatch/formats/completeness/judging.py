"""What a gap in a file means, by where it lies: bytes that never came, or pixels that are black.

No rule of thumb is good enough: a white JPEG of 9 Mpx with tables of its own holds 53,000 zeros in a row, a
flat deflate 4,094, a lossless JPEG a million (tried). So the tables of the JPEG, the checksum of the
chunk and the number of packets decide; where even they cannot, a decoder does, and warns.

Source: ISO/IEC 15444-1, A.5, A.6 and B.10; RFC 1950 and 1951.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cytowatch.formats.completeness import parts, scans
from cytowatch.formats.completeness.gaps import LEAST_BYTES, Gap, is_blanked
from cytowatch.formats.completeness.parts import Packing, Part
from cytowatch.formats.structure import jp2
from cytowatch.formats.structure.places import pread

__all__ = ["Doubt", "Verdict", "judged"]

_CHUNK_BYTES = 1 << 20
#: Each is decoded; a slide may have any number of flat tiles.
_MOST_DOUBTS = 1000
#: More zeros than a JPEG-XR has of its own.
_LEAST_OF_JPEG_XR = 2048
#: The reference encoder keeps a block as it is unless it saves a 64th of its 128 KiB.
_LEAST_OF_ZSTD = 2304
#: What packs to no longer runs may begin or end with a few zeros: PackBits, LZW and CCITT do.
_MOST_AT_EDGE = 4
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A gap in a JPEG that may be flat pixels, `what` as a phrase: only a decoder can decide.

    The JPEG is bytes `begin` to `end` of the file, and needs `tables` that stand elsewhere; the scans
    with the gap end at `scans`.
    """

    what: str
    begin: int
    end: int
    scans: tuple[int, ...]
    tables: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a file lacks, as a phrase, or None; and which pictures beside the slide are blank."""

    lacking: str | None = None
    doubts: tuple[Doubt, ...] = ()
    blank: tuple[str, ...] = ()


def judged(
    descriptor: int,
    size_bytes: int,
    gaps: Sequence[Gap],
    known: Iterable[Part] | None = None,
) -> Verdict:
    """What `gaps` mean, which are in order and do not touch.

    `known` are the parts of a file that does not list them itself, as the data files of a set.

    Raises
    ------
    OSError
        It cannot be read.
    """
    if not gaps:
        return Verdict()
    found = parts.of_file(descriptor, size_bytes) if known is None else known
    if found is None:
        # The data give no hint: its own zeros look like bytes that never came, unless they are a hole.
        hole = next((gap for gap in gaps if gap.hole), None)
        return Verdict(lacking=str(hole) if hole is not None else None)
    begins = [gap.begin for gap in gaps]
    blank: list[str] = []
    doubts: list[Doubt] = []
    for part in found:
        doubtful: list[Gap] = []
        for gap in _inside(part, gaps, begins):
            if part.spare and _is_blank(descriptor, part, gap, size_bytes):
                blank.append(part.spare)
            elif _never_came(descriptor, part, gap):
                return Verdict(lacking=f"a part of {part.what} ({gap})")
            elif part.packing is Packing.JPEG:
                doubtful.append(gap)
        if doubtful and len(doubts) < _MOST_DOUBTS:
            doubts += _doubts(descriptor, part, doubtful)
    return Verdict(doubts=tuple(doubts), blank=tuple(dict.fromkeys(blank)))


def _doubts(descriptor: int, part: Part, gaps: list[Gap]) -> Iterator[Doubt]:
    """The gaps as one doubt, if they lie in scans: in a note or a profile any bytes may be zeros."""
    found = [
        (end, gap)
        for begin, end, _ in scans.scans(descriptor, part)
        for gap in gaps
        if begin < gap.end and gap.begin < end
    ]
    if found:
        # The others may be flat.
        longest = max((gap for _, gap in found), key=lambda gap: gap.end - gap.begin)
        yield Doubt(
            what=f"a part of {part.what} ({longest})",
            begin=part.begin,
            end=part.end,
            scans=tuple(dict.fromkeys(end for end, _ in found)),
            tables=part.tables,
        )


def _inside(part: Part, gaps: Sequence[Gap], begins: list[int]) -> Iterator[Gap]:
    """The parts of the gaps that lie in `part`."""
    number = max(0, bisect_right(begins, part.begin) - 1)
    while number < len(gaps) and gaps[number].begin < part.end:
        gap = gaps[number]
        begin, end = max(gap.begin, part.begin), min(gap.end, part.end)
        if begin < end:
            yield Gap(begin=begin, end=end, hole=gap.hole)
        number += 1


def _is_blank(descriptor: int, part: Part, gap: Gap, size_bytes: int) -> bool:
    """Whether the whole picture was blanked on purpose."""
    whole = gap.begin == part.begin and gap.end == part.end
    return (
        whole
        and not gap.hole
        and is_blanked(
            lambda at, count: pread(descriptor, count, at), gap.begin, gap.end, size_bytes
        )
    )


def _never_came(descriptor: int, part: Part, gap: Gap) -> bool:
    length = gap.end - gap.begin
    match part.packing:
        case Packing.PLAIN:
            return gap.hole
        case Packing.JPEG:
            return _in_jpeg(descriptor, part, gap)
        case Packing.JPEG_2000:
            return gap.hole or length > max(LEAST_BYTES, _packets(descriptor, part))
        case Packing.JPEG_XR:
            return gap.hole or length >= min(_LEAST_OF_JPEG_XR, part.end - part.begin)
        case Packing.ZLIB:
            return not _inflates(descriptor, part, 15)
        case Packing.DEFLATE:
            return not _inflates(descriptor, part, -15)
        case Packing.ZSTD:
            at_edge = _at_edge(part, gap) or _in_raw_block(descriptor, part, gap)
            return gap.hole or length >= _LEAST_OF_ZSTD or not at_edge
        case Packing.PNG_CHUNK:
            return not _has_checksum(descriptor, part)
        case _:
            return gap.hole or not _at_edge(part, gap)


def _at_edge(part: Part, gap: Gap) -> bool:
    """Whether a part may itself begin or end with these zeros, which go on outside of it as padding or as a palette."""
    return gap.end - gap.begin <= _MOST_AT_EDGE and part.end - part.begin > LEAST_BYTES


def _in_jpeg(descriptor: int, part: Part, gap: Gap) -> bool:
    """Whether the gap lies where no flat pixels can be, or not so many, in one of the scans."""
    for begin, end, most in scans.scans(descriptor, part):
        length = min(gap.end, end) - max(gap.begin, begin)
        if length > 0 and (gap.hole or length > most):
            return True
    return False


def _packets(descriptor: int, part: Part) -> int:
    """How many packets a tile of a codestream has at most; each may be one zero byte."""
    head = pread(descriptor, min(1 << 16, part.end - part.begin), part.begin)
    found, coded = jp2.siz(head), jp2.cod(head)
    if found is None or coded is None:
        return 0
    width, height = (
        min(tile, end - begin) + 1
        for tile, end, begin in zip(found.tile, found.size, found.offset, strict=True)
    )
    each = 0
    for step in range(min(coded.levels, 32) + 1):
        exponents = coded.precincts[step] if step < len(coded.precincts) else 0xFF
        shift = min(coded.levels, 32) - step
        across = (width >> shift >> (exponents & 15)) + 2
        each += across * ((height >> shift >> (exponents >> 4)) + 2)
    return int(each * coded.layers * found.samples)


def _inflates(descriptor: int, part: Part, wbits: int) -> bool:
    """Whether the part unpacks to an end, with the checksum that zlib adds; what follows is padding."""
    unpacker = zlib.decompressobj(wbits)
    for at in range(part.begin, part.end, _CHUNK_BYTES):
        data = pread(descriptor, min(_CHUNK_BYTES, part.end - at), at)
        try:
            while data and not unpacker.eof:
                unpacker.decompress(data, _CHUNK_BYTES)
                data = unpacker.unconsumed_tail
        except zlib.error:
            return False
        if unpacker.eof:
            return True
    return False


def _in_raw_block(descriptor: int, part: Part, gap: Gap) -> bool:
    """Whether the gap touches a block of Zstandard that is kept as it was (RFC 8878, 3.1.1)."""
    head = pread(descriptor, 64, part.begin)
    frame = head.find(_ZSTD)
    if frame < 0 or frame + 5 > len(head):
        return False
    flags = head[frame + 4]
    single = bool(flags & 0x20)
    size_bytes = (int(single), 2, 4, 8)[flags >> 6]
    at = part.begin + frame + 5 + (not single) + (0, 1, 2, 4)[flags & 3] + size_bytes
    while at + 3 <= part.end:
        block = int.from_bytes(pread(descriptor, 3, at), "little")
        end = at + 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block >> 1 & 3 == 0 and at < gap.end and gap.begin < end:
            return True
        if block & 1:
            break
        at = end
    return False


def _has_checksum(descriptor: int, part: Part) -> bool:
    """Whether a chunk of a PNG has the checksum that stands behind it."""
    found = 0
    for at in range(part.begin + 4, part.end - 4, _CHUNK_BYTES):
        found = zlib.crc32(pread(descriptor, min(_CHUNK_BYTES, part.end - 4 - at), at), found)
    return pread(descriptor, 4, part.end - 4) == found.to_bytes(4, "big")
