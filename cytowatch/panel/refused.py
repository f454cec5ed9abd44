"""What is answered in place of a page: words for a person, JSON for a program."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import responses

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Scope

from cytowatch.panel.context import Context
from cytowatch.panel.rendering import page
from cytowatch.record.errors import CytowatchError
from cytowatch.tree.spool import Spool

__all__ = ["as_page", "refused", "why_unreachable"]

_SAID = {
    400: "This address is not usable",
    401: "It is not known who you are",
    403: "This is not allowed",
    404: "There is nothing here",
    405: "This cannot be opened",
    409: "This cannot be done now",
    413: "This is too much",
    500: "Something went wrong",
    503: "This cannot be done now",
}
_ELSE = {
    404: "The address may be misspelled, the file may have been removed, or it belongs to somebody else.",
    405: "Only a button on a page leads here. Go back to that page, and press it again.",
    503: "Too much is asked for at once. Try again in a moment.",
}
#: Below these addresses programs ask.
_PROGRAMS = ("/api/", "/iiif/", "/uploads", "/static/")


def as_page(
    context: Context,
    request: Request,
    code: int,
    said: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """JSON for a program, else a page that says why there is nothing else to see."""
    heading = _SAID.get(code, "This did not work")
    # Starlette's own words, such as "Method Not Allowed", tell a person nothing.
    said = "" if said == responses.get(code) else said
    if _inner(context, request.scope).startswith(_PROGRAMS):
        return JSONResponse({"error": said or heading.lower()}, code, headers=headers)
    words = said or _ELSE.get(code, _ELSE[404])
    found = page(context, request, "refused.html", status_code=code, heading=heading, said=words)
    found.headers.update(headers or {})
    return found


def refused(context: Context, scope: Scope, code: int, said: str) -> Response:
    """The same for a request that reaches no page: a line of text for anyone who asks for no page."""
    wants_page = "text/html" in Headers(scope=scope).get("accept", "")
    if wants_page or _inner(context, scope).startswith(_PROGRAMS):
        return as_page(context, Request(scope), code, said)
    return PlainTextResponse(f"{said}\n", code)


def why_unreachable(context: Context) -> str:
    """Why the tree cannot be read as a whole; empty if it can."""
    try:
        spool = Spool.open(context.spool.root)
    except (CytowatchError, OSError) as error:
        return str(error)
    gone = [one for one in (spool.storage, spool.inbox, spool.state) if not one.is_dir()]
    return f"{gone[0]} is not there" if gone else ""


def _inner(context: Context, scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(context.panel.base_path)
