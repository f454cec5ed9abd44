"""What lies in the inboxes now: one look by ``stat`` alone, never following a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytowatch import names
from cytowatch.model import Fingerprint

__all__ = ["Drop", "Waiting", "fingerprint", "scan", "users"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One thing that lies in an inbox; `path` is relative to ``inbox/``, as the system spells it."""

    user: str
    path: str
    project: str | None
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why a drop stays where it is: a word for metrics, a sentence for people."""

    why: str
    detail: str


def fingerprint(found: os.stat_result) -> Fingerprint:
    """What of `found` changes whenever someone writes."""
    return Fingerprint(
        device=found.st_dev,
        inode=found.st_ino,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        blocks=found.st_blocks,
    )


def users(inbox: Path) -> list[str]:
    """The folders in ``inbox/``, which are the users."""
    with os.scandir(inbox) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", "@"))
        )


def scan(
    inbox: Path, user: str, ignore: Sequence[str], *, device: int
) -> Iterator[tuple[Drop, Waiting | None]]:
    """Every drop in the inbox of `user`, each with the reason why it can never be claimed as it is.

    Parameters
    ----------
    device
        The filesystem of the root: an inbox on another one cannot be renamed from.
    """
    yield from _folder(inbox, user, user, None, ignore, device)


def stray(inbox: Path, ignore: Sequence[str]) -> Iterator[tuple[Drop, Waiting]]:
    """Files that lie in ``inbox/`` itself: they belong to nobody."""
    with os.scandir(inbox) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) or names.ignored(entry.name, ignore):
                continue
            found = entry.stat(follow_symlinks=False)
            drop = Drop(user="", path=entry.name, project=None, fingerprint=fingerprint(found))
            yield drop, Waiting(why="no_user", detail="it lies in no user's inbox folder")


def _folder(
    inbox: Path, folder: str, user: str, project: str | None, ignore: Sequence[str], device: int
) -> Iterator[tuple[Drop, Waiting | None]]:
    with os.scandir(inbox / folder) as entries:
        for entry in entries:
            if names.ignored(entry.name, ignore):
                continue
            path = f"{folder}/{entry.name}"
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(found.st_mode) and _is_project(entry.name) and project is None:
                yield from _folder(inbox, path, user, entry.name[1:], ignore, device)
                continue
            drop = Drop(user=user, path=path, project=project, fingerprint=fingerprint(found))
            yield drop, _never(found, device)


def _is_project(name: str) -> bool:
    """Whether what is dropped into a folder of that name belongs to a project."""
    return len(name) > 1 and name[0] == "@" and name == f"@{names.file_name(name[1:])}"


def _never(found: os.stat_result, device: int) -> Waiting | None:
    if stat.S_ISDIR(found.st_mode):
        return Waiting(
            why="folder",
            detail="folders are not taken yet: drop its slides singly, or as one zip",
        )
    if not stat.S_ISREG(found.st_mode):
        return Waiting(
            why="not_a_regular_file", detail="it is a link, a pipe or a device, not a file"
        )
    if found.st_nlink != 1:
        return Waiting(
            why="not_a_regular_file",
            detail=f"it has {found.st_nlink} names (hard links): another one could still change it",
        )
    if found.st_dev != device:
        return Waiting(
            why="other_filesystem", detail="the inbox is on another filesystem than the root"
        )
    return None
