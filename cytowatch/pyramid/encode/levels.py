"""A JPEG pyramid written straight into a tiled TIFF: rows come in once, tiles are encoded in threads.

Each level is the mean of two by two pixels of the one before it, as libvips makes it, until one
tile holds all. Colours are stored as RGB, as libvips stores them from quality 90 on, or as YCbCr,
which takes about half the room and loses one to five dB (docs/decisions/015-an-encoder-of-our-own.md).

Source: TIFF 6.0; TIFF Technical Note 2 (JPEG in TIFF, ``JPEGTables``); the BigTIFF design.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from cytowatch.pyramid import jpeg
from cytowatch.pyramid.copied import RGB, YCBCR, CopiedLevel
from cytowatch.pyramid.regions import Pixels

__all__ = ["FULL_CHROMA", "Settings", "encode", "level_sizes"]

#: Tiles that are encoded and not written yet are held to so many bytes of their pixels.
_IN_FLIGHT_BYTES = 192 << 20
_BUFFER_BYTES = 1 << 20
#: One by one their passing between threads would take as long as a tenth of their encoding.
_TILES_AT_ONCE = 8
#: Of so many pixels each; fewer of larger ones are copied at once.
_TILE_PIXELS = 256 * 256
#: From here on chroma is not subsampled, as libvips has it.
FULL_CHROMA = 90
_GREY, _JPEG = 1, 7
_REDUCED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a pyramid is written.

    `tile` in pixels, a multiple of 16; `per_cm` pixels per centimetre of level 0, (x, y), or None
    where nothing is known; `big` for a BigTIFF; `ycbcr` whether colours are stored so.
    """

    tile: int
    quality: int
    ycbcr: bool
    big: bool
    per_cm: tuple[float, float] | None = None
    icc_profile: bytes | None = None
    threads: int = 2


def level_sizes(width: int, height: int, tile: int) -> list[tuple[int, int]]:
    """(width, height) of every level: halved until one tile holds it.

    >>> level_sizes(1000, 300, 256)
    [(1000, 300), (500, 150), (250, 75)]
    """
    sizes = [(width, height)]
    while max(sizes[-1]) > tile:
        sizes.append((max(1, sizes[-1][0] // 2), max(1, sizes[-1][1] // 2)))
    return sizes


def encode(
    blocks: Iterable[Pixels],
    width: int,
    height: int,
    samples: int,
    path: str,
    settings: Settings,
    copied: Sequence[CopiedLevel] = (),
    told: Callable[[float], None] = lambda _pixels: None,
) -> None:
    """Write the pyramid of an image to `path`.

    Parameters
    ----------
    blocks
        The image from top to bottom, each (`settings.tile`, `width`, `samples`) of 8 bits; the last
        one may have fewer rows. With `copied` it is the last of those that is meant; it is not asked
        for where that one is a single tile.
    samples
        1 or 3.
    copied
        The first levels, if they are there already.
    told
        Told of copied tiles, how many pixels were written.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        The blocks are not the whole image.
    Unlike
        The tiles of a copied level are of several kinds.
    """
    with (
        open(path, "wb", buffering=_BUFFER_BYTES) as file,
        ThreadPoolExecutor(settings.threads, "encode") as pool,
    ):
        try:
            _Pyramid(file, pool, width, height, samples, settings, copied, told).write(blocks)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@dataclass(slots=True)
class _Level:
    """One level as it grows.

    `rows` are those of its next row of tiles, `seen` is how many came, `given` how many the next
    level gets of them. The tiles of a `copied` one are not made of them.
    """

    width: int
    height: int
    copied: CopiedLevel | None = None
    tables: bytes = b""
    rows: list[Pixels] = field(default_factory=list)
    have: int = 0
    seen: int = 0
    given: int = 0
    offsets: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class _Pyramid:
    """Guards the order: tiles are encoded anywhere and written as they follow in each level."""

    def __init__(
        self,
        file: BinaryIO,
        pool: ThreadPoolExecutor,
        width: int,
        height: int,
        samples: int,
        settings: Settings,
        copied: Sequence[CopiedLevel],
        told: Callable[[float], None],
    ) -> None:
        self._told = told
        self._file = file
        self._pool = pool
        self._samples = samples
        self._settings = settings
        self._levels = [_Level(one.width, one.height, one, one.tables) for one in copied]
        #: The level that all others below it are halved from.
        self._first = max(0, len(copied) - 1)
        if copied:
            width, height = copied[-1].width, copied[-1].height
        made = level_sizes(width, height, settings.tile)
        self._levels += [_Level(*size) for size in (made[1:] if copied else made)]
        #: Whether there is any that must be made of rows.
        self._derives = len(self._levels) > len(copied)
        self._waiting: deque[tuple[_Level, Future[tuple[bytes, list[bytes]]]]] = deque()
        self._halves: deque[tuple[int, Future[Pixels]]] = deque()
        task_bytes = settings.tile * settings.tile * samples * _TILES_AT_ONCE
        tasks_across = -(-width // (settings.tile * _TILES_AT_ONCE))
        self._most = max(2 * tasks_across, _IN_FLIGHT_BYTES // task_bytes)
        self._at = 0

    def write(self, blocks: Iterable[Pixels]) -> None:
        """Write all of it."""
        self._at = self._file.write(bytes(16 if self._settings.big else 8))
        for level in self._levels:
            if level.copied is not None:
                self._copy(level, level.copied)
        if self._derives:
            self._derive(blocks)
        self._write_until(0)
        self._directories()

    def _derive(self, blocks: Iterable[Pixels]) -> None:
        for block in blocks:
            # What the one before it was halved to is fetched when this one keeps the threads busy.
            earlier = len(self._halves)
            self._push(self._first, block)
            self._push_halves(earlier)
        while self._halves:
            self._push_halves(len(self._halves))
        first = self._levels[self._first]
        if first.seen != first.height:
            raise ValueError(f"{first.seen:,} of {first.height:,} rows came")

    def _copy(self, level: _Level, copied: CopiedLevel) -> None:
        at_once = max(1, _TILES_AT_ONCE * _TILE_PIXELS // (copied.tile[0] * copied.tile[1]))
        most = max(2, _IN_FLIGHT_BYTES // (at_once * copied.largest_tile_bytes))

        def streams(begin: int) -> tuple[bytes, list[bytes]]:
            numbers = range(begin, min(begin + at_once, copied.tiles))
            return copied.tables, [copied.checked(number) for number in numbers]

        for begin in range(0, copied.tiles, at_once):
            self._waiting.append((level, self._pool.submit(streams, begin)))
            self._write_until(most)

    def _push(self, number: int, rows: Pixels) -> None:
        """Add rows to a level; whole rows of tiles are encoded, and halved for the next level."""
        level, tile = self._levels[number], self._settings.tile
        level.rows.append(rows)
        level.have += len(rows)
        level.seen += len(rows)
        last = level.seen == level.height
        if level.have < tile and not last:
            return
        band = level.rows[0] if len(level.rows) == 1 else np.concatenate(level.rows)
        level.rows, level.have = [], 0
        if len(band) > tile:
            level.rows, level.have = [band[tile:]], len(band) - tile
            band = band[:tile]
        if number + 1 < len(self._levels):
            room = self._room_below(number, len(band), last=last)
            self._halves.append((number + 1, self._pool.submit(_halved, band, *room)))
        step = tile * _TILES_AT_ONCE
        for left in range(0, level.width if level.copied is None else 0, step):
            right = min(level.width, left + step)
            self._waiting.append(
                (level, self._pool.submit(_tiles, band, left, right, self._settings))
            )
        self._write_until(self._most)

    def _push_halves(self, count: int) -> None:
        for _ in range(count):
            number, future = self._halves.popleft()
            rows = future.result()
            if len(rows):
                self._push(number, rows)

    def _room_below(self, number: int, rows: int, *, last: bool) -> tuple[int, int]:
        """(rows, columns) that `rows` of a level become in the next one."""
        level, below = self._levels[number], self._levels[number + 1]
        # The last row of an odd number of them is left out, but never the only one.
        given = min(max(1, rows // 2), below.height - level.given) if last else rows // 2
        level.given += given
        return given, below.width

    def _write_until(self, most: int) -> None:
        while len(self._waiting) > most:
            level, future = self._waiting.popleft()
            level.tables, tiles = future.result()
            for data in tiles:
                level.offsets.append(self._at)
                level.counts.append(len(data))
                self._at += self._file.write(data)
            if level.copied is not None:
                self._told(level.width * level.height * len(tiles) / level.copied.tiles)

    def _directories(self) -> None:
        """The directories, behind all tiles, and in the header where the first of them is."""
        big = self._settings.big
        layout = "<Q" if big else "<I"
        first = _aligned(self._file)
        for number, level in enumerate(self._levels):
            at = _aligned(self._file)
            following = number + 1 < len(self._levels)
            directory, extra = self._directory(number, level, at)
            end = at + len(directory) + struct.calcsize(layout) + len(extra)
            self._file.write(directory + struct.pack(layout, end + end % 2 if following else 0))
            self._file.write(extra)
        self._file.seek(0)
        self._file.write(
            struct.pack("<2sHHHQ", b"II", 43, 8, 0, first)
            if big
            else struct.pack("<2sHI", b"II", 42, first)
        )

    def _directory(self, number: int, level: _Level, at: int) -> tuple[bytes, bytes]:
        """(entries with their count, the values that do not fit into them)."""
        big, copied = self._settings.big, level.copied
        long = 16 if big else 4
        tile = copied.tile if copied else (self._settings.tile, self._settings.tile)
        colours = copied.photometric if copied else self._colours()
        tags: list[tuple[int, int, bytes, int]] = [
            _numbers(254, 4, [_REDUCED if number else 0]),
            _numbers(256, 4, [level.width]),
            _numbers(257, 4, [level.height]),
            _numbers(258, 3, [8] * self._samples),
            _numbers(259, 3, [_JPEG]),
            _numbers(262, 3, [colours]),
            _numbers(277, 3, [self._samples]),
            *self._resolution(level),
            _numbers(284, 3, [1]),
            _numbers(296, 3, [3 if self._settings.per_cm else 1]),
            _numbers(322, 4, [tile[0]]),
            _numbers(323, 4, [tile[1]]),
            _numbers(324, long, level.offsets),
            _numbers(325, 4, level.counts),
        ]
        if level.tables:
            tags.append((347, 7, level.tables, len(level.tables)))
        if colours == YCBCR:
            chroma = 1 if self._settings.quality >= FULL_CHROMA else 2
            tags.append(_numbers(530, 3, list(copied.sampling if copied else (chroma, chroma))))
        if profile := self._settings.icc_profile:
            tags.append((34675, 7, profile, len(profile)))
        tags.sort(key=lambda tag: tag[0])
        inline, entry, counter = (8, "<HHQ", "<Q") if big else (4, "<HHI", "<H")
        pointer = "<Q" if big else "<I"
        size = struct.calcsize(counter) + len(tags) * (struct.calcsize(entry) + inline)
        extra_at = at + size + struct.calcsize(pointer)
        found, extra = struct.pack(counter, len(tags)), b""
        for code, kind, data, count in tags:
            found += struct.pack(entry, code, kind, count)
            if len(data) <= inline:
                found += data.ljust(inline, b"\0")
                continue
            found += struct.pack(pointer, extra_at + len(extra))
            extra += data + bytes(len(data) % 2)
        return found, extra

    def _colours(self) -> int:
        """PhotometricInterpretation of what is encoded here."""
        if self._samples == 1:
            return _GREY
        return YCBCR if self._settings.ycbcr else RGB

    def _resolution(self, level: _Level) -> Iterator[tuple[int, int, bytes, int]]:
        if self._settings.per_cm is None:
            return
        first = self._levels[0]
        x = self._settings.per_cm[0] * level.width / first.width
        y = self._settings.per_cm[1] * level.height / first.height
        for code, value in ((282, x), (283, y)):
            yield code, 5, struct.pack("<II", *_ratio(value)), 1


def _numbers(code: int, kind: int, values: list[int]) -> tuple[int, int, bytes, int]:
    letter = {3: "H", 4: "I", 16: "Q"}[kind]
    return code, kind, struct.pack(f"<{len(values)}{letter}", *values), len(values)


def _ratio(value: float) -> tuple[int, int]:
    """`value` as a rational of 32 bits, as exact as it can be.

    >>> _ratio(20000.0), _ratio(40080.16)
    ((4294960000, 214748), (4294949865, 107159))
    """
    down = max(1, min(0xFFFFFFFF, int(0xFFFFFFFF / max(value, 1e-9))))
    return min(0xFFFFFFFF, round(value * down)), down


def _aligned(file: BinaryIO) -> int:
    """The position, moved to an even one: a directory begins on a word."""
    if file.tell() % 2:
        file.write(b"\0")
    return file.tell()


def _halved(band: Pixels, rows: int, columns: int) -> Pixels:
    """The means of two by two pixels; of a single row or column, of those that there are."""
    if len(band) == 1:
        band = np.repeat(band, 2, axis=0)
    if band.shape[1] == 1:
        band = np.repeat(band, 2, axis=1)
    sums = np.add(band[0 : 2 * rows : 2], band[1 : 2 * rows : 2], dtype=np.uint16)
    found = np.empty((rows, columns, band.shape[2]), np.uint8)
    # One sample after the other: numpy's inner loop is then as long as a row, and not as a pixel.
    for sample in range(band.shape[2]):
        four = sums[:, 0 : 2 * columns : 2, sample] + sums[:, 1 : 2 * columns : 2, sample]
        four += 2
        four >>= 2
        found[:, :, sample] = four
    return found


def _tiles(band: Pixels, left: int, right: int, settings: Settings) -> tuple[bytes, list[bytes]]:
    """(tables, each tile without them) of a part of a band of tiles."""
    found = [_tile(band, at, settings) for at in range(left, right, settings.tile)]
    return _tables(found[0]), [_abbreviated(data) for data in found]


def _tile(band: Pixels, left: int, settings: Settings) -> bytes:
    """One tile as a JPEG; beyond the image its last row and column go on."""
    import imagecodecs

    samples = band.shape[2]
    part = band[:, left : left + settings.tile]
    missing = (settings.tile - part.shape[0], settings.tile - part.shape[1])
    if any(missing):
        part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    part = np.ascontiguousarray(part)
    if samples == 1:
        return bytes(imagecodecs.jpeg8_encode(part[:, :, 0], level=settings.quality))
    if settings.ycbcr:
        chroma = "444" if settings.quality >= FULL_CHROMA else "420"
        return bytes(imagecodecs.jpeg8_encode(part, level=settings.quality, subsampling=chroma))
    return bytes(
        imagecodecs.jpeg8_encode(
            part, level=settings.quality, colorspace="RGB", outcolorspace="RGB"
        )
    )


#: What a tile does without: the tables, which are in the directory, and JFIF's own marks.
_LEFT_OUT = jpeg.TABLES | frozenset({0xE0, 0xEE, 0xFE})


def _tables(data: bytes) -> bytes:
    """The tables of a JPEG as a stream of their own; the same for all tiles of one quality."""
    parts = (data[at:end] for marker, at, end in jpeg.segments(data) if marker in jpeg.TABLES)
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def _abbreviated(data: bytes) -> bytes:
    """A JPEG without its tables."""
    kept = [b"\xff\xd8"]
    end = 2
    for marker, at, end in jpeg.segments(data):
        if marker not in _LEFT_OUT:
            kept.append(data[at:end])
    return b"".join([*kept, data[end:]])
