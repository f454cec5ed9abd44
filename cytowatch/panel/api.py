"""``/api/v1``: the same answers as JSON, in the shapes that `cytowatch schema` prints."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cytowatch import __version__
from cytowatch.lifecycle.summary import status_page
from cytowatch.panel import files, listing, projects
from cytowatch.panel.context import Context, Visible
from cytowatch.panel.openapi import document
from cytowatch.panel.uploads.moving import Moving
from cytowatch.record import reasons
from cytowatch.record.manifest import utc
from cytowatch.record.names import fold
from cytowatch.record.status import Status
from cytowatch.tree import find

__all__ = ["routes"]

_MOST = 500
_LAST = 100_000


def _whole(request: Request, name: str, usual: int, most: int) -> int:
    value = request.query_params.get(name)
    if value is None:
        return usual
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= most):
        raise HTTPException(400, f"{name} must be a whole number from 0 to {most}.")
    return int(value)


def _status(context: Context, request: Request) -> dict[str, Any]:
    """What `cytowatch status --json` prints; for a user, only of their own files."""
    seen = context.may_see(request)
    with context.index() as index:
        found = status_page(
            context.spool, index, find.daemon_pid(context.spool), find.live(context.spool)
        )
        if seen.everything:
            return found
        counts = listing.counts(context, index, seen)
        ids = [*found["in_work"], *found["held_up"]]
        mine: set[str] = (
            {row.id for row in listing.rows(index, seen, ids=ids, limit=len(ids))} if ids else set()
        )
    return _only(found, seen, mine, counts)


def _only(
    found: dict[str, Any], seen: Visible, mine: set[str], counts: dict[Status, int]
) -> dict[str, Any]:
    """`found` without what belongs to others, or to administrators."""
    users = {fold(one) for one in seen.users}
    return {
        **found,
        "root": "",
        "files": {status.name: counts[status] for status in Status},
        "oldest": {},
        "in_work": {id_: at for id_, at in found["in_work"].items() if id_ in mine},
        "held_up": {id_: why for id_, why in found["held_up"].items() if id_ in mine},
        "waiting": [one for one in found["waiting"] if fold(one["user"]) in users],
        "paused": {
            **found["paused"], "users": [one for one in found["paused"]["users"] if fold(one) in users],
        },
        "dead_letters": [],
        "last_hour": dict.fromkeys(found["last_hour"], 0),
        "set_aside": [],
        "missing": 0,
    }  # fmt: skip


def _upload(one: Moving) -> dict[str, Any]:
    return {
        "id": one.key,
        "name": one.name,
        "user": one.user,
        "project": one.project or None,
        "share": round(one.share, 4),
        "received_bytes": one.received_bytes,
        "size_bytes": one.size_bytes,
        "files": one.files,
        "whole_files": one.whole_files,
        "since": utc(datetime.fromtimestamp(one.since, UTC)),
        "last_at": utc(datetime.fromtimestamp(one.last_at, UTC)),
    }


def routes(context: Context, uploading: Callable[..., tuple[list[Moving], int]]) -> list[Route]:
    """Every question; the actions are in `actions`."""

    def status(request: Request) -> Response:
        return JSONResponse(_status(context, request))

    def every(request: Request) -> Response:
        asked = files.question(request.query_params)
        limit = _whole(request, "limit", 50, _MOST)
        offset = _whole(request, "offset", 0, _LAST)
        rows = (
            files.answer(context, request, asked, limit=limit or 1, offset=offset) if limit else []
        )
        found = [entry for row in rows if (entry := find.entry(context.spool, row))]
        return JSONResponse([entry.document for entry in found])

    def one(request: Request) -> Response:
        return JSONResponse(context.entry(request, request.path_params["id"]).document)

    def every_upload(request: Request) -> Response:
        limit = _whole(request, "limit", 50, _MOST)
        offset = _whole(request, "offset", 0, _LAST)
        found, _ = uploading(request, limit, offset, load=True)
        return JSONResponse([_upload(one) for one in found])

    def every_project(request: Request) -> Response:
        found = projects.visible_projects(context, request)
        return JSONResponse([{"name": one.name, "files": one.files} for one in found])

    def every_reason(_request: Request) -> Response:
        found = [
            {
                "reason": one.word,
                "means": one.means,
                "technician": one.technician,
                "admin": one.admin,
            }
            for one in reasons.REASONS
        ]
        return JSONResponse(found)

    def openapi(_request: Request) -> Response:
        return JSONResponse(document(context.panel.base_path, __version__))

    return [
        Route("/api/v1/openapi.json", openapi, name="api"),
        Route("/api/v1/status", status, name="api"),
        Route("/api/v1/files", every, name="api"),
        Route("/api/v1/files/{id}", one, name="api"),
        Route("/api/v1/uploads", every_upload, name="api"),
        Route("/api/v1/projects", every_project, name="api"),
        Route("/api/v1/reasons", every_reason, name="api"),
    ]
