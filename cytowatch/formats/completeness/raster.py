"""Pixels that are not packed, and the trace that a cut leaves in them: zeros from inside of a row to the end.

A cut copy that is filled up with zeros goes on from the middle of one row, while the row before it
is bright beyond that column: no honest picture ends in such a step. Where the cut falls on the first
pixels of a row, or the picture is black there anyway, nothing tells it from black pixels.

Source: found out by trying; Microsoft, Bitmap Storage; TIFF 6.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from cytowatch.formats.completeness.gaps import LEAST_BYTES
from cytowatch.formats.structure import bmp, netpbm
from cytowatch.formats.structure.dicom import unpacked
from cytowatch.formats.structure.places import pread
from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError

__all__ = ["Rows", "bmp_rows", "lacking_end"]

#: How many bytes of the row before are compared with the zeros; nearly all of them must be pixels.
_LEAST_COMPARED = 48
_SHARE = 0.9
_CHUNK_BYTES = 1 << 20
#: Of so many tiles or strips the places are sorted in memory: no image has more rows that a pyramid can have.
_MOST_SEGMENTS = 262_144
#: How far back the beginning of the zeros is looked for.
_MOST_ZEROS = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of `stride` bytes, one behind the other from `begin` to `end`; `used` hold pixels."""

    begin: int
    end: int
    stride: int
    used: int


def bmp_rows(descriptor: int) -> Rows | None:
    """The rows of a bitmap that is not packed; None for any other."""
    found = bmp.header(descriptor)
    if not found.is_windows or not found.has_rows:
        return None
    end = found.begin + found.stride * abs(found.height)
    return Rows(begin=found.begin, end=end, stride=found.stride, used=found.used)


def lacking_end(descriptor: int, size_bytes: int) -> str | None:
    """The end of pixels that are not packed, where zeros stand in their place; None if it is there.

    Raises
    ------
    OSError
        It cannot be read.
    """
    if any(pread(descriptor, LEAST_BYTES, max(0, size_bytes - LEAST_BYTES))):
        return None
    rows = _rows(descriptor, size_bytes)
    if rows is None or rows.used <= 0 or rows.stride < rows.used:
        return None
    end = min(rows.end, size_bytes)
    at = _zeros_before(descriptor, end, max(rows.begin, end - _MOST_ZEROS))
    if end - at < max(LEAST_BYTES, rows.stride // 8) or at < rows.begin + rows.stride:
        return None
    column = (at - rows.begin) % rows.stride
    if column < _LEAST_COMPARED or rows.used - column < _LEAST_COMPARED:
        return None
    above = pread(descriptor, rows.used - column, at - rows.stride)
    if len(above) - above.count(0) < _SHARE * len(above):
        return None
    return f"its last {size_bytes - at:,} bytes (only zeros, from the middle of a row on)"


def _zeros_before(descriptor: int, end: int, least: int) -> int:
    """Where the zeros begin that go on to `end`."""
    while end > least:
        begin = max(least, end - _CHUNK_BYTES)
        left = len(pread(descriptor, end - begin, begin).rstrip(b"\0"))
        if left:
            return begin + left
        end = begin
    return least


def _rows(descriptor: int, size_bytes: int) -> Rows | None:
    head = pread(descriptor, 132, 0)
    if head[128:] == b"DICM":
        pixels = unpacked(descriptor)
        if pixels is None or not pixels.stride:
            return None
        begin, end, stride = pixels.begin, pixels.end, pixels.stride
        return Rows(begin=begin, end=end, stride=stride, used=stride)
    if head.startswith(b"BM"):
        return bmp_rows(descriptor)
    if head[:2] in (b"P5", b"P6"):
        found = netpbm.rows(descriptor)
        if found is None:
            return None
        begin, stride, height = found
        return Rows(begin=begin, end=begin + stride * height, stride=stride, used=stride)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _of_tiff(descriptor, size_bytes)
    return None


def _of_tiff(descriptor: int, size_bytes: int) -> Rows | None:
    """The rows of the strip or tile in which the last zeros begin, if nothing is packed there."""
    try:
        tiff = Tiff(descriptor, size_bytes)
        pages = [*tiff.directories, *tiff.sub_directories]
        last = max(pages, key=lambda one: max((sum(at) for at in one.segments()), default=0))
        return _of_directory(last, descriptor, size_bytes)
    except TiffError:
        return None


def _of_directory(page: Directory, descriptor: int, size_bytes: int) -> Rows | None:
    bits = page.numbers(258) or (1,)
    samples = 1 if page.number(284, 1) == 2 else page.number(277, 1)
    width = page.number(322) if page.tiled else page.size[0]
    if page.number(259, 1) != 1 or not width or not 0 < samples <= 64:
        return None
    counts = page.tags.get(325 if page.tiled else 279)
    if counts is None or counts.count > _MOST_SEGMENTS:
        return None
    stride = (width * samples * max(bits) + 7) // 8
    # Strips follow each other as a rule, and so do their rows; what lies elsewhere is not looked at.
    segments = sorted((begin, begin + count) for begin, count in page.segments() if begin and count)
    if not segments or segments[-1][1] < size_bytes - stride:
        return None
    at = _zeros_before(descriptor, segments[-1][1], max(0, segments[-1][1] - _MOST_ZEROS))
    begin = next((one for one, end in reversed(segments) if one <= at), None)
    if begin is None:
        return None
    if at - begin < stride and (begin - stride, begin) not in segments:
        # Its row above is in the strip before it, if that ends where this one begins.
        before = next((one for one, end in segments if end == begin), None)
        if before is None or page.tiled:
            return None
        begin -= stride
    return Rows(begin=begin, end=size_bytes, stride=stride, used=stride)
