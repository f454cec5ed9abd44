"""Levels whose tiles are JPEG already: they are written as they are, and lose nothing a second time.

A tile is a stream of its own. It can stand in another TIFF as long as the directory there says what
the one it comes from says, or should have said, of its size, its colours and its tables.

Source: TIFF Technical Note 2; docs/decisions/017-levels-of-the-source.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cytowatch import durable
from cytowatch.formats.structure import jpeg
from cytowatch.pyramid.pixels import Pixels, each

__all__ = ["CopiedLevel", "Unlike", "chain", "largest_tile", "photometric", "usable"]

#: PhotometricInterpretation.
RGB, YCBCR = 2, 6
_END = b"\xff\xd9"
_IDS_OF_RGB = b"RGB"
#: Sides of a tile that every viewer takes.
_TILE_SIDES = range(64, 2049, 16)
#: Beside the pixels of a tile, each at most twice as many bytes: its head and its tables.
_HEAD_BYTES = 1 << 16
#: Levels further apart than this are not a pyramid: a viewer would have too much to scale.
_LARGEST_STEP = 4.5
_SMALLEST_STEP = 1.4
_CHROMA = frozenset({(1, 1), (2, 1), (2, 2)})


class Unlike(Exception):
    """Level `number` cannot be copied after all: a tile is not like the first one, or not readable.

    `said` is what its reader said of a tile that is not readable.
    """

    def __init__(self, number: int, said: str = "") -> None:
        super().__init__(f"level {number} cannot be copied")
        self.number = number
        self.said = said


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedLevel:
    """One level of a source, `number` 0 for the first one; its pixels can be read like those of any region.

    `tile` is (width, height) in pixels; `photometric` and `tables` are what its directory has to say
    (tags 262 and 347), `head` is the head of every tile; `stream` reads one by its number, from any
    thread.
    """

    number: int
    width: int
    height: int
    tile: tuple[int, int]
    size_bytes: int
    photometric: int
    head: jpeg.Head
    tables: bytes
    stream: Callable[[int], bytes]

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile[0])

    @property
    def tiles(self) -> int:
        """Tiles in all."""
        return self.across * -(-self.height // self.tile[1])

    @property
    def sampling(self) -> tuple[int, int]:
        """YCbCrSubSampling (tag 530)."""
        return self.head.sampling

    @property
    def largest_tile_bytes(self) -> int:
        """No tile takes more bytes than its pixels can explain."""
        return 2 * self.tile[0] * self.tile[1] * self.samples + _HEAD_BYTES

    @property
    def samples(self) -> int:
        """Samples per pixel: only colours are copied."""
        return 3

    @property
    def dtype(self) -> np.dtype[Any]:
        """Eight bits."""
        return np.dtype(np.uint8)

    @property
    def block_rows(self) -> int:
        """The height of a tile."""
        return self.tile[1]

    def checked(self, index: int) -> bytes:
        """A tile as it is, whole and with the head that all have.

        Raises
        ------
        Unlike
            It is another one.
        OSError
            A fault of the machine that may pass.
        """
        try:
            data = self.stream(index)
            like = jpeg.head(data) == self.head
        except (ValueError, OverflowError, OSError) as error:
            if isinstance(error, OSError) and durable.is_transient(error):
                raise
            raise Unlike(self.number) from None
        if not like or not data.rstrip(b"\0").endswith(_END):
            raise Unlike(self.number)
        return data

    def rows(self, top: int, bottom: int) -> Pixels:
        """Rows `top` to `bottom` (not included), in the colours that the directory says.

        Raises
        ------
        Unlike
            A tile cannot be decoded.
        """
        wide, tall = self.tile
        found = np.empty((bottom - top, self.width, self.samples), np.uint8)

        def place(index: int) -> None:
            row, column = divmod(index, self.across)
            pixels = self._decoded(index)
            at, left = row * tall - top, column * wide
            skip, until = max(0, -at), min(tall, len(found) - at)
            found[at + skip : at + until, left : left + wide] = pixels[
                skip:until, : self.width - left
            ]

        first, last = top // tall, -(-bottom // tall)
        each(place, range(first * self.across, last * self.across), out_bytes=found.nbytes)
        return found

    def _decoded(self, index: int) -> Pixels:
        import imagecodecs

        try:
            pixels: Pixels = imagecodecs.jpeg8_decode(
                self.checked(index),
                tables=self.tables or None,
                colorspace="RGB" if self.photometric == RGB else "YCBCR",
                outcolorspace="RGB",
            )
        except (ValueError, RuntimeError, TypeError):
            raise Unlike(self.number) from None
        if pixels.shape != (*self.tile[::-1], self.samples):
            raise Unlike(self.number)
        return pixels


def photometric(head: jpeg.Head, stated: int) -> int | None:
    """PhotometricInterpretation of a tile, whose directory has `stated`; None where it is doubtful.

    Viewers go by the directory only. Some writers state RGB of what is JFIF, and so YCbCr; others
    YCbCr of what says by Adobe's marker that it is RGB. Where two signs are against each other,
    the colours are unknown. Of grey OpenSlide would not tell damage.
    """
    if head.samples == 1 or (head.jfif and head.adobe == 0):
        return None
    if stated == YCBCR and head.ids != _IDS_OF_RGB:
        return RGB if head.adobe == 0 else YCBCR
    if stated == RGB and head.jfif and head.ids != _IDS_OF_RGB:
        return YCBCR
    if stated == RGB and not head.jfif and head.adobe in (None, 0):
        return RGB
    return None


def usable(level: CopiedLevel) -> bool:
    """Whether all its tiles can stand in a directory, as far as its own can tell."""
    colours = level.head.sampling in (_CHROMA if level.photometric == YCBCR else {(1, 1)})
    return (
        colours
        and (level.head.width, level.head.height) == level.tile
        and all(side in _TILE_SIDES for side in level.tile)
        and max(level.tile) <= largest_tile(level.width, level.height)
    )


def largest_tile(width: int, height: int) -> int:
    """The longest side of a tile that libvips takes in an image of so many pixels, as was tried."""
    return max(256, 2 * 128 * -(-max(width, height) // 128))


def chain(levels: Iterable[CopiedLevel | None]) -> tuple[CopiedLevel, ...]:
    """Those of the first on that make a pyramid: each smaller than the one before, by no large step."""
    found: list[CopiedLevel] = []
    for level in levels:
        if level is None or (found and not _follows(level, found[-1])):
            break
        found.append(level)
        if level.tiles == 1:
            break
    return tuple(found)


def _follows(level: CopiedLevel, before: CopiedLevel) -> bool:
    step = before.width / level.width
    # Sides are whole numbers: of a narrow level, one pixel across is many of them down.
    off = abs(level.height - before.height / step)
    return _SMALLEST_STEP <= step <= _LARGEST_STEP and off <= 2 + level.height / level.width
