"""What became of an upload: how much of it is here, the drop that it became, and the uploaded files of that drop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request

from cytowatch import durable
from cytowatch.observe import arriving, wording
from cytowatch.panel import listing
from cytowatch.panel.context import Context
from cytowatch.panel.uploads.found import EXPIRES_S, Found
from cytowatch.record import names, reasons
from cytowatch.record.manifest import utc
from cytowatch.tree import find

__all__ = ["seen"]

#: At most this many of the user's later files are searched, newest first.
_MOST = 300


def seen(context: Context, request: Request, found: Found) -> dict[str, Any]:
    """The answer to `GET /uploads/<token>`."""
    drop = found.drop
    told: dict[str, Any] = {
        "path": found.announced.path,
        "offset": found.offset,
        "size": found.announced.size,
        "drop": drop,
        "taken": False,
        "left": 0,
        "files": [],
        "waits": None,
    }
    if drop is None:
        return told
    told["files"] = list(_files(context, request, found, drop))
    # A folder stays open for more files after its slides are done, so only the slides are listed.
    here = set(_still_here(context.spool.inbox, drop))
    left = here & _not_images(context)
    told["left"], told["taken"] = len(left), here == left
    if not told["taken"]:
        told["waits"] = _waits(context, drop)
    return told


def _files(context: Context, request: Request, found: Found, drop: str) -> list[dict[str, Any]]:
    since = _since(found)
    with context.index() as index:
        rows = listing.rows(index, context.may_see(request), since=since, limit=_MOST)
    told = []
    for row in rows:
        entry = find.entry(context.spool, row)
        if entry is None or row.is_folder or not _is_of(entry.document.get("drop_path"), drop):
            continue
        failed = entry.manifest["error"]
        means, to_do = (
            wording.advice(failed["reason"], failed["detail"]) if failed else (None, None)
        )
        told.append(
            {
                "id": row.id,
                "name": row.name,
                "status": row.status.name,
                "label": row.status.label.capitalize(),
                "final": row.status.is_final,
                "failed": row.status.is_error,
                "reason": means,
                "do": to_do,
            }
        )
    return told


def _not_images(context: Context) -> set[str]:
    """The files in inboxes that no slide will be made of, whether or not more may come into their folders."""
    live = find.live(context.spool) or {}
    open_ones = (one["path"] for one in live.get("waiting", ()) if one["why"] == "not_an_image")
    return {*live.get("left", ()), *open_ones}


def _still_here(inbox: Path, drop: str) -> Iterator[str]:
    """The files of a drop that are in its inbox, by their paths below ``inbox/`` as the daemon spells them."""
    path = inbox / drop
    if not path.is_dir():
        if path.is_file():
            yield drop
        return
    for at, _, files in durable.walk(path):
        folder = os.path.relpath(at, inbox)
        for name in files:
            yield names.decode(os.fsencode(f"{folder}/{name}"))[0]


def _since(found: Found) -> str:
    """A day before its last byte came; nothing of it was published earlier."""
    return utc(datetime.fromtimestamp(found.ends_at - 2 * EXPIRES_S, UTC))


def _is_of(path: object, drop: str) -> bool:
    return isinstance(path, str) and (path == drop or path.startswith(f"{drop}/"))


def _waits(context: Context, drop: str) -> str | None:
    """Why the daemon has not taken it yet, in the daemon's own words; or that none runs."""
    if find.daemon_pid(context.spool) is None:
        return "Nothing is taken in at the moment, because no daemon runs. Tell your administrator."
    for one in (find.live(context.spool) or {}).get("waiting", []):
        if _is_of(one.get("path"), drop):
            means, to_do = arriving.story(one)
            by_hand = reasons.WAITING.get(one["why"], reasons.WAITING["other"]).by_hand
            return f"{means} {to_do}" if by_hand else means
    return None
