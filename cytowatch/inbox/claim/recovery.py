"""Claims that were left half done: finished where they are whole, undone where they are not."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytowatch import aside, durable
from cytowatch.config.keys import Storage
from cytowatch.durable import owner
from cytowatch.inbox import back
from cytowatch.inbox.claim.hold import lease
from cytowatch.inbox.claim.parcel import JOURNAL, MARKER, Held
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool

__all__ = ["sync_names", "recover", "remove_empty", "undo"]


def sync_names(place: Path, *, marked: bool) -> None:
    # With the new name the old one is gone as well, because a rename is one step; where it is two, a cut
    # leaves both. The inbox, in which others write, need not be synced for that.
    for folder, _, _ in durable.walk(place / "source"):
        durable.fsync_directory(Path(folder))
    if marked:
        # Or the marker may be in the inbox again, and mark the next file of that name.
        durable.fsync_directory(place)


def undo(spool: Spool, place: Path, moved: list[Held]) -> None:
    """Back to the inbox under their own names, or beside anything that has such a name by now."""
    if os.path.lexists(place / MARKER):
        marker = json.loads((place / JOURNAL).read_bytes())["marker"]
        with durable.beneath(spool.inbox, os.path.dirname(marker)) as at:
            # Beside its file, with which it is synced.
            back.put(place / MARKER, os.path.basename(marker), at)
    for one in reversed(moved):
        owner.restore(one.descriptor, one.before)
        back.put(place / one.member.to, one.member.drop.name, one.folder_fd)
    # They are the only names that the files have now; what they had in state/tmp goes next.
    for folder in {os.path.dirname(one.member.drop.path): one.folder_fd for one in moved}.values():
        os.fsync(folder)
    spool.discard(place)


def remove_empty(inbox: Path, folder: str | None) -> None:
    """Remove a set's own folder, with the folders in it, if nothing is left there."""
    if folder is None:
        return
    with suppress(OSError):
        durable.remove_empty(inbox, folder)


def recover(spool: Spool, settings: Storage | None = None) -> dict[str, str]:
    """Finish or undo what a crash or a fault left in ``state/tmp``: what became of each id.

    A claim is finished when all its members had moved already, else undone. If a new drop has taken its
    names meanwhile, it is finished too where the rest is there, else it goes back as one beside that drop. What is
    neither is kept where it is, and said so. No claim may be under way. `settings` gives what is finished its
    group and mode.
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
        # It was torn before it was synced, so nothing had been moved yet.
        if _has_source(place):
            return "kept: its journal is damaged but it holds files"
        spool.discard(place)
        return "undone"
    moved = [m for m in journal["members"] if _is(place / m["to"], m["inode"])]
    crowded = bool(moved) and any(_is_taken(spool.inbox, m) for m in journal["members"])
    if crowded:
        # Beside another drop of that name the rest of it would become a part of that one.
        moved += _fetched(spool, place, [m for m in journal["members"] if m not in moved])
    whole = len(moved) == len(journal["members"]) and _has_source(place)
    if whole and all(_untouched(place / m["to"], m, settings) for m in moved):
        for member in moved:
            durable.fsync_file(place / member["to"])
        sync_names(place, marked=os.path.lexists(place / MARKER))
        remove_empty(spool.inbox, journal.get("folder"))
        # A kill may have come before it was found that another thing lay in its place: that is not ours to remove.
        marker = os.lstat(place / MARKER) if os.path.lexists(place / MARKER) else None
        if marker is not None and not stat.S_ISREG(marker.st_mode):
            with back.opened(spool.inbox, os.path.dirname(journal["marker"])) as inbox_fd:
                back.put(place / MARKER, os.path.basename(journal["marker"]), inbox_fd)
        (place / MARKER).unlink(missing_ok=True)
        (place / JOURNAL).unlink(missing_ok=True)
        spool.move(place, Status.UPLOADED, durably=False)
        return "finished"
    put_back = _put_elsewhere if crowded else _put_back
    if said := put_back(spool, place, moved, journal):
        return said
    if _has_source(place):
        return "kept: it holds files that no claim names"
    spool.discard(place)
    return "undone"


def _put_back(
    spool: Spool, place: Path, moved: list[dict[str, Any]], journal: dict[str, Any]
) -> str | None:
    """Put what had moved back to where it was dropped; why that cannot be, if so."""
    for member in moved:
        _restore(place / member["to"], member)
    to_inbox = [(place / member["to"], member["from"]) for member in moved]
    if os.path.lexists(place / MARKER):
        to_inbox.append((place / MARKER, journal["marker"]))
    for folder in dict.fromkeys(os.path.dirname(origin) for _, origin in to_inbox):
        origins = [one for one in to_inbox if os.path.dirname(one[1]) == folder]
        try:
            # The folder of a set may be gone by now: it was removed when it was empty.
            with back.opened(spool.inbox, folder) as inbox_fd:
                for path, origin in origins:
                    back.put(path, os.path.basename(origin), inbox_fd)
                # By the same descriptor: another folder may be in its place by now.
                os.fsync(inbox_fd)
        except OSError as error:
            return f"kept: {folder!r} takes nothing back ({error.strerror})"
    return None


def _is_taken(inbox: Path, member: dict[str, Any]) -> bool:
    """Whether another file has the name by now under which this one was dropped."""
    folder, name = os.path.split(member["from"])
    try:
        with durable.beneath(inbox, folder) as at:
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
    except OSError:
        return False
    return bool(found.st_ino != member["inode"])


def _fetched(spool: Spool, place: Path, rest: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the `rest` that lie where they were dropped, moved to the others."""
    found = []
    for member in rest:
        folder, name = os.path.split(member["from"])
        with suppress(FileNotFoundError), durable.beneath(spool.inbox, folder) as at:
            if os.stat(name, dir_fd=at, follow_symlinks=False).st_ino != member["inode"]:
                continue
            durable.rename(name, place / member["to"], source_fd=at)
            if _is(place / member["to"], member["inode"]):
                found.append(member)
            else:
                # Another one has taken its name just now: back it goes.
                back.put(place / member["to"], name, at)
    return found


def _put_elsewhere(
    spool: Spool, place: Path, moved: list[dict[str, Any]], journal: dict[str, Any]
) -> str | None:
    """Put it back as one, with its marker, under names that are free: beside another drop, and never into it."""
    for member in moved:
        _restore(place / member["to"], member)
    members = journal["members"]
    above = os.path.dirname(journal.get("folder") or members[0]["from"])
    files = [(member["to"], os.path.relpath(member["from"], above)) for member in moved]
    if os.path.lexists(place / MARKER):
        # Under its old name it would mark the other one.
        files.append((MARKER, os.path.relpath(journal["marker"], above)))
    if any(name.startswith("..") for _, name in files):
        return f"kept: its files are not all in {above!r}"
    top = os.path.relpath(members[0]["from"], above).partition("/")[0]
    try:
        unit = back.Unit(stem=os.path.splitext(top)[0], files=files)
        back.give_back(place, unit, spool.inbox, above)
    except OSError as error:
        return f"kept: {above!r} takes nothing back ({error.strerror})"
    return None


def _has_source(place: Path) -> bool:
    return any(files for _, _, files in durable.walk(place / "source"))


def _is(path: Path, inode: int) -> bool:
    # After a restart a device may have another number; the inode is what a rename keeps.
    try:
        return os.stat(path, follow_symlinks=False).st_ino == inode
    except FileNotFoundError:
        return False


def _untouched(path: Path, member: dict[str, Any], settings: Storage) -> bool:
    """Whether no one writes to what was moved, and no one did since; it is ours from now on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        owner.take(descriptor, group=settings.group, mode=int(settings.file_mode, 8))
        found = os.fstat(descriptor)
        same = (found.st_size, found.st_mtime_ns) == (member["size_bytes"], member["mtime_ns"])
        return same and lease(descriptor) != "writer"
    finally:
        os.close(descriptor)


def _restore(path: Path, member: dict[str, Any]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        owner.restore(descriptor, owner.of(member))
    finally:
        os.close(descriptor)
