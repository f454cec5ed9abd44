"""Reading back what is to be published: every level, at its corners and in its middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import openslide
import pyvips

from cytowatch import durable
from cytowatch.model import Progress
from cytowatch.pyramid.copied import CopiedLevel, Unlike
from cytowatch.record.entries import ImageEntry
from cytowatch.record.errors import DeploymentError
from cytowatch.record.quoting import quoting

__all__ = ["read_everything", "read_levels", "read_pages", "read_tiles", "sha256"]

#: A pixel is enough to decode its tile; drawing more of it costs OpenSlide five times as long.
_LOOK_PX = 16
#: Where everything is read, so much at a time: 16 MiB.
_PIECE_PX = 2048
#: Small enough to stay in the processor's cache between the read and the hash: a twentieth faster.
_CHUNK_BYTES = 256 << 10


def read_levels(
    slide: openslide.OpenSlide, *, reason: str = "verification_failed"
) -> tuple[int, int]:
    """Read all levels of an open slide; gives how many, and how many regions.

    Raises
    ------
    DeploymentError
        A region cannot be read, for that `reason`.
    """
    regions = 0
    for level, (width, height) in enumerate(slide.level_dimensions):
        scale = slide.level_downsamples[level]
        for x, y in _corners(width, height):
            try:
                slide.read_region(
                    (int(x * scale), int(y * scale)),
                    level,
                    (min(_LOOK_PX, width), min(_LOOK_PX, height)),
                )
            except openslide.OpenSlideError as error:
                raise _unreadable(reason, level, x, y, str(error)) from error
            regions += 1
    return slide.level_count, regions


def read_everything(path: str, progress: Progress) -> None:
    """Let OpenSlide read every pixel of the slide at `path`.

    Raises
    ------
    openslide.OpenSlideError
        It cannot.
    """
    with openslide.OpenSlide(path) as slide:
        areas = [width * height for width, height in slide.level_dimensions]
        done = 0
        for level, (width, height) in enumerate(slide.level_dimensions):
            scale = slide.level_downsamples[level]
            for y in range(0, height, _PIECE_PX):
                for x in range(0, width, _PIECE_PX):
                    size = (min(_PIECE_PX, width - x), min(_PIECE_PX, height - y))
                    slide.read_region((int(x * scale), int(y * scale)), level, size)
                    done += size[0] * size[1]
                    progress(done / sum(areas))


def read_pages(
    path: str, image: ImageEntry, *, reason: str = "verification_failed"
) -> tuple[int, int]:
    """The same for a TIFF that only libvips opens; each level is a page of it.

    Raises
    ------
    DeploymentError
        A region cannot be read, for that `reason`, or a level has another size than it should.
    """
    regions = 0
    for page, level in enumerate(image["levels"]):
        try:
            # A flat image that is deployed as it is has one level, and need not be a TIFF.
            found = (
                pyvips.Image.new_from_file(path)
                if len(image["levels"]) == 1
                else pyvips.Image.tiffload(path, page=page)
            )
        except pyvips.Error as error:
            raise _unreadable(reason, page, 0, 0, str(error)) from error
        if (found.width, found.height) != (level["width"], level["height"]):
            raise DeploymentError(
                "verification_failed", f"level {page} is {found.width} x {found.height} pixels"
            )
        for x, y in _corners(found.width, found.height):
            try:
                found.crop(x, y, min(_LOOK_PX, found.width), min(_LOOK_PX, found.height)).avg()
            except pyvips.Error as error:
                raise _unreadable(reason, page, x, y, str(error)) from error
            regions += 1
    return len(image["levels"]), regions


def read_tiles(
    path: str, levels: Sequence[CopiedLevel], progress: Progress, *, threads: int
) -> None:
    """Let OpenSlide read every tile of `levels`, which a pyramid begins with.

    It refuses what libjpeg itself only warns of, such as a tile that ends early.

    Raises
    ------
    Unlike
        It cannot; `said` is what it says.
    """
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise Unlike(0, str(error)) from error
    with slide, ThreadPoolExecutor(threads, "read") as pool:
        for level in levels:
            scale = slide.level_downsamples[level.number]

            def read(row: int, level: CopiedLevel = level, scale: float = scale) -> None:
                wide, tall = level.tile
                y = (row * tall + min((row + 1) * tall, level.height)) // 2
                for column in range(level.across):
                    x = (column * wide + min((column + 1) * wide, level.width)) // 2
                    slide.read_region((int(x * scale), int(y * scale)), level.number, (1, 1))

            try:
                for _ in pool.map(read, range(level.tiles // level.across)):
                    # All of it is written; this says that something moves.
                    progress(1.0)
            except openslide.OpenSlideError as error:
                raise Unlike(level.number, str(error)) from error


def sha256(
    path: str,
    progress: Progress,
    *,
    size_bytes: int,
    look: Callable[[bytes], None] = lambda _chunk: None,
) -> str:
    """The SHA-256 of the file at `path`, in hexadecimal; `look` is shown every chunk, in order."""
    done = 0

    def seen(chunk: bytes) -> None:
        nonlocal done
        look(chunk)
        done += len(chunk)
        progress(done / max(1, size_bytes))

    with open(path, "rb", buffering=0) as file:
        return durable.sha256(file.read, seen, chunk_bytes=_CHUNK_BYTES)


def _corners(width: int, height: int) -> Iterator[tuple[int, int]]:
    right, bottom = max(0, width - _LOOK_PX), max(0, height - _LOOK_PX)
    yield from sorted({(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)})


def _unreadable(reason: str, level: int, x: int, y: int, said: str) -> DeploymentError:
    return DeploymentError(reason, quoting(f"level {level} cannot be read at {x}, {y}", said))
