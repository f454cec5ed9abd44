"""The structure of a TIFF, read through a descriptor: tags and offsets, never a pixel.

Used to tell vendors apart and to see whether a file is whole, so it trusts nothing: counts are
bounded, loops of directories end, nothing is read beyond what is there.

Source: TIFF 6.0; the BigTIFF design; https://openslide.org/formats/hamamatsu/ for NDPI, whose
directories end in an 8-byte pointer although the header is a classic one.
"""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cytowatch.record.lacking import amount

__all__ = ["SUB_IFDS", "Directory", "Tiff", "TiffError"]

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_CODES = {
    1: "B",
    3: "H",
    4: "I",
    6: "b",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_INTEGERS = frozenset(_CODES) - {11, 12}
_MOST_DIRECTORIES = 100_000
_MOST_SUB_DIRECTORIES = 64
_MOST_TAGS = 65_535
#: In all directories together: they may lie over each other, so a small file can have many.
_MOST_TAGS_IN_ALL = 500_000
_MOST_VALUES = 1_000_000
#: Of a longer list so many are in memory: as Python's numbers they take nine times their room in the file.
_AT_A_TIME = 1 << 16
_LONGEST_TEXT = 16 << 20
_TAIL_BYTES = 1 << 16

NDPI_MARK = 65420
SUB_IFDS = 330


class TiffError(ValueError):
    """It is not a TIFF, or its structure leads beyond the end of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """Where a tag's values lie: `offset` in the file, of `count` values of `kind`."""

    kind: int
    count: int
    offset: int

    @property
    def end(self) -> int:
        """Where the values end."""
        return self.offset + self.count * _SIZES.get(self.kind, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """One image file directory; `tags` by number."""

    tiff: Tiff
    tags: dict[int, Tag] = field(default_factory=dict)

    def numbers(self, number: int) -> tuple[int, ...]:
        """The values of an integer tag; empty if it is not there, or has more than a million: `each` has no such limit.

        Raises
        ------
        TiffError
            They lie beyond the end of the file.
        """
        tag = self.tags.get(number)
        if tag is None or tag.kind not in _INTEGERS or tag.count > _MOST_VALUES:
            return ()
        data = self.tiff.bytes(tag.offset, tag.count * _SIZES[tag.kind])
        return struct.unpack(f"{self.tiff.order}{tag.count}{_CODES[tag.kind]}", data)

    def each(self, number: int) -> Iterator[int]:
        """The values of an integer tag one after another, however many there are; raises what `numbers` does."""
        tag = self.tags.get(number)
        if tag is None or tag.kind not in _INTEGERS:
            return
        if tag.end > self.tiff.size_bytes:
            raise TiffError(amount(self.tiff.size_bytes, tag.end))
        size = _SIZES[tag.kind]
        for begin in range(tag.offset, tag.end, size * _AT_A_TIME):
            data = self.tiff.bytes(begin, min(size * _AT_A_TIME, tag.end - begin))
            yield from struct.unpack(
                f"{self.tiff.order}{len(data) // size}{_CODES[tag.kind]}", data
            )

    def number(self, number: int, default: int = 0) -> int:
        """The first value of a tag of numbers, as a whole one."""
        tag = self.tags.get(number)
        if tag is None or tag.count < 1 or tag.kind not in _CODES:
            return default
        data = self.tiff.bytes(tag.offset, _SIZES[tag.kind])
        value = struct.unpack(f"{self.tiff.order}{_CODES[tag.kind]}", data)[0]
        return int(value) if math.isfinite(value) else default

    def ratio(self, number: int) -> float | None:
        """The first value of a rational tag; None if it is not there or not above zero."""
        tag = self.tags.get(number)
        if tag is None or tag.kind not in (5, 10) or tag.count < 1:
            return None
        up, down = struct.unpack(f"{self.tiff.order}2I", self.tiff.bytes(tag.offset, 8))
        return up / down if up and down else None

    def text(self, number: int) -> str:
        """A tag as text; empty if it is not there."""
        tag = self.tags.get(number)
        if tag is None or tag.kind not in (1, 2, 7) or tag.count > _LONGEST_TEXT:
            return ""
        return self.tiff.bytes(tag.offset, tag.count).split(b"\0")[0].decode("utf-8", "replace")

    @property
    def tiled(self) -> bool:
        """Whether it is cut into tiles."""
        return 322 in self.tags and 324 in self.tags

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.number(256), self.number(257)

    @property
    def reduced(self) -> bool:
        """Whether it calls itself a reduced version of another image (NewSubfileType bit 0)."""
        return bool(self.number(254) & 1)

    @property
    def mask(self) -> bool:
        """Whether it calls itself the mask of another image (NewSubfileType bit 2)."""
        return bool(self.number(254) & 4)

    def segments(self) -> Iterator[tuple[int, int]]:
        """(offset, byte count) of every tile or strip, as the file states them."""
        offsets, counts = (324, 325) if self.tiled else (273, 279)
        yield from zip(self.each(offsets), self.each(counts), strict=False)


class Tiff:
    """The directories of one file; reading ends with what is there.

    Raises
    ------
    TiffError
        It is not a TIFF, or the first directory cannot be read. `complete` is False when a later one
        leads beyond the end.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self.size_bytes = size_bytes
        head = os.pread(descriptor, 16, 0)
        if head[:2] not in (b"II", b"MM") or len(head) < 8:
            raise TiffError("no TIFF")
        self.order = "<" if head[:2] == b"II" else ">"
        version = struct.unpack(f"{self.order}H", head[2:4])[0]
        if version not in (42, 43) or (version == 43 and len(head) < 16):
            raise TiffError("no TIFF")
        self.big = version == 43
        self.ndpi = False
        first = struct.unpack(
            f"{self.order}{'Q' if self.big else 'I'}", head[8:16] if self.big else head[4:8]
        )[0]
        if not self.big and self.order == "<":
            first = self._ndpi_first(first)
        #: Why the walk ended early, or None when it came to the end of the list.
        self.broken: str | None = None
        #: Whether the list leads back to a directory that is in it already.
        self.loops = False
        #: Whether there are more directories than were read.
        self.cut = False
        #: Whether the file ends within the pointer that follows its last directory.
        self.endless = False
        self.directories: list[Directory] = []
        self.sub_directories: list[Directory] = []
        #: Each SubIFD by its place in the file.
        self.by_place: dict[int, Directory] = {}
        self._tags_left = _MOST_TAGS_IN_ALL
        self._walk(first)
        if not self.directories:
            raise TiffError(self.broken or "it has no directory")

    @functools.cached_property
    def _tail(self) -> bytes:
        begin = max(0, self.size_bytes - _TAIL_BYTES)
        return self.bytes(begin, self.size_bytes - begin)

    def bytes(self, offset: int, count: int) -> bytes:
        """`count` bytes at `offset`.

        Raises
        ------
        TiffError
            They are not all there.
        """
        if count < 0:
            raise TiffError("a length is below zero")
        if offset + count > self.size_bytes:
            raise TiffError(amount(self.size_bytes, offset + count))
        data = os.pread(self._descriptor, count, offset)
        while len(data) < count:
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                raise TiffError("the file became shorter")
            data += more
        return data

    def is_zero_from(self, offset: int) -> bool:
        """Whether there are only zeros from `offset` to the end, as far as the last 64 KiB tell."""
        return not any(self._tail[max(0, offset - self.size_bytes + len(self._tail)) :])

    def _ndpi_first(self, first: int) -> int:
        """NDPI keeps the high half of the first pointer behind it, and marks its directories."""
        try:
            wide = int(struct.unpack("<Q", self.bytes(4, 8))[0])
            for offset in (first, wide):
                count = (
                    struct.unpack("<H", self.bytes(offset, 2))[0]
                    if offset + 2 <= self.size_bytes
                    else 0
                )
                if not 0 < count <= _MOST_TAGS:
                    continue
                entries = self.bytes(offset + 2, count * 12)
                if any(
                    struct.unpack_from("<H", entries, i * 12)[0] == NDPI_MARK for i in range(count)
                ):
                    self.ndpi = True
                    return offset
        except TiffError:
            pass
        return first

    def _walk(self, first: int) -> None:
        seen: set[int] = set()
        offset = first
        try:
            while (
                offset
                and offset not in seen
                and len(seen) < _MOST_DIRECTORIES
                and self._tags_left > 0
            ):
                seen.add(offset)
                directory, offset = self._read(offset)
                self.directories.append(directory)
            self.loops = offset in seen
            self.cut = bool(offset) and not self.loops
            for directory in list(self.directories):
                for sub in directory.numbers(SUB_IFDS)[:_MOST_SUB_DIRECTORIES]:
                    if sub and sub not in seen and self._tags_left > 0:
                        seen.add(sub)
                        self.by_place[sub] = self._read(sub)[0]
                        self.sub_directories.append(self.by_place[sub])
        except TiffError as error:
            self.broken = f"directory {len(self.directories)} ({error})"

    def _read(self, offset: int) -> tuple[Directory, int]:
        wide = self.big
        count_format, entry_bytes, inline = ("Q", 20, 8) if wide else ("H", 12, 4)
        count_bytes = struct.calcsize(f"={count_format}")
        [count] = struct.unpack(f"{self.order}{count_format}", self.bytes(offset, count_bytes))
        if count > _MOST_TAGS:
            raise TiffError(f"{count:,} tags in one directory")
        if not count:
            raise TiffError("it has no tag yet")
        self._tags_left -= count
        begin = offset + count_bytes
        entries = self.bytes(begin, count * entry_bytes)
        last = begin + (count - 1) * entry_bytes
        if not any(entries[-entry_bytes:]) and self.is_zero_from(last):
            raise TiffError("its last tags are still only zeros")
        next_bytes = 8 if wide or self.ndpi else 4
        end = begin + count * entry_bytes
        pointer = self.bytes(end, min(next_bytes, self.size_bytes - end))
        if len(pointer) < next_bytes and not any(pointer):
            # Some writers leave these zeros out.
            self.endless = True
            pointer = bytes(next_bytes)
        elif len(pointer) < next_bytes:
            raise TiffError("the pointer behind it is cut")
        [following] = struct.unpack(f"{self.order}{'Q' if next_bytes == 8 else 'I'}", pointer)
        high = b""
        if self.ndpi:
            # The high halves of the values follow the pointer, four bytes a tag.
            where = begin + count * entry_bytes + 8
            high = self.bytes(where, count * 4)
        directory = Directory(tiff=self)
        for index in range(count):
            number, kind = struct.unpack_from(f"{self.order}HH", entries, index * entry_bytes)
            [values] = struct.unpack_from(
                f"{self.order}{'Q' if wide else 'I'}", entries, index * entry_bytes + 4
            )
            at = index * entry_bytes + (12 if wide else 8)
            place = begin + at
            if values * _SIZES.get(kind, 1) > inline:
                [place] = struct.unpack_from(f"{self.order}{'Q' if wide else 'I'}", entries, at)
                if len(high) >= index * 4 + 4:
                    place |= struct.unpack_from("<I", high, index * 4)[0] << 32
            # If a tag is there twice, the first one counts, as for libtiff.
            directory.tags.setdefault(number, Tag(kind=kind, count=values, offset=place))
        return directory, following
