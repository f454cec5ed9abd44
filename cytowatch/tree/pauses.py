"""The users, or everyone, whom an administrator holds back; kept in one file across restarts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytowatch import durable, outside
from cytowatch.outside import OutsideError
from cytowatch.record import names
from cytowatch.record.errors import RootError
from cytowatch.tree.spool import Spool

__all__ = ["Pauses", "pause", "read", "resume"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """The users whose drops stay in their inboxes, and whose uploaded files are not started.

    Examples
    --------
    >>> Pauses(users=frozenset({"ann"})).covers("Ann"), Pauses().covers("ann")
    (True, False)
    """

    everyone: bool = False
    users: frozenset[str] = frozenset()

    def covers(self, user: str) -> bool:
        """Whether `user` is held back, no matter how the name is spelled."""
        return self.everyone or bool(self.users and names.alike(self.users, user))

    def __bool__(self) -> bool:
        return self.everyone or bool(self.users)

    @property
    def document(self) -> dict[str, object]:
        """The same for JSON."""
        return {"everyone": self.everyone, "users": sorted(self.users)}


def _path(spool: Spool) -> Path:
    return spool.state / "paused.json"


def read(spool: Spool) -> Pauses:
    """The current pauses; a file that cannot be read holds back nobody."""
    try:
        return _checked(outside.read_json(_path(spool)))
    except (OSError, OutsideError):
        return Pauses()


def _checked(found: dict[str, Any]) -> Pauses:
    everyone, users = found.get("everyone"), found.get("users")
    if type(everyone) is not bool or type(users) is not list:
        raise OutsideError("everyone or users is missing, or of another type")
    if any(type(user) is not str for user in users):
        raise OutsideError("users holds something else than names")
    return Pauses(everyone=everyone, users=frozenset(users))


def _write(spool: Spool, pauses: Pauses) -> None:
    path = _path(spool)
    if pauses:
        durable.replace_durably(path, json.dumps(pauses.document), name=False)
    elif path.is_dir():
        # A folder in its place is not a pause, so it is moved away.
        spool.discard(path)
    else:
        path.unlink(missing_ok=True)
    # An administrator who paused or resumed it, perhaps to move a disk, relies on that after a power cut too.
    durable.fsync_directory(spool.state)


def pause(spool: Spool, user: str | None) -> Pauses:
    """Hold back `user`, or everyone for None; return the pauses that now hold."""
    before = read(spool)
    if user is not None:
        # In the daemon's spelling of a folder whose name is not UTF-8.
        user = names.decode(os.fsencode(user))[0]
    after = Pauses(
        everyone=before.everyone or user is None,
        users=before.users | ({user} if user is not None else set()),
    )
    _write(spool, after)
    return after


def resume(spool: Spool, user: str | None) -> Pauses:
    """Let `user` continue, or everyone for None; return the pauses that still hold.

    Raises
    ------
    RootError
        Everyone is held back, so no single user can continue.
    """
    before = read(spool)
    if user is not None and before.everyone:
        raise RootError("everyone is paused: `cytowatch resume` without --user lets all go on")
    freed = names.alike(before.users, names.decode(os.fsencode(user or ""))[0])
    after = Pauses(users=before.users.difference(freed)) if user is not None else Pauses()
    _write(spool, after)
    return after
