"""Undoing a claim: its files go back under their own names or, if one of these is taken, all under other names.

Another drop may take any of the names meanwhile. A slide must never hold files of two drops, so the files that go
back stay together, and away from the new drop.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytowatch import durable
from cytowatch.durable import owner
from cytowatch.inbox import back
from cytowatch.inbox.claim.parcel import JOURNAL, MARKER
from cytowatch.tree.spool import Spool

__all__ = ["fetch", "folder_of", "go_back", "is_crowded", "is_foreign_marker", "is_of", "undo"]


def undo(spool: Spool, place: Path, *, moved: bool) -> None:
    """Undo the claim that prepared `place`; `moved` says whether any of its files has left the inbox.

    Raises
    ------
    OSError
        A fault of the machine. Nothing is lost, and `recover` continues.
    """
    if moved:
        go_back(spool, place, json.loads((place / JOURNAL).read_bytes()))
    spool.discard(place)


def go_back(spool: Spool, place: Path, journal: Mapping[str, Any]) -> None:
    """Put back every file that has moved to `place`, as the `journal` of the claim says.

    If it is called again after a crash or a fault, it continues where it stopped.

    Raises
    ------
    OSError
        A file cannot be put back now. Files that have not moved are where they were.
    """
    members: list[dict[str, Any]] = journal["members"]
    strangers = [one for one in members if _is_stranger(place / one["to"], one)]
    crowded = is_crowded(spool.inbox, place, [one for one in members if one not in strangers])
    # A file that somebody put in the place of a member belongs to another drop, and keeps its name.
    others = [(place / one["to"], one["from"]) for one in strangers]
    if is_foreign_marker(place):
        others.append((place / MARKER, journal["marker"]))
    _put(spool.inbox, others, strict=False)
    ours = [one for one in members if is_of(place / one["to"], one)]
    if not ours or not crowded:
        with suppress(FileExistsError):
            _put_back(spool.inbox, place, ours, journal)
            return
        # Somebody has just taken a name: the files that are back already are fetched again.
    fetch(spool.inbox, place, [one for one in members if not is_of(place / one["to"], one)])
    ours = [one for one in members if is_of(place / one["to"], one)]
    _put_elsewhere(spool.inbox, place, ours, journal)


def is_crowded(inbox: Path, place: Path, members: list[dict[str, Any]]) -> bool:
    """Whether another file has one of their names now, or had one when they began to go back."""
    return back.begun(place) is not None or any(_is_taken(inbox, one) for one in members)


def is_of(path: Path, member: Mapping[str, Any]) -> bool:
    """Whether the file at `path` is the one that was seen as `member`."""
    # A rename keeps the inode. The number of the device may differ after a restart of the machine.
    try:
        return bool(os.stat(path, follow_symlinks=False).st_ino == member["inode"])
    except FileNotFoundError:
        return False


def is_foreign_marker(place: Path) -> bool:
    """Whether something other than a file was moved in the place of the marker, just before a kill."""
    try:
        return not stat.S_ISREG(os.lstat(place / MARKER).st_mode)
    except FileNotFoundError:
        return False


def fetch(inbox: Path, place: Path, rest: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move each of the `rest` that lies where it was dropped to the others in `place`; gives these."""
    found = []
    for member in rest:
        folder, name = os.path.split(member["from"])
        with suppress(FileNotFoundError, NotADirectoryError), durable.beneath(inbox, folder) as at:
            if os.stat(name, dir_fd=at, follow_symlinks=False).st_ino != member["inode"]:
                continue
            durable.rename(name, place / member["to"], source_fd=at)
            if is_of(place / member["to"], member):
                found.append(member)
            else:
                # Another file has just taken its name, and was moved instead: it goes back.
                back.put(place / member["to"], name, at)
    return found


def folder_of(journal: Mapping[str, Any]) -> str:
    """The folder in which the slide was dropped."""
    dropped: str = journal.get("folder") or journal["members"][0]["from"]
    return os.path.dirname(dropped)


def _is_stranger(path: Path, member: Mapping[str, Any]) -> bool:
    return os.path.lexists(path) and not is_of(path, member)


def _is_taken(inbox: Path, member: Mapping[str, Any]) -> bool:
    """Whether another file now has the name under which this one was dropped."""
    folder, name = os.path.split(member["from"])
    try:
        with durable.beneath(inbox, folder) as at:
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
    except OSError:
        return False
    return bool(found.st_ino != member["inode"])


def _put_back(
    inbox: Path, place: Path, ours: list[dict[str, Any]], journal: Mapping[str, Any]
) -> None:
    """Put the files back to where they were dropped, the head last; FileExistsError if a name is taken."""
    for member in ours:
        _restore(place / member["to"], member)
    files = [(place / member["to"], member["from"]) for member in reversed(ours)]
    if os.path.lexists(place / MARKER):
        # Last of all, because with the marker they may be claimed again.
        files.append((place / MARKER, journal["marker"]))
    _put(inbox, files, strict=bool(ours))


def _put(inbox: Path, files: list[tuple[Path, str]], *, strict: bool) -> None:
    """Rename each to its path below `inbox`, durably.

    If a name is taken, `strict` raises FileExistsError; else the file gets another name.
    """
    for folder in dict.fromkeys(os.path.dirname(origin) for _, origin in files):
        # The folder of a set may be gone: it was removed when it was empty.
        with back.opened(inbox, folder) as at:
            for path, origin in files:
                if os.path.dirname(origin) != folder:
                    continue
                name = os.path.basename(origin)
                if strict:
                    durable.rename(path, name, target_fd=at)
                else:
                    back.put(path, name, at)
            # Through the same descriptor, because another folder may have taken its place.
            os.fsync(at)


def _put_elsewhere(
    inbox: Path, place: Path, ours: list[dict[str, Any]], journal: Mapping[str, Any]
) -> None:
    """Put the files back as one unit, with their marker, under free names: beside another drop, never into it."""
    for member in ours:
        _restore(place / member["to"], member)
    above = folder_of(journal)
    files = [(member["to"], os.path.relpath(member["from"], above)) for member in ours]
    if os.path.lexists(place / MARKER):
        # Under its old name it would mark the other drop.
        files.append((MARKER, os.path.relpath(journal["marker"], above)))
    if any(name.startswith("..") for _, name in files):
        raise OSError(errno.EXDEV, "its files are not all in that folder", above)
    top = os.path.relpath(journal["members"][0]["from"], above).partition("/")[0]
    unit = back.Unit(stem=os.path.splitext(top)[0], files=files)
    back.give_back(place, unit, inbox, above)


def _restore(path: Path, member: Mapping[str, Any]) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:
        # Its owner has a lease on it, so the claim never changed owner or mode.
        return
    try:
        owner.restore(descriptor, owner.of(member))
    finally:
        os.close(descriptor)
