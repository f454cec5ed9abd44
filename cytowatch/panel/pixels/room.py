"""What is answered with pixels: a tile as it lies in its file, else drawn by a decoder process."""

from __future__ import annotations

import asyncio
import functools
import io
from dataclasses import dataclass
from typing import Any

import PIL.Image
from starlette.requests import Request

from cytowatch.observe import logs
from cytowatch.panel.context import Context, person_of
from cytowatch.panel.pixels import jpegs
from cytowatch.panel.pixels.pool import DecoderError, Pool
from cytowatch.panel.pixels.slides import Image, Kept, Level, NoSuchError, Slide

__all__ = ["Picture", "Room"]

_GREY = 128
#: The longest side of a scene in the strip.
_THUMBNAIL_PX = 240

Window = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A JPEG; `lost` where a decoder failed, and it is grey."""

    data: bytes
    lost: bool = False


class Room:
    """Guards what all addresses of pixels share: the slides that are open, and the decoders."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.kept = Kept()
        self.pool = Pool(context.config)
        self._log = logs.get()

    async def close(self) -> None:
        """End the decoders."""
        await self.pool.close()

    async def slide(self, request: Request, id: str) -> Slide:  # noqa: A002
        """The slide `id`, if the person who asks may see it.

        Raises
        ------
        HTTPException
            404: this person may not see it, or there is none.
        NoSuchError
            It is not deployed.
        """
        ask = functools.partial(self.context.entry, request, id)
        return await self.kept.slide(person_of(request), id, ask)

    async def image(self, slide: Slide, scene: int) -> Image:
        """One scene of a slide, opened in a thread when it is first asked for. As `Slide.image`."""
        held = slide.opened(scene)
        return held if held is not None else await asyncio.to_thread(slide.image, scene)

    async def tile(
        self, slide: Slide, scene: int, level: int, column: int, row: int, window: Window | None
    ) -> Picture:
        """One tile of a level.

        Raises
        ------
        NoSuchError
            There is none.
        BusyError
            Too much is asked for at once.
        """
        image = await self.image(slide, scene)
        if not 0 <= level < len(image.levels):
            raise NoSuchError
        one = image.levels[level]
        box = one.box(column, row)
        if window is None:
            data = await self._as_it_lies(image, one, column, row)
            if data is not None:
                return Picture(data=data)
        return await self.drawn(slide, image, level, box, (box[2], box[3]), window)

    async def region(
        self, slide: Slide, scene: int, box: tuple[int, int, int, int], size: tuple[int, int]
    ) -> Picture:
        """The box of level 0 in `size` pixels, from the smallest level that has as many. As `tile`."""
        image = await self.image(slide, scene)
        level = _level_for(image, box[2] / size[0])
        one = image.levels[level]
        inside = _scaled(box, image.size, one)
        column, row = inside[0] // one.tile_width, inside[1] // one.tile_height
        whole = (column * one.tile_width, row * one.tile_height, *size)
        if inside == whole and size == (one.tile_width, one.tile_height):
            data = await self._as_it_lies(image, one, column, row)
            if data is not None:
                return Picture(data=data)
        return await self.drawn(slide, image, level, inside, size, None)

    async def thumbnail(self, slide: Slide, scene: int) -> Picture:
        """All of a scene, small. As `tile`."""
        image = await self.image(slide, scene)
        width, height = image.size
        scale = min(1.0, _THUMBNAIL_PX / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return await self.region(slide, scene, (0, 0, width, height), size)

    async def window(self, slide: Slide, scene: int) -> Window:
        """(low, high): the samples that are shown as black and white by default.

        Raises
        ------
        NoSuchError, BusyError
            As `tile`.
        DecoderError
            Its decoder cannot say.
        """
        image = await self.image(slide, scene)
        return await self.pool.window(slide.id, slide.directory, image.facts)

    async def drawn(
        self,
        slide: Slide,
        image: Image,
        level: int,
        box: tuple[int, int, int, int],
        size: tuple[int, int],
        window: Window | None,
    ) -> Picture:
        """A box of a level as its decoder draws it; grey if it cannot.

        Raises
        ------
        BusyError
            Too much is asked for at once.
        """
        question: dict[str, Any] = {**image.facts, "level": level, "box": box, "size": size}
        if window is not None:
            question["window"] = window
        try:
            return Picture(data=await self.pool.picture(slide.id, slide.directory, question))
        except DecoderError as error:
            self._log.warning(
                "tile_lost", id=slide.id, scene=image.entry["scene"], at_level=level, box=box,
                detail=str(error),
            )  # fmt: skip
            return Picture(data=_grey(size), lost=True)

    async def _as_it_lies(self, image: Image, level: Level, column: int, row: int) -> bytes | None:
        """A tile without decoding it; None where it has to be decoded."""
        if level.plain is None:
            return None
        try:
            return level.plain.read(column, row, image.at_once)
        except jpegs.NotPlainError:
            return None
        except OSError:
            # It is not in memory, or this filesystem cannot say: a thread waits for the disk.
            pass
        try:
            return await asyncio.to_thread(level.plain.read, column, row, image.waiting)
        except (jpegs.NotPlainError, OSError):
            return None


def _level_for(image: Image, scale: float) -> int:
    """The smallest level in which a pixel is no more than `scale` pixels of level 0."""
    width = image.size[0]
    # A level's width is rounded, and so is the scale that somebody asks for.
    fine = [n for n, one in enumerate(image.levels) if width / one.width <= scale * 1.01]
    return max(fine, default=0)


def _scaled(
    box: tuple[int, int, int, int], image: tuple[int, int], level: Level
) -> tuple[int, int, int, int]:
    """A box of level 0 in the pixels of `level`, rounded to whole ones that lie in it."""
    across, down = level.width / image[0], level.height / image[1]
    x = min(level.width - 1, round(box[0] * across))
    y = min(level.height - 1, round(box[1] * down))
    right = max(x + 1, min(level.width, round((box[0] + box[2]) * across)))
    bottom = max(y + 1, min(level.height, round((box[1] + box[3]) * down)))
    return x, y, right - x, bottom - y


@functools.lru_cache(maxsize=64)
def _grey(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("L", size, _GREY).save(out, "JPEG")
    return out.getvalue()
