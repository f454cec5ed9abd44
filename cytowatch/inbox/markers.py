"""What copiers say is done: the files that ``done_marker`` names, by the user in whose inbox they lie."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cytowatch import durable
from cytowatch.inbox import back
from cytowatch.record.drop import Drop

__all__ = ["Markers", "withdraw"]


def withdraw(inbox: Path, marker: Drop, to: Path) -> None:
    """Rename `marker` to `to`, outside of the inbox, if it is there still and is the file that was seen.

    Anything that was put in its place by then, a slide or a folder, goes back under its name.

    Raises
    ------
    OSError
        A fault of the machine.
    """
    folder, _, name = marker.path.rpartition("/")
    try:
        with durable.beneath(inbox, folder) as at:
            if not _is(os.stat(name, dir_fd=at, follow_symlinks=False), marker):
                return
            durable.rename(name, to, source_fd=at)
            if not _is(os.lstat(to), marker):
                back.put(to, name, at)
    except OSError as error:
        if durable.is_transient(error):
            raise


def _is(found: os.stat_result, marker: Drop) -> bool:
    seen = marker.fingerprint
    same = (found.st_dev, found.st_ino) == (seen.device, seen.inode)
    return same and stat.S_ISREG(found.st_mode)


class Markers:
    """Guards the markers that lie in the inboxes, each known by the path of what it marks."""

    def __init__(self) -> None:
        self._of_user: dict[str, dict[str, Drop]] = {}

    def put(self, user: str, found: dict[str, Drop]) -> None:
        """Let exactly `found` be those in the inbox of `user`."""
        self._of_user[user] = found
        if not found:
            del self._of_user[user]

    def __contains__(self, path: str) -> bool:
        return path in self._of_user.get(path.split("/", 1)[0], {})

    def of(self, path: str) -> Drop | None:
        """The marker of the file at `path`, or of a folder that it lies in."""
        found = self._of_user.get(path.split("/", 1)[0])
        while found and "/" in path:
            if path in found:
                return found[path]
            path = path.rpartition("/")[0]
        return None

    def take(self, path: str) -> Drop | None:
        """The marker of what lies at `path` itself, which is not known any longer."""
        return self._of_user.get(path.split("/", 1)[0], {}).pop(path, None)
