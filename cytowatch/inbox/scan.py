"""The current content of the inboxes: read with ``stat`` only, never following a link."""

from __future__ import annotations

import errno
import functools
import os
import pwd
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cytowatch import aside, durable
from cytowatch.record import names
from cytowatch.record.drop import Drop, Fingerprint, Waiting, fingerprint

__all__ = ["DEEPEST", "inbox_itself", "is_user", "scan", "set_aside", "steps", "stray", "users"]

#: The deepest level of nested folders that is read.
DEEPEST = 32
#: The longest path below ``inbox/``, in bytes: with the root before it, and in the place where it is
#: claimed, it must stay below the 4,096 bytes that the kernel takes.
_LONGEST_BYTES = 3_000
#: The number of files that are looked at before others have their turn.
_AT_A_TIME = 256
_NOTHING = Fingerprint(device=0, inode=0, size_bytes=0, mtime_ns=0, ctime_ns=0, blocks=0)
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


def is_user(name: str) -> bool:
    """Whether a folder of this name in ``inbox/`` is a user's."""
    return not name.startswith((".", "@"))


def users(inbox: Path) -> list[str]:
    """The folders in ``inbox/``, which are the users."""
    with os.scandir(inbox) as entries:
        return sorted(
            entry.name for entry in entries if durable.is_directory(entry) and is_user(entry.name)
        )


def stray(inbox: Path, ignore: Sequence[str]) -> Iterator[tuple[Drop, Waiting]]:
    """Files in ``inbox/`` itself, and folders there whose name no user can have; they belong to no user."""
    with os.scandir(inbox) as entries:
        for entry in entries:
            drop = Drop(user="", path=entry.name, project=None, fingerprint=_NOTHING)
            seen: tuple[Drop, Waiting] | None = None
            with aside.fence("drop", entry.name) as fenced:
                seen = _beside(entry, drop, ignore)
            if fenced.failed:
                seen = drop, set_aside(fenced.why)
            if seen is not None:
                yield seen


def _beside(
    entry: os.DirEntry[str], drop: Drop, ignore: Sequence[str]
) -> tuple[Drop, Waiting] | None:
    """Why something beside the inboxes waits; None for an inbox, and for ignored names."""
    waiting = Waiting(why="no_user", detail="it lies in no user's inbox folder")
    if durable.is_directory(entry):
        if is_user(entry.name) or _is_a_servers(entry):
            return None
        waiting = _ODD_INBOX
    elif names.ignored(entry.name, ignore):
        return None
    found = _stat(entry.path, None)
    if isinstance(found, OSError):
        return None if found.errno in _GONE else (drop, _unreadable(None, found))
    if entry.is_symlink() and entry.is_dir():
        waiting = _LINKED_INBOX
    return replace(drop, fingerprint=fingerprint(found)), waiting


_ODD_INBOX = Waiting(
    why="no_user",
    detail="nothing is taken from a folder here whose name begins with a dot or @: rename it",
)
#: Folders that servers and the panel keep beside the inboxes.
_SERVERS = frozenset({".uploads", ".snapshot", ".snapshots", ".zfs", ".recycle", "@eadir"})


def _is_a_servers(entry: os.DirEntry[str]) -> bool:
    """Whether nobody waits for the content of a folder of that name, because it is a server's or is empty."""
    if entry.name.lower() in _SERVERS or entry.name.lower().startswith(".trash"):
        return True
    try:
        with os.scandir(entry.path) as inside:
            return next(inside, None) is None
    except OSError:
        return False


def _stat(path: str, at: int | None) -> os.stat_result | OSError:
    try:
        return os.stat(path, dir_fd=at, follow_symlinks=False)
    except OSError as error:
        return error


def inbox_itself(user: str, waiting: Waiting) -> tuple[Drop, Waiting]:
    """The whole inbox of `user` as a drop that waits."""
    return Drop(user=user, path=user, project=None, fingerprint=_NOTHING), waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """A folder that is to be read; `found` is its ``stat`` from outside."""

    path: str
    user: str
    project: str | None
    depth: int
    found: os.stat_result

    def waits(self, waiting: Waiting) -> tuple[Drop, Waiting]:
        """The folder as a drop that waits."""
        found = fingerprint(self.found)
        drop = Drop(user=self.user, path=self.path, project=self.project, fingerprint=found)
        return drop, waiting


def scan(
    inbox: Path, user: str, ignore: Sequence[str], *, device: int
) -> Iterator[tuple[Drop, Waiting | None]]:
    """Every drop in the inbox of `user`, each with the reason why it can never be claimed as it is.

    A folder that cannot be read is returned as a drop of its own.

    Parameters
    ----------
    device
        The filesystem of the root; files cannot be renamed out of an inbox on another one.

    Raises
    ------
    FileNotFoundError
        The inbox is gone.
    """
    return (one for one in steps(inbox, user, ignore, device=device) if one is not None)


def steps(
    inbox: Path, user: str, ignore: Sequence[str], *, device: int
) -> Iterator[tuple[Drop, Waiting | None] | None]:
    """As `scan`, but yields None now and then, a good moment to give others their turn.

    No descriptor is open then.
    """
    try:
        found = os.stat(inbox / user, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), user)
    except FileNotFoundError:
        raise
    except OSError as error:
        yield inbox_itself(user, _unreadable(None, error))
        return
    pending = [_Folder(path=user, user=user, project=None, depth=0, found=found)]
    while pending:
        folder = pending.pop()
        below: list[_Folder] = []
        try:
            yield from _inside(inbox, folder, ignore, device, below)
        except OSError as error:
            if error.errno not in _GONE:
                yield folder.waits(_unreadable(folder, error))
            elif folder.depth == 0:
                raise FileNotFoundError(error.errno, os.strerror(error.errno), user) from error
            # Else it went away, or became something else, between the two looks.
        pending += reversed(below)
        yield None


def _inside(
    inbox: Path, folder: _Folder, ignore: Sequence[str], device: int, below: list[_Folder]
) -> Iterator[tuple[Drop, Waiting | None] | None]:
    """The drops of one folder; its subfolders are added to `below`."""
    with durable.beneath(inbox, folder.path) as descriptor, os.scandir(descriptor) as entries:
        listed = [entry.name for entry in entries]
    for first in range(0, len(listed), _AT_A_TIME):
        seen: list[tuple[Drop, Waiting | None]] = []
        with durable.beneath(inbox, folder.path) as descriptor:
            for name in listed[first : first + _AT_A_TIME]:
                ignored = names.ignored(name, ignore)
                if ignored and not names.is_temporary(name, ignore):
                    continue
                one = _look(descriptor, folder, name, device, copied=ignored)
                if isinstance(one, _Folder):
                    below.append(one)
                elif one is not None:
                    seen.append(one)
        yield from seen
        yield None


def _look(
    descriptor: int, folder: _Folder, name: str, device: int, *, copied: bool
) -> tuple[Drop, Waiting | None] | _Folder | None:
    """The entry `name` in `folder`; None if it is gone.

    By its name a file that is `copied` is not whole yet.
    """
    path = f"{folder.path}/{name}"
    found: os.stat_result | OSError | None = None
    drop = Drop(user=folder.user, path=path, project=folder.project, fingerprint=_NOTHING)
    with aside.fence("drop", path) as fenced:
        found = _stat(name, descriptor)
        if isinstance(found, os.stat_result):
            if copied:
                return replace(drop, fingerprint=fingerprint(found)), _COPIED
            never = _never(found, device, path, folder.depth)
            if never is None and stat.S_ISDIR(found.st_mode):
                return _Folder(
                    path=path,
                    user=folder.user,
                    project=_project(name) if folder.depth == 0 else folder.project,
                    depth=folder.depth + 1,
                    found=found,
                )
            return replace(drop, fingerprint=fingerprint(found)), never
    if not isinstance(found, OSError):
        return drop, set_aside(fenced.why)
    if isinstance(found, PermissionError):
        # The folder may be listed and not entered: it waits as a whole.
        raise found
    return None if found.errno in _GONE else (drop, _unreadable(None, found))


def _owned(found: os.stat_result) -> str:
    return f"it belongs to {_name_of(found.st_uid)}, with mode {stat.S_IMODE(found.st_mode):04o}"


@functools.lru_cache(maxsize=256)
def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _project(name: str) -> str | None:
    """The project of files that are dropped into a folder of that name, in NFC."""
    project = unicodedata.normalize("NFC", name[1:])
    return project if name[0] == "@" and project == names.file_name(project) else None


_LINKED_INBOX = Waiting(
    why="not_a_regular_file",
    detail="it is a link to a folder, and links are not followed: make it a folder of its own",
)


_COPIED = Waiting(
    why="temporary_name",
    detail="it has a name that says that it is still being copied",
    once_quiet=True,
)


def _unreadable(folder: _Folder | None, error: OSError) -> Waiting:
    said = error.strerror or str(error)
    if folder is None:
        return Waiting(why="unreadable", detail=f"it cannot be looked at ({said})")
    if error.errno in (errno.EACCES, errno.EPERM):
        detail = (
            f"this folder cannot be entered: {_owned(folder.found)}; give it to the user of "
            f"cytowatch, or let that user read and enter it ({said})"
        )
    else:
        detail = (
            f"this folder cannot be read: {_owned(folder.found)}; the system's log may say more "
            f"({said})"
        )
    return Waiting(why="unreadable", detail=detail)


def set_aside(why: str) -> Waiting:
    """The detail for something that raised an unexpected error."""
    detail = f"it was set aside after an unexpected error, and is tried again ({why})"
    return Waiting(why="set_aside", detail=detail)


def _never(found: os.stat_result, device: int, path: str, depth: int) -> Waiting | None:
    """Why the `found` entry can never be claimed, or read, as it is."""
    if found.st_dev != device:
        return Waiting(why="other_filesystem", detail="it is on another filesystem than the root")
    if len(os.fsencode(path)) > _LONGEST_BYTES:
        said = f"its path is longer than {_LONGEST_BYTES:,} bytes: move it up, or shorten names"
        return Waiting(why="too_deep", detail=said)
    if stat.S_ISDIR(found.st_mode):
        said = f"it lies more than {DEEPEST} folders deep: drop the slides themselves"
        return Waiting(why="too_deep", detail=said) if depth >= DEEPEST else None
    if stat.S_ISLNK(found.st_mode):
        return Waiting(
            why="not_a_regular_file",
            detail="it is a link, and links are not followed: copy the file itself",
        )
    if not stat.S_ISREG(found.st_mode):
        return Waiting(why="not_a_regular_file", detail="it is a pipe or a device, not a file")
    if found.st_nlink != 1:
        return Waiting(
            why="not_a_regular_file",
            detail=f"it has {found.st_nlink} names (hard links): another one could still change it",
        )
    return None
