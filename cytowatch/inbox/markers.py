"""The files that copy programs have marked as done (``done_marker``), by the user in whose inbox they are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cytowatch import durable
from cytowatch.inbox import back
from cytowatch.record.drop import Drop

__all__ = ["Markers", "withdraw"]


def withdraw(inbox: Path, marker: Drop, to: Path) -> None:
    """Rename `marker` to `to`, outside the inbox, if it is still there and still the file that was seen.

    Anything that was put in its place meanwhile, a slide or a folder, goes back under its name.

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
    """Keeps the markers in the inboxes, each by the path of the drop that it marks."""

    def __init__(self) -> None:
        self._of_user: dict[str, dict[str, Drop]] = {}

    def put(self, user: str, found: dict[str, Drop]) -> None:
        """Replace the markers in the inbox of `user` by `found`."""
        self._of_user[user] = found
        if not found:
            del self._of_user[user]

    def __contains__(self, path: str) -> bool:
        return path in self._of_user.get(path.split("/", 1)[0], {})

    def of(self, path: str) -> Drop | None:
        """The marker of the file at `path`, or of a folder that contains it."""
        found = self._of_user.get(path.split("/", 1)[0])
        while found and "/" in path:
            if path in found:
                return found[path]
            path = path.rpartition("/")[0]
        return None

    def take(self, path: str) -> Drop | None:
        """Forget and return the marker of the drop at `path` itself."""
        return self._of_user.get(path.split("/", 1)[0], {}).pop(path, None)
