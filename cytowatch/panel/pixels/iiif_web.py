"""The addresses of the IIIF Image API: what `iiif` understands, answered with pixels or with words.

Any page may read the answers (CORS), as the API asks for. A browser sends no cookie with such a
request, so a page elsewhere sees a slide only with a token, or where everybody on this machine may.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from cytowatch.panel.gate import host_of, is_trusted
from cytowatch.panel.pixels import iiif, web
from cytowatch.panel.pixels.pool import BusyError
from cytowatch.panel.pixels.room import Room
from cytowatch.panel.pixels.slides import NoSuchError, Slide

__all__ = ["routes"]

_FOR_ALL = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_PREFLIGHT = {
    **_FOR_ALL,
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Accept",
    "Access-Control-Max-Age": "86400",
}
_METHODS = ["GET", "OPTIONS"]
_PREFIX = "/iiif/3"

Handler = Callable[[Room, Request], Awaitable[Response]]


def routes(room: Room) -> list[Route]:
    """The base address, ``info.json`` and pictures."""

    def route(path: str, handler: Handler) -> Route:
        return Route(_PREFIX + path, _open_to_all(room, handler), methods=_METHODS, name="iiif")

    return [
        route("/{name}", _base),
        route("/{name}/info.json", _info),
        route("/{name}/{region}/{size}/{rotation}/{last}", _picture),
    ]


def _open_to_all(room: Room, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        if request.method == "OPTIONS":
            # Says the same of what is there, what is not, and what is somebody else's.
            return Response(status_code=204, headers=_PREFLIGHT)
        try:
            return await handler(room, request)
        except iiif.RefusedError as error:
            return JSONResponse({"error": str(error)}, error.code, headers=_FOR_ALL)
        except NoSuchError:
            return _nothing()
        except BusyError:
            said = {"error": "too much is asked for at once"}
            return JSONResponse(said, 503, headers={**_FOR_ALL, "Retry-After": "1"})
        except HTTPException as error:
            if error.status_code != 404:
                raise
            return _nothing()

    return answered


def _nothing() -> Response:
    return JSONResponse({"error": "there is no such image"}, 404, headers=_FOR_ALL)


async def _scene(room: Room, request: Request) -> tuple[Slide, int]:
    """The slide and the scene that ``<id>[~<scene>]`` names."""
    id_, tilde, scene = request.path_params["name"].partition("~")
    numbers = web.numbers(scene) if tilde else []
    slide = await room.slide(request, id_)
    return slide, (numbers or slide.scenes)[0]


async def _base(room: Room, request: Request) -> Response:
    await room.image(*await _scene(room, request))
    return RedirectResponse(f"{_address(room, request)}/info.json", 303, headers=_FOR_ALL)


async def _info(room: Room, request: Request) -> Response:
    image = await room.image(*await _scene(room, request))
    levels = [(one.width, one.height) for one in image.levels]
    first = image.levels[0]
    tile = (first.tile_width, first.tile_height)
    document = iiif.info(_address(room, request), levels, tile)
    # Plain JSON for a person's browser, and for anyone who does not ask.
    linked = "application/ld+json" in request.headers.get("accept", "")
    kind = iiif.LD_JSON if linked else "application/json"
    headers = {**_FOR_ALL, "Cache-Control": "private, no-cache", "Vary": "Accept"}
    return JSONResponse(document, media_type=kind, headers=headers)


async def _picture(room: Room, request: Request) -> Response:
    slide, scene = await _scene(room, request)
    image = await room.image(slide, scene)
    part = request.path_params
    asked = iiif.parse(part["region"], part["size"], part["rotation"], part["last"], image.size)
    headers = {**_FOR_ALL, "Link": iiif.LINK}
    tag = web.etag(image, "iiif", *asked.box, *asked.size)
    if web.is_known(request, tag):
        return web.unchanged(tag, headers)
    return web.answer(await room.region(slide, scene, asked.box, asked.size), tag, headers)


def _address(room: Room, request: Request) -> str:
    """The image's own address, as the one who asks sees it: a trusted proxy says what that is."""
    url = URL(scope=request.scope)
    if is_trusted(request.scope, room.context.panel.trusted_proxies):
        forwarded = request.headers
        scheme = forwarded.get("x-forwarded-proto", url.scheme)
        # A proxy may pass on what a client has written there.
        host = forwarded.get("x-forwarded-host", "")
        url = url.replace(
            scheme=scheme if scheme in ("http", "https") else url.scheme,
            netloc=host if host_of(host) else url.netloc,
        )
    name = request.path_params["name"]
    return f"{url.scheme}://{url.netloc}{room.context.panel.base_path}{_PREFIX}/{name}"
