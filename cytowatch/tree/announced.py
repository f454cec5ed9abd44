"""``inbox/.uploads/.room*.json``: what uploads through panels may still write, so that no stage takes their room.

Each panel of a tree has a file of its own, and renews it while its uploads need room. The daemon adds up the
fresh ones and ignores the others, so a panel that is not running holds up nobody.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from cytowatch import durable, outside
from cytowatch.outside import OutsideError

__all__ = ["AGAIN_S", "Part", "is_part", "path_of", "read"]

#: While anything is announced, a panel writes its part again at least this often.
AGAIN_S = 60.0
_FRESH_S = 5 * AGAIN_S
#: Panels that may take uploads for one tree at the same time.
_MOST = 16
_BEGINS = ".room"


def path_of(inbox: Path, number: int = 0) -> Path:
    """The file in which the panel at place `number` states its part."""
    return inbox / ".uploads" / f"{_name(number)}.json"


def _name(number: int) -> str:
    return f"{_BEGINS}-{number}" if number else _BEGINS


def is_part(name: str) -> bool:
    """Whether a name in ``inbox/.uploads`` is that of a part or of its lock."""
    return name.startswith(_BEGINS)


def read(inbox: Path, now: float | None = None) -> int:
    """How many bytes the uploads through all panels may still write; 0 if no panel has stated it lately."""
    return sum(_stated(path_of(inbox, number), now) for number in range(_MOST))


def _stated(path: Path, now: float | None = None) -> int:
    try:
        age_s = (time.time() if now is None else now) - path.lstat().st_mtime
        # After a clock was set back, the file seems to come from the future.
        return 0 if abs(age_s) > _FRESH_S else _bytes_in(path)
    except OSError:
        return 0


def _bytes_in(path: Path) -> int:
    try:
        found = outside.read_json(path)
        return int(outside.number(found.get("bytes"), least=0, most=outside.LARGEST))
    except (OSError, OutsideError):
        return 0


class Part:
    """Guards that two panels of one tree never state their room in the same file; safe from any thread.

    A panel takes the first place whose lock is free. So a panel that is started again after a kill takes its old
    place, and replaces what it stated before, which would otherwise count twice.
    """

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._guard = threading.Lock()
        self._number = -1
        self._lock: int | None = None
        self._told = 0
        self._told_at = float("-inf")

    def state(self, size_bytes: int) -> None:
        """Tell the daemon that uploads here may still write `size_bytes`, unless it knows that already.

        Raises
        ------
        OSError
            It cannot be written, or there are too many panels.
        """
        with self._guard:
            due = size_bytes and time.monotonic() - self._told_at >= AGAIN_S
            if size_bytes == self._told and not due:
                return
            # Before the first upload there is no folder, and nothing to state.
            with suppress(FileNotFoundError):
                self._take()
                durable.replace_file(
                    path_of(self._inbox, self._number), f'{{"bytes": {size_bytes}}}\n'
                )
            self._told, self._told_at = size_bytes, time.monotonic()

    def others(self) -> int:
        """What uploads through the other panels of this tree may still write."""
        with self._guard:
            # Without a place, what this panel stated before a kill would count as another panel's.
            with suppress(OSError):
                self._take()
            return sum(
                _stated(path_of(self._inbox, number))
                for number in range(_MOST)
                if number != self._number
            )

    def close(self) -> None:
        """Give up its place; what it stated counts until it is no longer fresh."""
        with self._guard:
            self._leave()

    def _leave(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock, self._number = None, -1

    def _take(self) -> None:
        if self._lock is not None and _is_at(self._lock, self._lock_path(self._number)):
            return
        # There is no lock yet, or somebody has removed it by hand.
        self._leave()
        for number in range(_MOST):
            with suppress(PermissionError, BlockingIOError):
                self._lock = _locked(self._lock_path(number))
                self._number = number
                self._told = _bytes_in(path_of(self._inbox, number))
                return
        raise BlockingIOError(f"{_MOST} panels take uploads for this tree already")

    def _lock_path(self, number: int) -> Path:
        return self._inbox / ".uploads" / f"{_name(number)}.lock"


def _locked(path: Path) -> int:
    """Take the lock at `path`; gives its descriptor.

    Raises
    ------
    BlockingIOError
        Somebody else holds it.
    """
    found = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        durable.lock(found, wait=False)
        if not _is_at(found, path):
            raise BlockingIOError
    except BaseException:
        os.close(found)
        raise
    return found


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
