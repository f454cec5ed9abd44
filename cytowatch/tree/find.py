"""A read-only view of a root for the commands, beside a running daemon or without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytowatch import aside, durable
from cytowatch.record import manifest, names
from cytowatch.record.errors import RootError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.place import Place
from cytowatch.record.skipped import losses
from cytowatch.record.status import Status
from cytowatch.tree import places
from cytowatch.tree.index.index import Index, Row
from cytowatch.tree.live import read as live
from cytowatch.tree.spool import Spool

__all__ = ["Entry", "daemon_pid", "entries", "entry", "indexed", "live", "project_ids", "spellings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Place):
    """One uploaded file as commands show it."""

    #: Why its manifest cannot be read, if so; `manifest` then holds everything else that is known.
    damaged: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The manifest for JSON, with the status by the rule, and the path."""
        return {
            **self.manifest,
            "status": self.status.name,
            "status_code": self.status.code,
            "path": str(self.path),
            "lost": losses(self.manifest),
        }


@contextmanager
def indexed(spool: Spool) -> Iterator[Index]:
    """The index of the tree, as up to date as possible.

    A running daemon keeps it up to date. If none runs, it is compared with the tree first, because
    somebody may have changed the tree by hand. A process that may not write it gets one of its own.
    """
    found = _right(spool) or Index.read(spool)
    if found is None:
        found = Index(spool, memory=True)
        found.reconcile()
    try:
        yield found
    finally:
        found.close()


def _right(spool: Spool) -> Index | None:
    usable = Index.read(spool)
    if usable is None or daemon_pid(spool) is not None:
        # Making one takes time, and no daemon could start meanwhile.
        return None
    usable.close()
    try:
        with spool.lock():
            found = Index(spool)
            found.reconcile()
    except (RootError, OSError):
        return None
    return found if found.fault is None else None


def entry(spool: Spool, row: Row) -> Entry | None:
    """The uploaded file of `row` as it is now; None if it is gone.

    If its manifest cannot be read, what the index knows takes its place.
    """
    unread: Entry | None = None
    for status, path in places.of(spool, row.id, row.user, last=row.status):
        try:
            with aside.fence("uploaded_file", row.id, but=(FileNotFoundError,)) as fenced:
                return _read(path, status)
        except FileNotFoundError:
            if not path.is_dir():
                continue
            fenced.why = f"{path} has no manifest"
        unread = _unread(path, row, status, fenced.why)
    return unread


def _read(path: Path, status: Status | None) -> Entry:
    found = Entry.read(path, status)
    if found.manifest["id"] != path.name:
        raise ManifestError(f"{path} holds the manifest of {found.manifest['id']}")
    return found


def _unread(path: Path, row: Row, status: Status | None, why: str) -> Entry:
    held = row.status if row.status.is_success else Status.DEPLOYED
    known = manifest.unreadable(row.id, user=row.user, status=status or held, why=why)
    known["name"] = row.name
    known["parent_id"] = row.parent_id
    return Entry(status=status or held, path=path, manifest=known, damaged=why)


def project_ids(spool: Spool, project: str) -> list[str]:
    """The ids of everything that a project shows, by its links, no matter how its name is spelled."""
    found: list[str] = []
    folders: list[str] = []
    # Nothing is linked where the folder of all projects is missing.
    with suppress(FileNotFoundError):
        folders = os.listdir(spool.projects)
    for folder in names.alike(folders, project):
        # Other files that an administrator put there show nothing, and a link may be removed just now.
        with suppress(OSError):
            for link in (spool.projects / folder).iterdir():
                with suppress(OSError):
                    found.append(os.path.basename(os.readlink(link)))
    return found


def spellings(spool: Spool, user: str) -> list[str]:
    """The spellings of a user's folders, which differ only by case or accents."""
    folders = [*os.listdir(spool.inbox), *os.listdir(spool.storage)]
    return sorted({user, *names.alike(folders, user)})


def entries(spool: Spool) -> Iterator[Entry]:
    """Every uploaded file of the tree, in no order, each read from its manifest.

    A file that moves meanwhile may be seen in two places, and is returned once.
    """
    seen: set[str] = set()
    for status, path in places.everything(spool):
        yield from _entry(path, status, seen)


def _entry(path: Path, status: Status | None, seen: set[str]) -> Iterator[Entry]:
    if path.name in seen:
        return
    one: Entry | None = None
    with (
        suppress(FileNotFoundError),
        aside.fence("uploaded_file", path.name, but=(FileNotFoundError,)),
    ):
        one = Entry.read(path, status)
    if one is not None:
        seen.add(path.name)
        yield one


def daemon_pid(spool: Spool) -> int | None:
    """The process id of the daemon that holds this root, if there is one."""
    try:
        descriptor = os.open(spool.state / "lock", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        durable.lock(descriptor, shared=True, wait=False)
    except BlockingIOError:
        text = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None
