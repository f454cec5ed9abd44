"""Deriving a pyramid: one tiled TIFF with a level for each halving.

JPEG is written by an encoder of our own, lossless ones by libvips.

OpenSlide sees one level only of a pyramid in SubIFDs, so every level is a page of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyvips

from cytowatch.config.keys import Convert
from cytowatch.model import Mpp, Progress
from cytowatch.pyramid import resolution
from cytowatch.pyramid.copied import YCBCR, CopiedLevel, largest_tile
from cytowatch.pyramid.encode import levels
from cytowatch.pyramid.encode import settings as settings_module
from cytowatch.pyramid.pixels import Pixels

__all__ = [
    "THUMBNAIL_PX",
    "compression_of",
    "estimate_bytes",
    "level_image",
    "threads_for",
    "write_pyramid",
    "write_thumbnail",
]

#: The rows of an image from top to bottom, at most so many at a time: (rows, width, samples).
Bands = Callable[[int], Iterator[Pixels]]

#: The longer side of a thumbnail, in pixels.
THUMBNAIL_PX = 512
#: From this many bytes of pixels on the file may outgrow the 4 GiB of a classic TIFF.
_BIG_BYTES = 1 << 31
#: Rows that are read from libvips at once: a whole band of them falls out of the processor's cache,
#: and takes half as long again.
_FETCHED_ROWS = 16
#: Smaller images are encoded by one thread each: there are more of them than cores.
_ONE_THREAD_BELOW = 4_000_000


def compression_of(image: Any, settings: Convert) -> str:
    """``jpeg`` for 8-bit samples unless configured otherwise, else ``deflate``."""
    lossy = image.format == "uchar" and settings.compression == "jpeg"
    return "jpeg" if lossy else "deflate"


def estimate_bytes(image: Any, settings: Convert, copied: Sequence[CopiedLevel] = ()) -> int:
    """What the pyramid of `image` may take at most on disk.

    Lossless ones at worst a little more than the pixels of all levels; JPEG of noise took a
    quarter of them at quality 90. What is copied is as large as it is.
    """
    if copied:
        last = copied[-1]
        below = last.width * last.height * 3 * 2 // 5 // 3
        return sum(level.size_bytes for level in copied) + below
    samples = 1 if image.format == "uchar" else 2
    raw = int(image.width * image.height * image.bands * samples)
    return raw * 7 // 5 if compression_of(image, settings) != "jpeg" else raw * 2 // 5


def write_pyramid(
    image: Any,
    path: str,
    settings: Convert,
    mpp: Mpp | None,
    progress: Progress,
    *,
    threads: str | int = "auto",
    bands: Bands | None = None,
    copied: Sequence[CopiedLevel] = (),
) -> None:
    """Write the levels of `image` to `path`.

    Parameters
    ----------
    image
        8 or 16 bits unsigned, one or three samples; it is read once, from top to bottom.
    mpp
        Pixel size; without one the file states none.
    threads
        That encode; ``auto`` is one for a small image and one per core for others.
    bands
        Where its rows can be read without libvips: asked for at most so many rows at a time.
    copied
        Its first levels, which are JPEG already; `bands` are then those of the last of them.

    Raises
    ------
    pyvips.Error
        The source cannot be read to its end, or the file cannot be written.
    OSError
        The file cannot be written.
    Unlike
        The tiles of a copied level are of several kinds.
    """
    if compression_of(image, settings) == "jpeg":
        rows = bands or _by_libvips(image)
        _encode(image, path, settings, mpp, progress, threads, rows, copied)
    else:
        _write_lossless(image, path, settings, mpp, progress)


def _encode(
    image: Any,
    path: str,
    settings: Convert,
    mpp: Mpp | None,
    progress: Progress,
    threads: str | int,
    bands: Bands,
    copied: Sequence[CopiedLevel],
) -> None:
    width, height, samples = image.width, image.height, image.bands
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None

    tile = _tile_of(image, copied, settings)
    size = max(width * height * samples * 4 // 3, 2 * sum(level.size_bytes for level in copied))
    ycbcr = settings.colour == "ycbcr" or settings.quality < settings_module.FULL_CHROMA
    across = copied[-1].width if copied else width
    rows = copied[-1].height if copied else height
    pixels = float(sum(level.width * level.height for level in copied))
    if not copied or max(across, rows) > tile:
        pixels += across * rows
    done = 0.0

    def told(more: float) -> None:
        nonlocal done
        done += more
        progress(min(1.0, done / pixels))

    def blocks() -> Iterator[Pixels]:
        for band in bands(tile):
            yield band
            told(len(band) * across)

    levels.encode(
        blocks(),
        width,
        height,
        samples,
        path,
        settings_module.Settings(
            tile=tile,
            quality=settings.quality,
            ycbcr=copied[-1].photometric == YCBCR if copied else ycbcr,
            big=size > _BIG_BYTES,
            per_cm=(10_000 / mpp.x, 10_000 / mpp.y) if mpp is not None else None,
            icc_profile=bytes(profile) if profile is not None else None,
            threads=threads_for(threads, width * height),
        ),
        copied,
        told,
    )


def _tile_of(image: Any, copied: Sequence[CopiedLevel], settings: Convert) -> int:
    """The side of the tiles that are made: that of those which are copied, if they are square."""
    if copied and copied[-1].tile[0] == copied[-1].tile[1]:
        return copied[-1].tile[0]
    return min(settings.tile, largest_tile(image.width, image.height))


def _by_libvips(image: Any) -> Bands:
    # One region, which asks from top to bottom: threads of libvips would ask a sequential source
    # for rows that it has passed.
    region = pyvips.Region.new(image)
    width, height, samples = image.width, image.height, image.bands

    def bands(rows: int) -> Iterator[Pixels]:
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            band = np.empty((bottom - top, width, samples), np.uint8)
            for row in range(top, bottom, _FETCHED_ROWS):
                count = min(_FETCHED_ROWS, bottom - row)
                data = np.frombuffer(region.fetch(0, row, width, count), np.uint8)
                band[row - top : row - top + count] = data.reshape(count, width, samples)
            yield band

    return bands


def threads_for(configured: str | int, pixels: int) -> int:
    """How many threads an image of so many pixels is worth."""
    if isinstance(configured, int):
        return configured
    return 1 if pixels < _ONE_THREAD_BELOW else len(os.sched_getaffinity(0))


def _write_lossless(
    image: Any, path: str, settings: Convert, mpp: Mpp | None, progress: Progress
) -> None:
    if mpp is not None:
        image = image.copy(xres=1000 / mpp.x, yres=1000 / mpp.y)
    else:
        image = image.copy(xres=1.0, yres=1.0)
    image = image.copy()
    # What the orientation or the pages of the source were is not a property of the pyramid.
    for name in ("orientation", "n-pages", "page-height", "exif-data", "xmp-data", "iptc-data"):
        if image.get_typeof(name):
            image.remove(name)
    image.set_progress(True)
    image.signal_connect("eval", lambda _image, told: progress(told.percent / 100))
    samples = 1 if image.format == "uchar" else 2
    tile = _tile_of(image, (), settings)
    image.tiffsave(
        path,
        tile=True,
        tile_width=tile,
        tile_height=tile,
        pyramid=True,
        subifd=False,
        depth="onetile",
        resunit="cm",
        bigtiff=image.width * image.height * image.bands * samples * 4 // 3 > _BIG_BYTES,
        compression=compression_of(image, settings),
        predictor="horizontal",
    )
    if mpp is None:
        resolution.erase(path)


def write_thumbnail(image: Any, path: str) -> None:
    """Write `image`, fitted into 512 x 512 pixels, as an sRGB JPEG without any metadata."""
    small = image.thumbnail_image(THUMBNAIL_PX, height=THUMBNAIL_PX, size="down")
    if small.format == "ushort":
        small = small.colourspace("b-w" if small.bands < 3 else "srgb")
    if small.hasalpha():
        small = small.flatten(background=[255])
    small.cast("uchar").jpegsave(path, Q=85, keep="icc")


def level_image(path: str, page: int) -> Any:
    """One page of a TIFF of our own as an image."""
    return pyvips.Image.tiffload(path, page=page)
