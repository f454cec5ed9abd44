"""``/``: what needs attention, what is in progress, what waits, and what was deployed lately."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cytowatch import __version__
from cytowatch.hooks.pending import count_dead
from cytowatch.observe import arriving
from cytowatch.panel import listing
from cytowatch.panel.context import Context, Visible, person_of
from cytowatch.panel.rendering import page
from cytowatch.record import reasons
from cytowatch.record.names import fold
from cytowatch.record.status import Status
from cytowatch.tree import find, pauses, room
from cytowatch.tree.index.index import Index, Row

__all__ = ["overview", "routes"]

_MOST_SHOWN = 25
_LATELY = 18
_FAILED = 6
_LIVE_FOR_S = 0.5
_WHY_KEPT_S = 5.0
_TIMES_AS_LONG = 100
#: A page asks again after so many seconds.
_MOVING_S = 2
_STILL_S = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing that somebody must look at; `level` is ``bad`` or ``warn``."""

    level: str
    title: str
    said: str
    href: str = ""


#: What is being uploaded, of what the person who asks may see, and how many more there are.
Uploading = Callable[[Request, int], tuple[Sequence[Any], int]]


def routes(context: Context, uploading: Uploading) -> list[Route]:
    """The first page, and its part that is asked for again and again."""

    def show(request: Request) -> Response:
        return page(context, request, "storage.html", **overview(context, request, uploading))

    def live(request: Request) -> Response:
        return page(context, request, "storage_live.html", **overview(context, request, uploading))

    return [
        Route("/", show, name="storage"),
        Route("/live/storage", live, name="live"),
    ]


def live_of(context: Context) -> dict[str, Any]:
    """What the daemon said last, read at most twice a second however many look on."""
    found: dict[str, Any] = context.kept(
        "live", _LIVE_FOR_S, lambda: find.live(context.spool) or {}
    )
    return found


def overview(context: Context, request: Request, uploading: Uploading) -> dict[str, Any]:
    """All that the page shows, of what the person who asks may see."""
    seen = context.may_see(request)
    pid = find.daemon_pid(context.spool)
    live = live_of(context) if pid is not None else {}
    with context.index() as index:
        counts = listing.counts(context, index, seen)
        moving, more_moving = _moving(context, index, seen, live, counts)
        lately = listing.rows(
            index,
            seen,
            where={"status": ("DEPLOYED", "CONVERTED")},
            # Among many users only the order of ids is at hand for each of them.
            sort="ended" if seen.everything else "received",
            limit=_LATELY,
        )
        failed, why = _failed(context, index, seen, counts)
        missing = len(index.missing()) if seen.everything else 0
    arriving_now, more_arriving = uploading(request, _MOST_SHOWN)
    waiting = [one for one in live.get("waiting", []) if _is_of(seen, one["user"])]
    return {
        "notices": _notices(context, request, live, pid, missing)
        if seen.everything
        else _basic(pid),
        "counts": {
            name: sum(counts[one] for one in members) for name, members in listing.GROUPS.items()
        },
        "uploading": arriving_now,
        "more_uploading": more_arriving,
        "moving": moving,
        "more_moving": more_moving,
        "waiting": [_told(one) for one in waiting[:_MOST_SHOWN]],
        "more_waiting": max(0, len(waiting) - _MOST_SHOWN),
        "lately": lately,
        "failed": failed,
        "why": sorted(why.items(), key=lambda one: -one[1]),
        "machine": _machine(context, live, pid) if seen.everything else None,
        "acts": person_of(request).acts,
        "done": request.query_params.get("done", ""),
        "every_s": _MOVING_S if moving or waiting or arriving_now else _STILL_S,
    }


def _told(one: dict[str, Any]) -> dict[str, Any]:
    """A drop that waits, in the words of the note on the share; what to do only where a person must."""
    wait = reasons.WAITING.get(one["why"], reasons.WAITING["other"])
    means, to_do = arriving.story(one)
    return {**one, "means": means, "to_do": to_do if wait.by_hand else ""}


def _machine(context: Context, live: dict[str, Any], pid: int | None) -> dict[str, Any]:
    """The last line of the page: the daemon, its workers, and what is free."""
    try:
        free = room.free(context.spool.root).bytes
    except OSError:
        free = 0
    return {
        "daemon": "The daemon runs" if pid is not None else "No daemon runs",
        "workers": live.get("workers") or None,
        "free": free,
        "paused": bool(pauses.read(context.spool)),
    }


def _names(group: str) -> tuple[str, ...]:
    return tuple(one.name for one in listing.GROUPS[group])


def _is_of(seen: Visible, user: str) -> bool:
    return seen.everything or fold(user) in {fold(one) for one in seen.users}


def _failed(
    context: Context, index: Index, seen: Visible, counts: dict[Status, int]
) -> tuple[list[Row], dict[str, int]]:
    """The last ones that failed, and how many failed for each reason."""
    if not any(counts[one] for one in listing.GROUPS["error"]) and not seen.ids:
        return [], {}
    where = {"status": _names("error")}
    failed = listing.rows(
        index, seen, where=where, sort="ended", limit=_FAILED, few=listing.few(counts, "error")
    )
    held = where if seen.everything else {**where, "user": seen.users}
    why = context.kept(
        f"why {held}", _WHY_KEPT_S, lambda: index.tally("reason", held), times=_TIMES_AS_LONG
    )
    return failed, why


def _moving(
    context: Context, index: Index, seen: Visible, live: dict[str, Any], counts: dict[Status, int]
) -> tuple[list[dict[str, Any]], int]:
    """What is in progress: what is being worked on first, then what waits for its turn."""
    progress, held_up = live.get("progress", {}), live.get("held_up", {})
    # The daemon names them in the order in which they were begun.
    ids = list(progress)[:_MOST_SHOWN] if seen.everything else list(progress)
    busy = listing.rows(index, seen, ids=ids, ascending=True, limit=len(ids)) if ids else []
    now = time.monotonic()
    shown: list[dict[str, Any]] = []
    for row in busy[:_MOST_SHOWN]:
        at = progress[row.id]
        left_s = context.estimates.left_s(row.id, at["status"], at["share"], now)
        shown.append(
            {"row": row, "status": Status[at["status"]], "share": at["share"], "left_s": left_s,
             "held": held_up.get(row.id)}
        )  # fmt: skip
    context.estimates.forget_all_but(set(progress))
    if len(shown) < _MOST_SHOWN:
        rest = listing.rows(
            index, seen, where={"status": _names("in-progress")}, ascending=True,
            limit=2 * _MOST_SHOWN, few=listing.few(counts, "in-progress"),
        )  # fmt: skip
        known = {one["row"].id for one in shown}
        shown += [_quiet(row, held_up) for row in rest if row.id not in known]
    total = sum(counts[one] for one in listing.GROUPS["in-progress"])
    shown = shown[:_MOST_SHOWN]
    return shown, max(0, total - len(shown))


def _quiet(row: Row, held_up: dict[str, Any]) -> dict[str, Any]:
    return {
        "row": row, "status": row.status, "share": None, "left_s": None, "held": held_up.get(row.id),
    }  # fmt: skip


def _basic(pid: int | None) -> list[Notice]:
    """What every user should know of the daemon."""
    if pid is not None:
        return []
    said = "Files that you add wait until it runs again. Tell your administrator."
    return [Notice(level="warn", title="Nothing is taken in at the moment", said=said)]


def _notices(
    context: Context, request: Request, live: dict[str, Any], pid: int | None, missing: int
) -> list[Notice]:
    """What an administrator should look at, the worst first."""
    found: list[Notice] = []
    if pid is None:
        said = "Drops wait in their inboxes, and nothing is lost. Start the daemon: systemctl start cytowatch"
        found.append(Notice(level="warn", title="No daemon runs on this tree", said=said))
    elif (other := live.get("version")) and other != __version__:
        said = f"The daemon is version {other}, this panel {__version__}. Restart both after an update."
        found.append(
            Notice(level="warn", title="Panel and daemon are of different versions", said=said)
        )
    for name, reason in live.get("health", {}).items():
        found.append(Notice(level="bad", title=name.replace("_", " "), said=reason))
    found += _of_disk(context)
    held = pauses.read(context.spool)
    if held:
        whom = "Everyone" if held.everyone else ", ".join(sorted(held.users))
        said = "Work in progress will be finished; nothing new is started."
        found.append(Notice(level="warn", title=f"{whom} paused", said=said))
    if missing:
        said = "They were deployed and are no longer in storage. `cytowatch verify` lists them."
        found.append(
            Notice(level="bad", title=f"{missing:,} files vanished from storage", said=said)
        )
    if letters := count_dead(context.spool):
        said = "`cytowatch hooks` lists them and delivers them again."
        title = f"{letters:,} notifications could not be delivered"
        found.append(Notice(level="warn", title=title, said=said))
    for one in live.get("set_aside", [])[:5]:
        said = f"{one['which']}: {one['why']}"
        found.append(
            Notice(level="warn", title=f"Set aside: {one['where'].replace('_', ' ')}", said=said)
        )
    return found


def _of_disk(context: Context) -> list[Notice]:
    try:
        free = room.free(context.spool.root).bytes
    except OSError as error:
        return [Notice(level="bad", title="The disk cannot be asked", said=f"{error.strerror}")]
    if free >= context.config.storage.reserve_bytes:
        return []
    said = "Nothing new is begun until there is room; it goes on by itself."
    return [Notice(level="bad", title="The disk is nearly full", said=said)]
