"""A read-only view of a root, for the commands: it works beside a running daemon and without one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytowatch import manifest
from cytowatch.manifest import Manifest, ManifestError
from cytowatch.spool import Spool
from cytowatch.status import STAGE_STATUSES, Status

__all__ = ["Entry", "daemon_pid", "entries", "find", "live"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One uploaded file: where it is, its status by the rule, its manifest."""

    status: Status
    path: Path
    manifest: Manifest

    @property
    def document(self) -> dict[str, Any]:
        """The manifest for JSON, with the status by the rule and where it lies."""
        return {
            **self.manifest,
            "status": self.status.name,
            "status_code": self.status.code,
            "path": str(self.path),
        }


def entries(spool: Spool) -> Iterator[Entry]:
    """Every uploaded file of the tree, in no order.

    Under ``stages/`` the directory decides the status, under ``storage/`` the manifest. What moves
    while it is looked at may be seen in either place, and is given once.
    """
    seen: set[str] = set()
    for status in STAGE_STATUSES:
        for id_ in spool.in_status(status):
            yield from _entry(spool.stage(status) / id_, status, seen)
    for path in sorted(spool.storage.glob("*/*")):
        yield from _entry(path, None, seen)


def _entry(path: Path, status: Status | None, seen: set[str]) -> Iterator[Entry]:
    if path.name in seen:
        return
    try:
        found = manifest.read(path)
        decided = status or manifest.status_of(found)
    except (OSError, ManifestError, KeyError):
        return
    seen.add(path.name)
    yield Entry(status=decided, path=path, manifest=found)


def find(spool: Spool, wanted: str) -> list[Entry]:
    """The uploaded files that `wanted` may mean: an id, its beginning, its four random characters
    or the name that was dropped."""
    exact: list[Entry] = []
    near: list[Entry] = []
    for entry in entries(spool):
        id_ = entry.manifest["id"]
        if id_ == wanted:
            exact.append(entry)
        elif (
            id_.startswith(wanted)
            or id_.split("-")[2] == wanted
            or entry.manifest["name"] == wanted
        ):
            near.append(entry)
    return exact or near


def daemon_pid(spool: Spool) -> int | None:
    """The process of the daemon that holds this root, if one does."""
    try:
        descriptor = os.open(spool.state / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


def live(spool: Spool) -> dict[str, Any] | None:
    """What the daemon last said of itself: progress, and what waits in the inboxes and why."""
    try:
        found = json.loads((spool.state / "live.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
