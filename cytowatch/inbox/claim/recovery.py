"""Claims that were left half-done: finished if they are whole, else undone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytowatch import aside, durable
from cytowatch.config.keys import Storage
from cytowatch.durable import owner
from cytowatch.inbox import back
from cytowatch.inbox.claim.hold import lease
from cytowatch.inbox.claim.parcel import JOURNAL, MARKER, directories
from cytowatch.inbox.claim.undo import (
    fetch,
    folder_of,
    go_back,
    is_crowded,
    is_foreign_marker,
    is_of,
)
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool

__all__ = ["recover", "remove_empty", "sync_names"]


def sync_names(place: Path, directories: Iterable[str], *, marked: bool) -> None:
    """Let the names of the files that were moved into `directories` of `place` survive a power cut."""
    # Once the new name exists, the old one is gone, because a rename is one step; where it is two, a power cut
    # leaves both. So the inbox, in which others write, need not be synced.
    for directory in directories:
        durable.fsync_directory(f"{place}/{directory}")
    if marked:
        # Or the marker may be in the inbox again, and mark the next file of that name.
        durable.fsync_directory(place)


def remove_empty(inbox: Path, folder: str | None) -> None:
    """Remove a set's own folder, with the folders in it, if nothing is left there.

    Nobody looks at it again later, so a fault of the disk that passes must not leave it.
    """
    for _ in range(2 if folder is not None else 0):
        with suppress(OSError):
            durable.remove_empty(inbox, str(folder))
            return


def recover(spool: Spool, settings: Storage | None = None) -> dict[str, str]:
    """Finish or undo the claims that a crash or a fault left in ``state/tmp``; return the result for each id.

    A claim is finished if all its members had already moved, else undone. If a new drop has taken its
    names meanwhile, it is finished too if the rest is there; else it goes back as one slide beside that drop. If
    neither works, it is kept where it is, and that is reported. No claim may be under way. `settings` gives the
    group and mode of finished ones.
    """
    outcome: dict[str, str] = {}
    for place in sorted(spool.tmp.iterdir()):
        with aside.fence("claim", place.name) as fenced:
            if place.is_dir():
                outcome[place.name] = _recover_one(spool, place, settings or Storage())
            else:
                place.unlink()
        if fenced.failed:
            outcome[place.name] = f"kept: {fenced.why}"
    return outcome


def _recover_one(spool: Spool, place: Path, settings: Storage) -> str:
    try:
        journal = json.loads((place / JOURNAL).read_bytes())
    except FileNotFoundError:
        if not _has_source(place):
            spool.discard(place)
            return "undone"
        journal = {"members": []}
    except ValueError:
        # A power cut tore it before it was synced, so nothing had moved yet.
        if _has_source(place):
            return "kept: its journal is damaged but it holds files"
        spool.discard(place)
        return "undone"
    members = journal["members"]
    moved = [one for one in members if is_of(place / one["to"], one)]
    if moved and is_crowded(spool.inbox, place, members):
        # Beside another drop of that name the rest of it would become a part of that one.
        moved += fetch(spool.inbox, place, [one for one in members if one not in moved])
    whole = len(moved) == len(members) and _has_source(place)
    if whole and all(_untouched(place / one["to"], one, settings) for one in moved):
        _finish(spool, place, journal)
        return "finished"
    try:
        if members:
            go_back(spool, place, journal)
    except OSError as error:
        return f"kept: {folder_of(journal)!r} takes nothing back ({error.strerror})"
    if _has_source(place):
        return "kept: it holds files that no claim names"
    spool.discard(place)
    return "undone"


def _finish(spool: Spool, place: Path, journal: dict[str, Any]) -> None:
    for member in journal["members"]:
        durable.fsync_file(place / member["to"])
    moved_into = directories(member["to"] for member in journal["members"])
    sync_names(place, moved_into, marked=os.path.lexists(place / MARKER))
    remove_empty(spool.inbox, journal.get("folder"))
    # A kill may have come before we found that something else was in its place, which is not ours to remove.
    if is_foreign_marker(place):
        with back.opened(spool.inbox, os.path.dirname(journal["marker"])) as inbox_fd:
            back.put(place / MARKER, os.path.basename(journal["marker"]), inbox_fd)
    (place / MARKER).unlink(missing_ok=True)
    (place / JOURNAL).unlink(missing_ok=True)
    back.forget(place)
    spool.move(place, Status.UPLOADED, durably=False)


def _has_source(place: Path) -> bool:
    return any(files for _, _, files in durable.walk(place / "source"))


def _untouched(path: Path, member: dict[str, Any], settings: Storage) -> bool:
    """Whether nobody writes to the moved files, and nobody has since; from now on they are ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:
        # Its owner has a lease on it.
        return False
    try:
        owner.take(descriptor, group=settings.group, mode=int(settings.file_mode, 8))
        found = os.fstat(descriptor)
        same = (found.st_size, found.st_mtime_ns) == (member["size_bytes"], member["mtime_ns"])
        return same and found.st_nlink == 1 and lease(descriptor) != "writer"
    finally:
        os.close(descriptor)
