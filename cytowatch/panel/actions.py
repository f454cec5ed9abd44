"""Changes that a person asks for: each is a request to the daemon, and one line in the log with who asked.

The panel itself moves nothing and writes into no manifest: where no daemon runs, nothing is done.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from cytowatch.admin import requests
from cytowatch.observe import logs
from cytowatch.panel import forms, projects
from cytowatch.panel.context import Context, person_of
from cytowatch.panel.details import may_act
from cytowatch.panel.measures import Measures
from cytowatch.panel.threads import asking
from cytowatch.record import names
from cytowatch.record.errors import RootError
from cytowatch.tree import find

__all__ = ["routes"]

_PATIENCE_S = 15.0
_ABOUT_ONE = ("retry", "return", "link", "unlink")
_ABOUT_USERS = ("pause", "resume")


def routes(context: Context, measures: Measures) -> list[Route]:
    """The actions, for forms and for programs."""

    async def of_file(action: str, request: Request) -> Response:
        id_ = request.path_params["id"]
        fields = await forms.read(request)
        said = await asking(_of_file, context, measures, request, action, id_, fields)
        if _is_program(request):
            return JSONResponse({"said": said})
        base = context.panel.base_path
        # An uploaded file that was handed back, or is in its inbox again, no longer has a page.
        gone = action == "return" or said == "inbox"
        return RedirectResponse(
            f"{base}/?done={action}" if gone else f"{base}/files/{id_}?done={action}", 303
        )

    async def of_users(action: str, request: Request) -> Response:
        fields = await forms.read(request)
        said = await asking(_of_users, context, measures, request, action, fields)
        if _is_program(request):
            return JSONResponse({"said": said})
        return RedirectResponse(f"{context.panel.base_path}/?done={action}", 303)

    def route(path: str, call: Callable[[str, Request], Awaitable[Response]], word: str) -> Route:
        return Route(path, functools.partial(call, word), methods=["POST"], name="action")

    return [
        *(route(f"/files/{{id}}/{one}", of_file, one) for one in _ABOUT_ONE),
        *(route(f"/api/v1/files/{{id}}/{one}", of_file, one) for one in _ABOUT_ONE),
        *(route(f"/actions/{one}", of_users, one) for one in _ABOUT_USERS),
        *(route(f"/api/v1/{one}", of_users, one) for one in _ABOUT_USERS),
    ]


def _is_program(request: Request) -> bool:
    return request.url.path.removeprefix(request.scope.get("root_path", "")).startswith("/api/")


def _of_file(
    context: Context,
    measures: Measures,
    request: Request,
    action: str,
    id_: str,
    fields: dict[str, str],
) -> str:
    row = context.visible(request, id_)
    if not may_act(context, request, row):
        raise HTTPException(403, "Only its owner or an administrator may do this.")
    wanted: dict[str, Any] = {"do": action, "id": id_}
    if action in ("link", "unlink"):
        wanted["project"] = projects.allowed(context, request, forms.text(fields.get("project")))
    return _ask(context, measures, request, wanted)


def _of_users(
    context: Context, measures: Measures, request: Request, action: str, fields: dict[str, str]
) -> str:
    who = person_of(request)
    if not (who.acts and who.sees_all):
        raise HTTPException(403, "Only an administrator may do this.")
    user = forms.text(fields.get("user"))
    wanted: dict[str, Any] = {"do": action, **({"user": user} if user else {})}
    return _ask(context, measures, request, wanted)


def _ask(context: Context, measures: Measures, request: Request, wanted: dict[str, Any]) -> str:
    """Let the daemon do it; returns its answer.

    Raises
    ------
    HTTPException
        503: no daemon runs, or it does not answer; 409: it refuses, with the reason.
    """
    who = person_of(request)
    by = who.name or "panel"
    try:
        if find.daemon_pid(context.spool) is None:
            raise RootError("nothing was done, because no daemon runs: tell your administrator")
        answer = requests.by_daemon(context.spool, {**wanted, "by": by}, patience_s=_PATIENCE_S)
    except (RootError, OSError) as error:
        _tell(measures, wanted, who.proof.value, by, refused=str(error))
        raise HTTPException(503, _sentence(str(error))) from error
    if "error" in answer:
        refused = str(answer["error"])
        _tell(measures, wanted, who.proof.value, by, refused=refused)
        raise HTTPException(409, _sentence(refused))
    said = str(answer.get("said", ""))
    _tell(measures, wanted, who.proof.value, by, said=said)
    return said


def _sentence(said: str) -> str:
    """What the daemon or the system says, as a sentence on a page.

    >>> _sentence("it is paused"), _sentence("20261130-132549-zdn8-a is not an error")
    ('It is paused.', '20261130-132549-zdn8-a is not an error.')
    """
    return f"{said[:1].upper()}{said[1:].rstrip('.')}."


def _tell(measures: Measures, wanted: dict[str, Any], proof: str, by: str, said: str | None = None, refused: str | None = None) -> None:  # fmt: skip
    measures.actions.labels(wanted["do"], "done" if refused is None else "refused").inc()
    log = logs.get()
    tell = log.info if refused is None else log.warning
    tell(
        "action", action=wanted["do"], id=wanted.get("id"), project=wanted.get("project"),
        whom=wanted.get("user"), by=names.printable(by), proof=proof, said=said, refused=refused,
    )  # fmt: skip
