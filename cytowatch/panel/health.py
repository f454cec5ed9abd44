"""``/healthz`` and ``/metrics``, for this machine only."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cytowatch import __version__
from cytowatch.panel.context import Context
from cytowatch.panel.gate import is_loopback
from cytowatch.panel.measures import Measures
from cytowatch.panel.refused import why_unreachable

__all__ = ["routes"]


def routes(context: Context, measures: Measures) -> list[Route]:
    """The two addresses that programs of this machine ask."""

    def healthz(request: Request) -> Response:
        _local(request)
        reasons: dict[str, str] = {}
        if why := why_unreachable(context):
            reasons["root"] = why
        body = {
            "status": "failing" if reasons else "ok",
            "reasons": reasons,
            "version": __version__,
        }
        return JSONResponse(body, 503 if reasons else 200)

    def metrics(request: Request) -> Response:
        _local(request)
        return Response(measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [
        Route("/healthz", healthz, name="metrics"),
        Route("/metrics", metrics, name="metrics"),
    ]


def _local(request: Request) -> None:
    """Raise 404 unless the request comes from this machine, and not through a proxy on it."""
    if not is_loopback(request.scope):
        raise HTTPException(404)
