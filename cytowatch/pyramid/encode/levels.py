"""A JPEG pyramid written straight into a tiled TIFF: rows come in once, tiles are encoded in threads.

Each level is the mean of two by two pixels of the one before it, as libvips makes it, until one
tile holds all. Colours are stored as RGB, as libvips stores them from quality 90 on, or as YCbCr,
which takes about half the room and loses one to five dB (docs/decisions/015-an-encoder-of-our-own.md).

Source: TIFF 6.0; TIFF Technical Note 2 (JPEG in TIFF, ``JPEGTables``); the BigTIFF design.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np

from cytowatch.pyramid.copied import CopiedLevel
from cytowatch.pyramid.encode.directories import write_directories
from cytowatch.pyramid.encode.settings import Level, Settings
from cytowatch.pyramid.encode.tiles import halved, tiles_of
from cytowatch.pyramid.pixels import Pixels

__all__ = ["encode", "level_sizes"]

#: At most this many bytes of pixels may be in tiles that are encoded and not written yet.
_IN_FLIGHT_BYTES = 192 << 20
_BUFFER_BYTES = 1 << 20
#: One by one their passing between threads would take as long as a tenth of their encoding.
_TILES_AT_ONCE = 8
#: How many pixels they have together; fewer of larger tiles are copied at once.
_TILE_PIXELS = 256 * 256


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
        Called for copied tiles with how many pixels were written.

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


class _Pyramid:
    """Guards the order: tiles are encoded anywhere and written as they follow in each level.

    Memory bound
    ------------
    At most `_most` bands of tiles wait to be written (`_IN_FLIGHT_BYTES` of pixels, never fewer than two
    rows of tiles), and each level holds less than two rows of tiles. `_write_until` upholds it: it blocks
    on the oldest band. Without it a reader that is faster than the encoder would fill the memory with the
    whole image.
    """

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
        self._levels = [Level(one.width, one.height, one, one.tables) for one in copied]
        #: The level that all others below it are halved from.
        self._first = max(0, len(copied) - 1)
        if copied:
            width, height = copied[-1].width, copied[-1].height
        made = level_sizes(width, height, settings.tile)
        self._levels += [Level(*size) for size in (made[1:] if copied else made)]
        #: Whether any level must be made from rows.
        self._derives = len(self._levels) > len(copied)
        self._waiting: deque[tuple[Level, Future[tuple[bytes, list[bytes]]]]] = deque()
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
        write_directories(self._file, self._levels, self._samples, self._settings)

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

    def _copy(self, level: Level, copied: CopiedLevel) -> None:
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
            self._halves.append((number + 1, self._pool.submit(halved, band, *room)))
        step = tile * _TILES_AT_ONCE
        for left in range(0, level.width if level.copied is None else 0, step):
            right = min(level.width, left + step)
            self._waiting.append(
                (level, self._pool.submit(tiles_of, band, left, right, self._settings))
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
