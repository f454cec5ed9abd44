"""What a reader gives of an image that libvips does not read: rows, made when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cytowatch.config import Config
from cytowatch.formats import limits
from cytowatch.model import Mpp
from cytowatch.record.errors import ConversionError
from cytowatch.record.quoting import quoting

if TYPE_CHECKING:
    from cytowatch.pyramid.copied import CopiedLevel

__all__ = [
    "Opened",
    "Pixels",
    "RegionReader",
    "Scene",
    "check_expansion",
    "check_memory",
    "check_size",
    "damaged",
    "each",
    "swapped",
]

#: (rows, columns, samples), or (rows, columns) for one sample.
Pixels = np.ndarray[Any, Any]


class RegionReader(Protocol):
    """An image whose rows can be had in any order, from several threads at a time.

    `samples` is 1 to 4: grey, grey and alpha, RGB, RGBA, or of inks 4 and 5; `dtype` any of 8 to 64
    bits. An alpha is one by which the colours are not multiplied.
    """

    @property
    def width(self) -> int:
        """In pixels."""

    @property
    def height(self) -> int:
        """In pixels."""

    @property
    def samples(self) -> int:
        """Samples per pixel."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What a sample is."""

    @property
    def block_rows(self) -> int:
        """Rows that are cheap to read together: the height of a tile, say."""

    def rows(self, top: int, bottom: int) -> Pixels:
        """Rows `top` to `bottom` (not included): (bottom - top, width, samples)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One image of a file, and what the file says of it; `done` is what a reader had to do.

    With `cmyk` the first four samples are inks. `orientation` is the tag of TIFF and EXIF: rows are as
    they are stored, and so is `mpp`. `copied` tells the first of its levels, if they are JPEG that can be
    written as it is.
    """

    region: RegionReader
    index: int = 0
    name: str = ""
    mpp: Mpp | None = None
    objective_power: float | None = None
    icc_profile: bytes | None = None
    acquired_at: str | None = None
    cmyk: bool = False
    orientation: int = 1
    done: tuple[str, ...] = ()
    copied: Callable[[], Sequence[CopiedLevel]] = field(default=lambda: ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """All that a reader found in one file; `pictures` are label and macro, RGB, by name."""

    scenes: list[Scene]
    reader: str
    pictures: dict[str, Pixels] = field(default_factory=dict)
    done: tuple[str, ...] = ()
    close: Callable[[], None] = field(default=lambda: None)


#: Pixels of so many bytes are decoded tile by tile in threads: hardly any others are decoded ahead.
_IN_THREADS_BYTES = 128 << 20
_SHARES_OF_A_THREAD = 4


def each(do: Callable[[int], None], numbers: range, *, out_bytes: int) -> None:
    """Do it with each of the tiles `numbers`, which fill `out_bytes` of pixels; in threads if those are many."""

    def some(share: range) -> None:
        for number in share:
            do(number)

    if out_bytes < _IN_THREADS_BYTES:
        return some(numbers)
    cores = len(os.sched_getaffinity(0))
    shares = cores * _SHARES_OF_A_THREAD
    with ThreadPoolExecutor(cores, "tiles") as pool:
        for _ in pool.map(some, (numbers[first::shares] for first in range(shares))):
            pass
    return None


def swapped(pixels: Pixels) -> Pixels:
    """BGR as RGB, or the other way round: (rows, columns, 3), a copy.

    One sample after the other, for numpy's inner loop is then as long as a row: `[:, :, ::-1]` lets
    the next copy go pixel by pixel, and takes six times as long.
    """
    found = np.empty(pixels.shape, pixels.dtype)
    for sample in range(3):
        found[:, :, sample] = pixels[:, :, 2 - sample]
    return found


def check_size(width: int, height: int, config: Config, *, samples: int = 1) -> None:
    """Refuse what has no pixels, or more of them or of their samples than the limits.

    Raises
    ------
    ConversionError
        `no_pixels`, `too_many_pixels`, `side_too_long` or `too_many_samples`.
    """
    if width <= 0 or height <= 0 or samples <= 0:
        without = " without samples" if samples <= 0 else ""
        raise ConversionError("no_pixels", f"it is {width} x {height} pixels{without}")
    if refusal := limits.of_image(width, height, config.limits, samples=samples):
        raise ConversionError(*refusal)


def check_expansion(decoded_bytes: int, source_bytes: int, config: Config) -> None:
    """Refuse what promises more pixels than its bytes can honestly hold.

    Raises
    ------
    ConversionError
        `expansion`.
    """
    if refusal := limits.of_expansion(decoded_bytes, source_bytes, config.limits):
        raise ConversionError(*refusal)


def check_memory(need: int, config: Config, what: str) -> None:
    """Refuse what cannot be held in memory, before anything is decoded.

    Raises
    ------
    ConversionError
        `too_large_for_memory`.
    """
    budget = config.sandbox.memory_bytes // 2
    if need > budget:
        raise ConversionError(
            "too_large_for_memory",
            f"{what} needs {need:,} bytes of memory, {budget:,} may be used "
            "(half of sandbox.memory_bytes)",
        )


def damaged(said: object) -> ConversionError:
    """The error of an image whose pixels cannot be read; `said` is what its reader said."""
    if isinstance(said, BaseException):
        return ConversionError("damaged", quoting("its pixels cannot be read", said))
    return ConversionError("damaged", f"its pixels cannot be read: {said}")
