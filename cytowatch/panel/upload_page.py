"""``/upload``: the page that adds files; its script speaks tus with `uploads`."""

from __future__ import annotations

import json
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cytowatch.inbox import scan
from cytowatch.panel.context import Context, person_of
from cytowatch.panel.projects import visible_projects
from cytowatch.panel.rendering import page
from cytowatch.panel.who import Proof, is_name
from cytowatch.record import leftovers

__all__ = ["routes"]


def routes(context: Context) -> list[Route]:
    """The page."""

    def upload(request: Request) -> Response:
        if not context.panel.uploads:
            raise HTTPException(404)
        who = person_of(request)
        users: list[str] = []
        if who.proof is Proof.NONE:
            with suppress(OSError):
                # Others are refused when something is added for them.
                users = [name for name in scan.users(context.spool.inbox) if is_name(name)]
        return page(
            context, request, "upload.html",
            projects=[one.name for one in visible_projects(context, request)],
            users=users, asks_user=who.proof is Proof.NONE, acts=who.acts,
            skipped=json.dumps([*leftovers.PATTERNS, *context.config.inbox.ignore]),
        )  # fmt: skip

    return [Route("/upload", upload, name="upload")]
