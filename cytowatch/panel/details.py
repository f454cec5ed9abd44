"""``/files/<id>``: one uploaded file, its tree, its history, and what to do if it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cytowatch.observe import wording
from cytowatch.panel import storage
from cytowatch.panel.context import Context, Visible, person_of
from cytowatch.panel.rendering import page
from cytowatch.record.status import Status
from cytowatch.tree import find
from cytowatch.tree.index.index import Index, Row

__all__ = ["may_act", "routes"]

_MOST_CHILDREN = 100
_HIGHEST = 8
_MOST_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One status of the history; `share` of the longest one, in percent."""

    status: Status
    at: str
    seconds: float | None
    share: float
    attempt: int


def may_act(context: Context, request: Request, row: Row) -> bool:
    """Whether the person who asks may change `row`: an owner, or anyone who sees all and acts."""
    who = person_of(request)
    return who.acts and (who.sees_all or context.same_user(who.name, row.user))


def _history(entry: find.Entry) -> list[Bar]:
    rows = entry.manifest["history"][-_MOST_SHOWN:]
    longest = max((one["seconds"] or 0.0 for one in rows), default=0.0) or 1.0
    found = []
    for one in rows:
        status = Status[one["status"]]
        seconds = None if status.is_final else one["seconds"]
        share = 0.0 if status.is_final else max(1.0, 100.0 * (seconds or 0.0) / longest)
        found.append(
            Bar(status=status, at=one["at"], seconds=seconds, share=round(share, 1), attempt=one["attempt"])
        )  # fmt: skip
    return found


def _above(index: Index, seen: Visible, row: Row) -> list[Row]:
    """The archives that it came out of, the topmost first; those of others are not shown."""
    found: list[Row] = []
    at: Row | None = row
    while at is not None and at.parent_id is not None and len(found) < _HIGHEST:
        rows = index.select(ids=[at.parent_id], limit=1)
        at = rows[0] if rows and seen.covers(rows[0]) else None
        if at is not None:
            found.append(at)
    return found[::-1]


def _live(context: Context, row: Row) -> dict[str, Any]:
    """How far it is, and why it waits, if the daemon says so."""
    live = storage.live_of(context) if find.daemon_pid(context.spool) is not None else {}
    return {
        "progress": live.get("progress", {}).get(row.id),
        "held": live.get("held_up", {}).get(row.id),
    }


def _page(context: Context, request: Request, template: str) -> Response:
    id_ = request.path_params["id"]
    row = context.visible(request, id_)
    entry = context.entry(request, id_)
    seen = context.may_see(request)
    with context.index() as index:
        above = _above(index, seen, row)
        children = index.select(where={"parent_id": id_}, ascending=True, limit=_MOST_CHILDREN + 1)
    about = entry.manifest
    advice = None
    if failed := about["error"]:
        in_archive = bool(above) and not above[0].is_folder
        advice = wording.advice(failed["reason"], failed["detail"], in_archive=in_archive)
    moving = not entry.status.is_final
    files = about["files"]
    if not context.panel.labels:
        files = [one for one in files if one["role"] not in ("label", "macro")]
    return page(
        context,
        request,
        template,
        row=row,
        entry=entry,
        about=about,
        status=entry.status,
        above=above,
        children=[one for one in children[:_MOST_CHILDREN] if seen.covers(one)],
        more_children=len(children) > _MOST_CHILDREN,
        history=_history(entry),
        advice=advice,
        files=files,
        roles={one["role"] for one in files},
        acts=may_act(context, request, row),
        done=request.query_params.get("done", ""),
        every_s=2 if moving else 15,
        **_live(context, row),
    )


def routes(context: Context) -> list[Route]:
    """The page, and its part that is asked for again and again."""

    def show(request: Request) -> Response:
        return _page(context, request, "details.html")

    def live(request: Request) -> Response:
        return _page(context, request, "details_live.html")

    return [
        Route("/files/{id}", show, name="details"),
        Route("/live/files/{id}", live, name="live"),
    ]
