"""Levels whose tiles are JPEG already: read from the file without being decoded, and without being kept.

Offsets and byte counts stay in the file: a tile costs three reads and no memory, no matter how large the slide is.

Source: TIFF 6.0, section 15; https://openslide.org/formats/ for which levels OpenSlide shows as they lie.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cytowatch.formats.structure.tiff import Directory, Tag, Tiff, TiffError
from cytowatch.panel.pixels import jpegs
from cytowatch.record.entries import ImageEntry, LevelEntry

__all__ = ["PlainLevel", "Read", "levels"]

#: Vendors, as OpenSlide names them, whose levels are shown tile by tile as they lie in the file; None
#: is a derived pyramid. Of the others tiles overlap, lie elsewhere, or are not JPEG.
_AS_THEY_LIE = frozenset({None, "aperio", "generic-tiff", "huron", "philips"})
_JPEG = 7
_SIZES = {3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_CODES = {2: "H", 4: "I", 8: "Q"}
#: Beside the pixels of a tile, each at most twice as many bytes.
_HEAD_BYTES = 1 << 16
_LARGEST_SIDE = 4096
_LARGEST_TABLES = 1 << 16

#: Reads so many bytes at an offset: `os.pread` of a descriptor, or one that does not wait for the disk.
Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLevel:
    """One level; `tile` is (width, height). All tiles are as large, those at the edge as well."""

    order: str
    tile: tuple[int, int]
    across: int
    down: int
    #: Tiles in a row of the file, which may be more than are shown.
    stride: int
    size_bytes: int
    offsets: Tag
    counts: Tag
    lead: bytes
    like: jpegs.Like

    def read(self, column: int, row: int, pread: Read) -> bytes:
        """The tile as a JPEG of its own, in its full size.

        Raises
        ------
        jpegs.NotPlainError
            It is left out of the file, or is not such a tile: it has to be decoded.
        IndexError
            There is no such tile.
        OSError
            As `pread` raises it.
        """
        if not (0 <= column < self.across and 0 <= row < self.down):
            raise IndexError(f"tile {column}, {row} of {self.across} x {self.down}")
        number = row * self.stride + column
        offset = self._value(self.offsets, number, pread)
        count = self._value(self.counts, number, pread)
        most = 2 * self.like.width * self.like.height * self.like.samples + _HEAD_BYTES
        if not 4 <= count <= most or offset < 8 or offset + count > self.size_bytes:
            raise jpegs.NotPlainError("not in the file")
        data = pread(count, offset)
        if len(data) != count:
            raise jpegs.NotPlainError("not in the file")
        return jpegs.standing(data, self.lead, self.like)

    def _value(self, tag: Tag, number: int, pread: Read) -> int:
        size = _SIZES[tag.kind]
        data = pread(size, tag.offset + number * size)
        if len(data) != size:
            raise jpegs.NotPlainError("not in the file")
        return int(struct.unpack(f"{self.order}{_CODES[size]}", data)[0])


def levels(descriptor: int, image: ImageEntry) -> list[PlainLevel | None]:
    """For each level of `image`, which `descriptor` is the file of: how its tiles are read, if they are plain."""
    found: list[PlainLevel | None] = [None] * len(image["levels"])
    if image["vendor"] not in _AS_THEY_LIE or image["bits_per_sample"] != 8:
        return found
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
        directories = _tiled(tiff)
        for number, level in enumerate(image["levels"]):
            one = _directory(directories, image["levels"], number)
            found[number] = None if one is None else _plain(one, level)
    except (TiffError, jpegs.NotPlainError, struct.error):
        # What is wrong with it is for the decoder to say.
        return [None] * len(image["levels"])
    return found


def _tiled(tiff: Tiff) -> list[Directory]:
    """The tiled directories, largest first."""
    found = [one for one in tiff.directories[:100] if one.tiled and not one.mask]
    return sorted(found, key=lambda one: one.size, reverse=True)


def _directory(
    directories: Sequence[Directory], known: Sequence[LevelEntry], number: int
) -> Directory | None:
    """The directory of a level: the only one of its size; or, where sizes are rounded up to tiles, of its rank."""
    level = known[number]
    size = (level["width"], level["height"])
    same = [one for one in directories if one.size == size]
    if same:
        return same[0] if len(same) == 1 else None
    if len(directories) != len(known):
        return None
    one = directories[number]
    over = [one.size[0] - size[0], one.size[1] - size[1]]
    tile = [one.number(322), one.number(323)]
    fits = all(0 <= more < side for more, side in zip(over, tile, strict=True))
    return one if fits else None


def _plain(one: Directory, level: LevelEntry) -> PlainLevel | None:
    samples, photometric = one.number(277, 1), one.number(262)
    tile = one.number(322), one.number(323)
    colours = {(1, jpegs.GREY), (3, jpegs.RGB), (3, jpegs.YCBCR)}
    if one.number(259) != _JPEG or (samples, photometric) not in colours:
        return None
    if one.number(284, 1) != 1 or set(one.numbers(258)) != {8} or tile != _stated(level):
        return None
    # What is not a whole number of blocks, or huge, no writer of slides makes.
    if any(not 16 <= side <= _LARGEST_SIDE for side in tile):
        return None
    wide, tall = one.size
    across, down = -(-wide // tile[0]), -(-tall // tile[1])
    offsets, counts = one.tags.get(324), one.tags.get(325)
    if not (offsets and counts and all(_is_list(tag, across * down) for tag in (offsets, counts))):
        return None
    return PlainLevel(
        order=one.tiff.order,
        tile=tile,
        # A level may be smaller than what its file rounds it up to.
        across=-(-level["width"] // tile[0]),
        down=-(-level["height"] // tile[1]),
        stride=across,
        size_bytes=one.tiff.size_bytes,
        offsets=offsets,
        counts=counts,
        lead=jpegs.leading(_tables(one), photometric),
        like=jpegs.Like(width=tile[0], height=tile[1], samples=samples, photometric=photometric),
    )


def _is_list(tag: Tag, count: int) -> bool:
    """Whether a tag has `count` numbers, in a list: a single one may lie in the tag itself, which `Tag` knows."""
    return tag.kind in _SIZES and tag.count == count


def _stated(level: LevelEntry) -> tuple[int | None, int | None]:
    return level["tile_width"], level["tile_height"]


def _tables(one: Directory) -> bytes:
    tag = one.tags.get(347)
    if tag is None:
        return b""
    if tag.count > _LARGEST_TABLES:
        raise jpegs.NotPlainError("its tables are too large")
    return one.tiff.bytes(tag.offset, tag.count)
