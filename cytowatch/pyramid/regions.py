"""What a reader gives of an image that libvips does not read: rows, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cytowatch.model import Mpp
from cytowatch.pyramid.copied import CopiedLevel
from cytowatch.pyramid.pixels import Pixels

__all__ = ["Opened", "RegionReader", "Scene"]


class RegionReader(Protocol):
    """An image whose rows can be read in any order, from several threads at a time.

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
