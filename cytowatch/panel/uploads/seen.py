"""What became of an upload: how much of it is here, the drop that it became, and the uploaded files of that drop."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request

from cytowatch import durable
from cytowatch.observe import wording
from cytowatch.panel import listing
from cytowatch.panel.context import Context
from cytowatch.panel.uploads.found import EXPIRES_S, Found
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
        "files": [],
        "waits": None,
    }
    if drop is None:
        return told
    told["files"] = list(_files(context, request, found, drop))
    # A folder stays open for more files after its slides are done, so only the slides are listed.
    told["taken"] = not _holds_files(context.spool.inbox / drop)
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
        if (
            entry is None
            or row.format == "directory"
            or not _is_of(entry.document.get("drop_path"), drop)
        ):
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


def _holds_files(path: Path) -> bool:
    """Whether the daemon has not yet taken all files of a drop."""
    if not path.is_dir():
        return path.is_file()
    return any(files for _, _, files in durable.walk(path))


def _since(found: Found) -> str:
    """A day before its last byte came; nothing of it was published earlier."""
    return utc(datetime.fromtimestamp(found.ends_at - 2 * EXPIRES_S, UTC))


def _is_of(path: object, drop: str) -> bool:
    return isinstance(path, str) and (path == drop or path.startswith(f"{drop}/"))


def _waits(context: Context, drop: str) -> str | None:
    """Why the daemon has not taken it yet, in the daemon's own words."""
    for one in (find.live(context.spool) or {}).get("waiting", []):
        if _is_of(one.get("path"), drop):
            return str(one.get("detail") or one.get("why"))
    return None
