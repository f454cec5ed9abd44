"""``/files``: all uploaded files, by a question whose whole state is in the address."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cytowatch import formats
from cytowatch.panel import listing
from cytowatch.panel.context import Context
from cytowatch.panel.forms import text
from cytowatch.panel.rendering import page
from cytowatch.record import reasons
from cytowatch.record.names import ID_PATTERN
from cytowatch.record.status import Status
from cytowatch.tree import find
from cytowatch.tree.index.index import Row

__all__ = ["Question", "answer", "question", "routes"]

PAGE = 50
#: Further down a list a date is quicker than a thousand pages.
_LAST_PAGE = 2000
_MOST_PROJECT_IDS = 100_000
#: What a list can be sorted by: all of these SQLite answers from an index.
_SORTS = ("received", "name", "status", "ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The question; each field is a parameter of the address, and empty where it does not matter."""

    status: str = ""
    user: str = ""
    project: str = ""
    format: str = ""
    reason: str = ""
    name: str = ""
    since: str = ""
    until: str = ""
    parent: str = ""
    sort: str = "received"
    order: str = "down"
    page: int = 1

    def address(self, **changes: Any) -> str:
        """The query of this question, changed; defaults are left out."""
        usual = Question()
        said = {one.name: changes.get(one.name, getattr(self, one.name)) for one in fields(self)}
        return urlencode({key: v for key, v in said.items() if v != getattr(usual, key)})

    @property
    def statuses(self) -> tuple[str, ...]:
        """The statuses that `status` means: one, or those of a group."""
        word = self.status.strip().lower().replace("_", "-").replace(" ", "-")
        if word in ("done", "success"):
            word = "deployed"
        # DEPLOYED is a status as well; in small letters the whole group is meant.
        if self.status != "DEPLOYED" and word in listing.GROUPS:
            return tuple(one.name for one in listing.GROUPS[word])
        name = word.upper().replace("-", "_")
        return (name,) if name in Status.__members__ else ()


def question(given: Mapping[str, str]) -> Question:
    """The question in the parameters of an address; a default takes the place of what makes no sense.

    >>> question({"status": "error", "page": "x", "sort": "size; DROP TABLE"}).sort
    'received'
    """
    texts = {
        one.name: text(given.get(one.name))
        for one in fields(Question)
        if one.name not in ("sort", "order", "page")
    }
    sort = given.get("sort", "")
    number = given.get("page", "")
    return Question(
        **texts,
        sort=sort if sort in _SORTS else "received",
        order="up" if given.get("order") == "up" else "down",
        page=min(int(number[:9]), _LAST_PAGE)
        if number.isascii() and number.isdigit() and int(number[:9]) > 0
        else 1,
    )


def _day(value: str, *, after: int = 0) -> str | None:
    """The beginning of a day, or a moment, in UTC.

    >>> _day("2026-11-23"), _day("2026-11-23", after=1), _day("soon")
    ('2026-11-23T00:00:00.000Z', '2026-11-24T00:00:00.000Z', None)
    """
    with suppress(ValueError, OverflowError):
        if len(value) == 10:
            return f"{date.fromisoformat(value) + timedelta(days=after)}T00:00:00.000Z"
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return None


def answer(
    context: Context, request: Request, asked: Question, *, limit: int, offset: int
) -> list[Row]:
    """The rows that `asked` describes, of what the person who asks may see."""
    where: dict[str, tuple[str, ...]] = {}
    if asked.status:
        where["status"] = asked.statuses
    if asked.user:
        where["user"] = tuple(find.spellings(context.spool, asked.user))
    if asked.format:
        where["format"] = (asked.format,)
    if asked.reason:
        where["reason"] = (asked.reason,)
    if asked.parent:
        where["parent_id"] = (asked.parent,) if ID_PATTERN.fullmatch(asked.parent) else ()
    if any(not values for values in where.values()):
        # Something impossible was asked for.
        return []
    ids = None
    if asked.project:
        ids = find.project_ids(context.spool, asked.project)[:_MOST_PROJECT_IDS]
    more: dict[str, Any] = {}
    if asked.name:
        more["name_has"] = asked.name
    if since := _day(asked.since):
        more["since"] = since
    if until := _day(asked.until, after=1):
        more["until"] = until
    with context.index() as index:
        return listing.rows(
            index, context.may_see(request), where=where, ids=ids, sort=asked.sort,
            ascending=asked.order == "up", limit=limit, offset=offset, **more,
        )  # fmt: skip


def users(context: Context) -> list[str]:
    """The folders of users, for those who see all of them."""

    def look() -> list[str]:
        spool = context.spool
        found = {*context.names_in(spool.inbox), *context.names_in(spool.storage)}
        return sorted(found)[:2000]

    kept: list[str] = context.kept("users", 10.0, look)
    return kept


def routes(context: Context) -> list[Route]:
    """The list."""

    def show(request: Request) -> Response:
        asked = question(request.query_params)
        found = answer(context, request, asked, limit=PAGE + 1, offset=(asked.page - 1) * PAGE)
        everyone = context.may_see(request).everything
        return page(
            context,
            request,
            "files.html",
            asked=asked,
            rows=found[:PAGE],
            more=len(found) > PAGE and asked.page < _LAST_PAGE,
            last_page=asked.page == _LAST_PAGE,
            statuses=list(Status),
            formats=formats.FORMATS,
            reasons=sorted(one.word for one in reasons.REASONS),
            users=users(context) if everyone else [],
            everyone=everyone,
            searched=asked.name,
        )

    return [Route("/files", show, name="files")]
