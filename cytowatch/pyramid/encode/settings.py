"""How a pyramid is written, and one level of it as it grows."""

from __future__ import annotations

from dataclasses import dataclass, field

from cytowatch.pyramid.copied import CopiedLevel
from cytowatch.pyramid.pixels import Pixels

__all__ = ["FULL_CHROMA", "GREY", "JPEG", "REDUCED", "Level", "Settings"]

#: From here on chroma is not subsampled, as libvips has it.
FULL_CHROMA = 90
GREY = 1
JPEG = 7
REDUCED = 1


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


@dataclass(slots=True)
class Level:
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
