"""The application: the gate around one list of routes, gathered from the modules that have pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from cytowatch.config import Config
from cytowatch.panel import actions as actions_room
from cytowatch.panel import (
    api,
    details,
    downloads,
    files,
    health,
    login,
    pixels,
    projects,
    reasons_page,
    storage,
    upload_page,
)
from cytowatch.panel.context import Context
from cytowatch.panel.gate import Gate
from cytowatch.panel.measures import Measures
from cytowatch.panel.refused import as_page
from cytowatch.panel.sessions import Sessions
from cytowatch.panel.uploads import Uploads
from cytowatch.tree.spool import Spool

__all__ = ["make_app"]

_STATIC = Path(__file__).parent / "static"


def make_app(
    root: Path,
    config: Config,
    *,
    actions: bool = False,
    reload: Callable[[], Config] | None = None,
) -> Starlette:
    """The panel of the tree at `root`.

    Parameters
    ----------
    actions
        With ``auth = "none"``: let anyone act.
    reload
        Reads the configuration again, at SIGHUP.

    Raises
    ------
    RootError
        There is no tree of our layout.
    """
    spool = Spool.open(root)
    context = Context(
        spool=spool, config=config, sessions=Sessions(spool), actions=actions, reload=reload
    )
    measures = Measures()
    room = pixels.Room(context)
    uploads = Uploads(context)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        always = [asyncio.create_task(one) for one in (uploads.sweep(), uploads.announce())]
        yield
        for task in always:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await room.close()

    app = Starlette(
        routes=_routes(context, measures, room, uploads),
        lifespan=lifespan,
        middleware=[Middleware(Gate, context=context, measures=measures)],
        exception_handlers={HTTPException: _refuse(context)},
    )
    # The redirect would name the host that the request states.
    app.router.redirect_slashes = False
    app.state.context = context
    app.state.measures = measures
    return app


def _routes(
    context: Context, measures: Measures, room: pixels.Room, uploads: Uploads
) -> list[BaseRoute]:
    """Every address; each module adds its own."""
    return [
        *storage.routes(context, uploads.moving),
        *files.routes(context),
        *downloads.routes(context),
        # Before the details: a longer address is not another id.
        *pixels.routes(room),
        *details.routes(context),
        *projects.routes(context),
        *reasons_page.routes(context),
        *api.routes(context, uploads.moving),
        *actions_room.routes(context, measures),
        *uploads.routes(),
        *upload_page.routes(context),
        *login.routes(context, measures),
        *health.routes(context, measures),
        Mount("/static", _Static(directory=_STATIC), name="static"),
    ]


class _Static(StaticFiles):
    """Files of the package, which a browser keeps for an hour and then asks for again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        scope["state"]["route"] = "static"
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "public, max-age=3600"
        return answer


def _refuse(context: Context) -> Callable[[Request, Exception], Response]:
    """The answer to what is not there or not allowed: a page, or JSON for programs."""

    def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return as_page(context, request, error.status_code, error.detail, error.headers)

    return answer
