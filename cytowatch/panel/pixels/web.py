"""The viewer's page and what it asks for: facts, tiles, thumbnails of scenes, label and macro."""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cytowatch.panel.pixels.pool import BusyError, DecoderError
from cytowatch.panel.pixels.room import Picture, Room, Window
from cytowatch.panel.pixels.slides import Image, NoSuchError, Slide, open_inside
from cytowatch.panel.rendering import page

__all__ = ["answer", "etag", "is_known", "numbers", "routes"]

#: A tile never changes. A day, not for ever: anyone who may no longer see a slide keeps it for so long.
_FOR_GOOD = "private, max-age=86400, immutable"
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_SAMPLE = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)
_LARGEST_ASSOCIATED = 32 << 20
_SHOWN = ("label", "macro")

Handler = Callable[[Request], Awaitable[Response]]


def routes(room: Room) -> list[Route]:
    """The addresses of the viewer."""

    def route(
        path: str, handler: Callable[[Room, Request], Awaitable[Response]], name: str
    ) -> Route:
        return Route(path, _answered(room, handler), name=name)

    return [
        route("/tiles/{id}/{scene}/{level}/{place}.jpg", _tile, "tile"),
        route("/tiles/{id}/info.json", _info, "view"),
        route("/tiles/{id}/{scene}/window.json", _window, "view"),
        route("/tiles/{id}/{scene}/thumbnail.jpg", _thumbnail, "tile"),
        route("/tiles/{id}/{role}.jpg", _associated, "tile"),
        route("/files/{id}/view", _view, "view"),
    ]


def _answered(
    room: Room, handler: Callable[[Room, Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            return await handler(room, request)
        except NoSuchError:
            raise HTTPException(404) from None
        except BusyError:
            raise HTTPException(503, headers={"Retry-After": "1"}) from None

    return answered


def numbers(*texts: str) -> list[int]:
    """`texts` as whole numbers.

    Raises
    ------
    NoSuchError
        One of them is not one, so nothing has that address.
    """
    if not all(_NUMBER.fullmatch(one) for one in texts):
        raise NoSuchError
    return [int(one) for one in texts]


def etag(image: Image, *parts: object) -> str:
    """What names a picture of `image` for good."""
    return f'"{image.tag}-{"-".join(str(part) for part in parts)}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether the browser has the picture `tag` already."""
    known = request.headers.get("if-none-match", "")
    return tag in (one.strip().removeprefix("W/") for one in known.split(","))


def answer(picture: Picture, tag: str, headers: dict[str, str] | None = None) -> Response:
    """A picture that may be kept; a grey one that may not."""
    kept = (
        {"Cache-Control": "no-store"} if picture.lost else {"Cache-Control": _FOR_GOOD, "ETag": tag}
    )
    return Response(picture.data, media_type="image/jpeg", headers={**(headers or {}), **kept})


def unchanged(tag: str, headers: dict[str, str] | None = None) -> Response:
    """The browser's own copy is right."""
    return Response(
        status_code=304, headers={**(headers or {}), "Cache-Control": _FOR_GOOD, "ETag": tag}
    )


async def _tile(room: Room, request: Request) -> Response:
    asked = request.path_params
    column, _, row = asked["place"].partition("_")
    scene, level, x, y = numbers(asked["scene"], asked["level"], column, row)
    slide = await room.slide(request, asked["id"])
    image = await room.image(slide, scene)
    window = _asked_window(request, image)
    tag = etag(image, level, x, y, *(window or ()))
    if is_known(request, tag):
        return unchanged(tag)
    return answer(await room.tile(slide, scene, level, x, y, window), tag)


def _asked_window(request: Request, image: Image) -> Window | None:
    """The window that the address names; None where it names none."""
    if not request.scope["query_string"] or not image.windowed:
        return None
    low, high = request.query_params.get("low"), request.query_params.get("high")
    if low is None and high is None:
        return None
    if not all(one is not None and _SAMPLE.fullmatch(one) for one in (low, high)):
        raise HTTPException(400, "low and high are numbers")
    found = float(low or 0), float(high or 0)
    if found[0] >= found[1]:
        raise HTTPException(400, "low is less than high")
    return found


async def _thumbnail(room: Room, request: Request) -> Response:
    [scene] = numbers(request.path_params["scene"])
    slide = await room.slide(request, request.path_params["id"])
    image = await room.image(slide, scene)
    tag = etag(image, "thumbnail")
    if is_known(request, tag):
        return unchanged(tag)
    return answer(await room.thumbnail(slide, scene), tag)


async def _window(room: Room, request: Request) -> Response:
    [scene] = numbers(request.path_params["scene"])
    slide = await room.slide(request, request.path_params["id"])
    image = await room.image(slide, scene)
    if not image.windowed:
        raise NoSuchError
    try:
        low, high = await room.window(slide, scene)
    except DecoderError as error:
        raise HTTPException(503, "The samples of this image cannot be read now") from error
    most = (1 << image.entry["bits_per_sample"]) - 1
    return JSONResponse({"low": low, "high": high, "most": max(most, math.ceil(high))})


async def _info(room: Room, request: Request) -> Response:
    slide = await room.slide(request, request.path_params["id"])
    images = {scene: await room.image(slide, scene) for scene in slide.scenes}
    base = room.context.panel.base_path
    return JSONResponse(
        {
            "id": slide.id,
            "name": slide.manifest["name"],
            "images": [_facts(f"{base}/tiles/{slide.id}", n, one) for n, one in images.items()],
            "associated": _pictures(room, slide, base),
        }
    )


def _facts(address: str, scene: int, image: Image) -> dict[str, Any]:
    entry = image.entry
    return {
        "scene": scene,
        "width": image.size[0],
        "height": image.size[1],
        "mpp_x": entry["mpp_x"],
        "mpp_y": entry["mpp_y"],
        "objective_power": entry["objective_power"],
        "bits": entry["bits_per_sample"],
        "tag": image.tag,
        "tiles": f"{address}/{scene}",
        "levels": [
            {
                "width": level.width,
                "height": level.height,
                "tile_width": level.tile_width,
                "tile_height": level.tile_height,
            }
            for level in image.levels
        ],
    }


def _pictures(room: Room, slide: Slide, base: str) -> list[dict[str, str]]:
    """Label and macro, where the configuration shows them."""
    if not room.context.panel.labels:
        return []
    return [
        {"role": role, "address": f"{base}/tiles/{slide.id}/{role}.jpg"}
        for role in _SHOWN
        if slide.file(role) is not None
    ]


async def _associated(room: Room, request: Request) -> Response:
    """A label or a macro: both can carry a patient's name, so they exist only where they are shown."""
    role = request.path_params["role"]
    slide = await room.slide(request, request.path_params["id"])
    row = slide.file(role) if role in _SHOWN and room.context.panel.labels else None
    if row is None:
        raise NoSuchError
    try:
        data = await asyncio.to_thread(_read, slide, row["path"])
    except (OSError, ValueError):
        raise NoSuchError from None
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, no-cache"})


def _read(slide: Slide, path: str) -> bytes:
    descriptor = open_inside(slide.directory, path)
    with open(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > _LARGEST_ASSOCIATED:
            raise ValueError("too large for a label")
        return file.read(_LARGEST_ASSOCIATED)


async def _view(room: Room, request: Request) -> Response:
    slide = await room.slide(request, request.path_params["id"])
    return page(room.context, request, "view.html", slide=slide, manifest=slide.manifest)
