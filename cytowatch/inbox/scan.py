"""What lies in the inboxes now: one look by ``stat`` alone, never following a link."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytowatch import durable, names
from cytowatch.model import Fingerprint

__all__ = ["Drop", "Waiting", "fingerprint", "scan", "stray", "users"]

#: Folders in folders are looked into so far.
_DEEPEST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One file that lies in an inbox; `path` is relative to ``inbox/``, as the system spells it."""

    user: str
    path: str
    project: str | None
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(self.path)

    @property
    def room(self) -> str:
        """Where drops belong to the same user and project: ``ann`` or ``ann/@project``."""
        return self.path.split("/", 1)[0] if self.project is None else self._project_room

    @property
    def _project_room(self) -> str:
        return "/".join(self.path.split("/", 2)[:2])


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
    with durable.beneath(inbox, user) as descriptor:
        yield from _folder(descriptor, user, user, None, ignore, device, 0)


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
    descriptor: int,
    folder: str,
    user: str,
    project: str | None,
    ignore: Sequence[str],
    device: int,
    depth: int,
) -> Iterator[tuple[Drop, Waiting | None]]:
    with os.scandir(descriptor) as entries:
        listed = [entry.name for entry in entries if not names.ignored(entry.name, ignore)]
    for name in listed:
        path = f"{folder}/{name}"
        try:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(found.st_mode):
            drop = Drop(user=user, path=path, project=project, fingerprint=fingerprint(found))
            yield drop, _never(found, device)
            continue
        inner = _project(name) if depth == 0 else project
        if depth >= _DEEPEST or found.st_dev != device:
            drop = Drop(user=user, path=path, project=project, fingerprint=fingerprint(found))
            yield drop, _never(found, device)
            continue
        try:
            with durable.directory(name, at=descriptor) as below:
                yield from _folder(below, path, user, inner, ignore, device, depth + 1)
        except OSError as error:
            # It went away, or became something else, between the two looks.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise


def _project(name: str) -> str | None:
    """The project that what is dropped into a folder of that name belongs to, in NFC."""
    project = unicodedata.normalize("NFC", name[1:])
    return project if name[0] == "@" and project == names.file_name(project) else None


def _never(found: os.stat_result, device: int) -> Waiting | None:
    if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
        return Waiting(why="too_deep", detail=f"it lies more than {_DEEPEST} folders deep")
    if found.st_dev != device:
        return Waiting(why="other_filesystem", detail="it is on another filesystem than the root")
    if not stat.S_ISREG(found.st_mode):
        return Waiting(
            why="not_a_regular_file", detail="it is a link, a pipe or a device, not a file"
        )
    if found.st_nlink != 1:
        return Waiting(
            why="not_a_regular_file",
            detail=f"it has {found.st_nlink} names (hard links): another one could still change it",
        )
    return None
