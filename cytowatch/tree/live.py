"""``state/live.json``: what the daemon last reported, for the commands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cytowatch import outside
from cytowatch.outside import OutsideError
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool

__all__ = ["FILE_NAME", "read"]

FILE_NAME = "live.json"
#: Enough for half a million waiting drops.
_MOST_BYTES = 128 << 20

_TEXT = (str,)
_NUMBER = (int, float)
_MAYBE_TEXT = (str, type(None))
#: By key, the types of each value of an object, or of each row of a list.
_OBJECTS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "progress": {"status": _TEXT, "share": _NUMBER, "since": _TEXT},
    "held_up": {"why": _TEXT, "detail": _TEXT},
}
_LISTS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "waiting": {
        "user": _TEXT, "path": _TEXT, "why": _TEXT, "detail": _TEXT, "size_bytes": _NUMBER,
        "since": _TEXT, "until": _MAYBE_TEXT, "due_at": _MAYBE_TEXT,
    },
    "set_aside": {"where": _TEXT, "which": _TEXT, "why": _TEXT, "tries": (int,)},
}  # fmt: skip
_PARTS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "workers": {"busy": (int,), "of": (int,)},
    "reserved": {"bytes": (int,), "inodes": (int,)},
    "watcher": {"mode": _TEXT, "alive": (bool,)},
    "paused": {"everyone": (bool,), "users": (list,)},
}


def read(spool: Spool) -> dict[str, Any] | None:
    """The daemon's last report: progress, and which drops wait in the inboxes and why.

    None if there is no report, or the file cannot be one; the daemon replaces it soon.
    """
    try:
        found = outside.read_json(spool.state / FILE_NAME, most_bytes=_MOST_BYTES)
        _check(found)
    except (OSError, OutsideError):
        return None
    return found


def _check(found: Mapping[str, Any]) -> None:
    for key, kinds in _OBJECTS.items():
        for row in _of(found, key, dict, {}).values():
            _row(row, kinds)
    for row in _of(found, "progress", dict, {}).values():
        if row["status"] not in Status.__members__:
            raise OutsideError("progress: not a status")
    for key, kinds in _LISTS.items():
        for row in _of(found, key, list, []):
            _row(row, kinds)
    for key, kinds in _PARTS.items():
        _row(_of(found, key, dict, {}), kinds, optional=True)
    texts = (
        *_of(found, "health", dict, {}).values(),
        *_of(found, "paused", dict, {}).get("users", ()),
        *_of(found, "left", list, []),
    )
    for key in ("at", "version"):
        _of(found, key, str, "")
    if not all(isinstance(text, str) for text in texts):
        raise OutsideError("not a text")


def _of(found: Mapping[str, Any], key: str, kind: type, otherwise: Any) -> Any:
    value = found.get(key, otherwise)
    if type(value) is not kind:
        raise OutsideError(f"{key} is of another type")
    return value


def _row(row: Any, kinds: Mapping[str, tuple[type, ...]], *, optional: bool = False) -> None:
    if type(row) is not dict:
        raise OutsideError("not an object")
    for key, allowed in kinds.items():
        if optional and key not in row:
            continue
        if type(row.get(key)) not in allowed:
            raise OutsideError(f"{key} is of another type")
