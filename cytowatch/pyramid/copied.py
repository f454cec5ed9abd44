"""Levels whose tiles are JPEG already: they are written as they are, and lose nothing a second time.

A tile is a stream of its own. It can stand in another TIFF as long as the directory there says what
the one it comes from says, or should have said, of its size, its colours and its tables.

Source: TIFF Technical Note 2; docs/decisions/017-levels-of-the-source.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cytowatch.pyramid import jpeg
from cytowatch.pyramid.regions import RegionReader

__all__ = ["CopiedLevel", "Unlike", "chain", "checked", "photometric", "usable"]

#: PhotometricInterpretation.
GREY, RGB, YCBCR = 1, 2, 6
_END = b"\xff\xd9"
#: Sides of a tile that every viewer takes.
_TILE_SIDES = range(64, 2049, 16)
#: A step from level to level that leaves a viewer too much to scale is not one of a pyramid.
_LARGEST_STEP = 4.5
_SMALLEST_STEP = 1.4
_CHROMA = frozenset({(1, 1), (2, 1), (2, 2)})


class _Streams(Protocol):
    def __call__(self, begin: int, end: int, *, decode: bool) -> list[bytes]: ...


class Unlike(Exception):
    """A tile is not like the first one of its level, so the level cannot be copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedLevel:
    """One level of a source.

    `streams` gives its tiles from one number to another, from any thread; with `decode` each of them
    is decoded as well, so that nothing damaged is passed on. `tile` is (width, height) in pixels; `photometric`, `sampling` and `tables` are what its
    directory says (tags 262, 530 and 347); `region` gives its pixels.
    """

    width: int
    height: int
    tile: tuple[int, int]
    tiles: int
    size_bytes: int
    photometric: int
    sampling: tuple[int, int]
    tables: bytes
    streams: _Streams
    region: RegionReader


def photometric(head: jpeg.Head, stated: int) -> int | None:
    """PhotometricInterpretation of a tile, whose directory has `stated`; None where it is doubtful.

    Viewers go by the directory alone. Some writers state RGB of what is JFIF, and so YCbCr; others
    YCbCr of what says by Adobe's marker that it is RGB.
    """
    if head.samples == 1:
        return GREY if stated == GREY else None
    if stated == YCBCR:
        return RGB if head.adobe == 0 else YCBCR
    if stated == RGB and head.jfif:
        return YCBCR
    return RGB if stated == RGB and head.adobe in (None, 0) else None


def usable(head: jpeg.Head, tile: tuple[int, int], colours: int) -> bool:
    """Whether tiles with this head can stand in a directory of these tiles and colours."""
    return (
        (head.width, head.height) == tile
        and all(side in _TILE_SIDES for side in tile)
        and head.sampling in (_CHROMA if colours == YCBCR else {(1, 1)})
    )


def checked(data: bytes, first: jpeg.Head) -> bytes:
    """`data`, if it is a whole JPEG like the first one of its level.

    Raises
    ------
    Unlike
        It is not.
    """
    try:
        like = jpeg.head(data) == first
    except ValueError:
        like = False
    if not like or not data.rstrip(b"\0").endswith(_END):
        raise Unlike
    return data


def chain(levels: Sequence[CopiedLevel | None]) -> tuple[CopiedLevel, ...]:
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
    return (
        _SMALLEST_STEP <= step <= _LARGEST_STEP
        and off <= 2 + level.height / level.width
        and (level.photometric == GREY) == (before.photometric == GREY)
    )
