"""``/reasons/<reason>``: what one reason means, and what to do about it."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cytowatch.panel.context import Context
from cytowatch.panel.rendering import page
from cytowatch.record import reasons

__all__ = ["routes"]


def routes(context: Context) -> list[Route]:
    """One page for each reason and for each word of what waits, and the list of them."""

    def every(request: Request) -> Response:
        found = sorted(reasons.REASONS, key=lambda one: one.word)
        return page(context, request, "reasons.html", found=found, waiting=reasons.WAITING)

    def one(request: Request) -> Response:
        word = request.path_params["reason"]
        found = reasons.of(word) or reasons.WAITING.get(word)
        if found is None:
            raise HTTPException(404)
        stages = getattr(found, "stages", ())
        return page(context, request, "reason.html", word=word, found=found, stages=stages)

    return [
        Route("/reasons", every, name="reasons"),
        Route("/reasons/{reason}", one, name="reasons"),
    ]
