"""What every page needs: the tree, the index for reading, and who may see which uploaded file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from cytowatch.config import Config, Panel
from cytowatch.lifecycle.summary import Estimates
from cytowatch.panel.sessions import Sessions
from cytowatch.panel.who import Person
from cytowatch.record import names
from cytowatch.record.names import ID_PATTERN
from cytowatch.tree import find
from cytowatch.tree.index.index import Index, Row
from cytowatch.tree.spool import Spool

__all__ = ["Context", "Visible", "person_of"]

#: How often an index of our own is compared with the tree, in seconds.
_AGAIN_S = 15.0
_MOST_KEPT = 1000
_PROJECTS_KEPT_S = 3.0


def person_of(request: Request) -> Person:
    """Who asks; the gate has decided it before any page runs."""
    found: Person = request.scope["state"]["person"]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """What one person may see: everything, or these users' files and these ids.

    `users` are the spellings of one user's folders; `ids` come from projects.
    """

    everything: bool
    users: tuple[str, ...] = ()
    ids: frozenset[str] = frozenset()

    def covers(self, row: Row) -> bool:
        """Whether `row` is visible."""
        return self.everything or row.user in self.users or row.id in self.ids


def _is_text(name: str) -> bool:
    r"""Whether a name on the disk is UTF-8.

    >>> _is_text("café"), _is_text("caf\udce9")
    (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(slots=True, kw_only=True)
class Context:
    """One panel: its tree and its configuration; shared by all requests, safe from any thread.

    It only reads. The index is opened read-only for each question; where that is not possible
    (there is none, or it is of another version) one is made in memory.
    """

    spool: Spool
    config: Config
    sessions: Sessions
    #: With `auth = "none"`: whether anyone may act.
    actions: bool = False
    #: Reads the configuration again, at SIGHUP.
    reload: Callable[[], Config] | None = None
    estimates: Estimates = field(default_factory=Estimates)
    _own: Index | None = None
    _own_at: float = float("-inf")
    _lock: threading.RLock = field(default_factory=threading.RLock)
    #: When the value expires, and the value.
    _kept: dict[str, tuple[float, Any]] = field(default_factory=dict)

    @property
    def panel(self) -> Panel:
        """The section [panel]."""
        return self.config.panel

    @contextmanager
    def index(self) -> Iterator[Index]:
        """The index, for reading in this thread.

        Raises
        ------
        RootError
            There is no index, and the tree is not there.
        """
        found = Index.read(self.spool)
        if found is None:
            yield self._in_memory()
            return
        try:
            yield found
        finally:
            found.close()

    def _in_memory(self) -> Index:
        # One that was made of an empty mount point would show that there never was a slide.
        Spool.open(self.spool.root)
        with self._lock:
            if self._own is None:
                self._own = Index(self.spool, memory=True)
            if time.monotonic() - self._own_at > _AGAIN_S:
                self._own.reconcile()
                self._own_at = time.monotonic()
            return self._own

    def may_see(self, request: Request) -> Visible:
        """What the person who asks may see."""
        who = person_of(request)
        if who.sees_all:
            return Visible(everything=True)
        ids = self.kept(f"ids {who.projects}", _PROJECTS_KEPT_S, lambda: self._ids_of(who.projects))
        # A user may have no folder yet, and still be named for a project.
        users = tuple(find.spellings(self.spool, who.name))
        return Visible(everything=False, users=users, ids=ids)

    def _ids_of(self, projects: tuple[str, ...]) -> frozenset[str]:
        return frozenset(id_ for one in projects for id_ in find.project_ids(self.spool, one))

    def visible(self, request: Request, id: str) -> Row:  # noqa: A002
        """The uploaded file `id`, if the person who asks may see it.

        Every page and every tile asks here, and nowhere else.

        Raises
        ------
        HTTPException
            404: there is none, or it is somebody else's. The two answers are the same.
        """
        if ID_PATTERN.fullmatch(id):
            with self.index() as index:
                rows = index.select(ids=[id], limit=1)
            if rows and self.may_see(request).covers(rows[0]):
                return rows[0]
        raise HTTPException(404)

    def entry(self, request: Request, id: str) -> find.Entry:  # noqa: A002
        """The uploaded file `id` with its manifest, if the person who asks may see it.

        Raises
        ------
        HTTPException
            404, as `visible` says; or it was removed meanwhile.
        """
        found = find.entry(self.spool, self.visible(request, id))
        if found is None:
            raise HTTPException(404)
        return found

    def kept(self, key: str, seconds: float, make: Callable[[], Any], *, times: float = 0.0) -> Any:
        """What `make` returns, kept for some seconds, so that pages that many look at ask once.

        What takes long to make is kept at least `times` as long as that.
        """
        now = time.monotonic()
        held = self._kept.get(key)
        if held is not None and now < held[0]:
            return held[1]
        made = make()
        end = time.monotonic()
        with self._lock:
            if len(self._kept) > _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = (end + max(seconds, times * (end - now)), made)
        return made

    def file_of(self, entry: find.Entry, path: str) -> Path:
        """The file `path` of `entry`, which lies in the tree and nowhere else.

        Raises
        ------
        HTTPException
            404: it is not there, is not a regular file, or leads out of the tree.
        """
        try:
            found = (entry.path / path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise HTTPException(404) from None
        homes = [home.resolve() for home in (self.spool.storage, self.spool.stages)]
        if not found.is_file() or not any(found.is_relative_to(home) for home in homes):
            raise HTTPException(404)
        return found

    def names_in(self, folder: Path) -> list[str]:
        """The names in a folder of the tree, in order; without the hidden ones and those that are not UTF-8.

        Such a name fits into no page and no address.
        """
        try:
            found = os.listdir(folder)
        except OSError:
            return []
        return sorted(one for one in found if not one.startswith(".") and _is_text(one))

    def same_user(self, one: str, other: str) -> bool:
        """Whether two names are the same user's."""
        return names.fold(one) == names.fold(other)
