"""Removing for good: what an admin asks to remove, and errors that have been kept long enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cytowatch import aside, durable
from cytowatch.admin import ended
from cytowatch.record import manifest, names
from cytowatch.record.errors import RootError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["expired", "remove"]


def remove(spool: Spool, id_: UploadedFileId, index: Index, *, even_linked: bool = False) -> None:
    """Remove an uploaded file for good: one rename into the trash, then its links, then its bytes.

    Of one that vanished from storage, what is still known.

    Raises
    ------
    RootError
        A project shows it and `even_linked` is not set, or another one is shown by links to it.
    """
    try:
        place = ended.place(spool, id_)
    except RootError:
        if spool.find(id_) is None and index.forget(id_):
            _unlink_everywhere(spool, id_)
            return
        raise
    _refuse_if_shown(spool, id_, index)
    # What it says by then: it may just have been linked by a command, which holds it as well.
    with manifest.held(place.path) as found:
        if found["projects"] and not even_linked:
            raise RootError(
                f"{id_} is in the project {found['projects'][0]}: unlink it first, or say --anyway"
            )
        index.expect_removal(id_)
        grave = spool.trash / place.path.name
        durable.rename(place.path, grave)
        # What was said to be removed does not come back.
        durable.fsync_directory(place.path.parent)
    shown = names.link_name(found["drop_path"], found["name"])
    for project in found["projects"]:
        spool.unlink(project, shown, id_)
    spool.discard(grave)
    if index.fault is not None:
        # The disk was too full to note it, and there is room now: it must not be called vanished.
        index.expect_removal(id_)


def _refuse_if_shown(spool: Spool, id_: UploadedFileId, index: Index) -> None:
    """Raise a `RootError` where another uploaded file shows the bytes of this one, or may soon."""
    for other in index.linked_to(id_):
        staged = spool.find(UploadedFileId(other.id))
        if staged is not None and not staged[0].is_final:
            # It may be about to give up its own bytes for links to these.
            raise RootError(f"{other.id} has the same content and is in work: try again later")
        source = spool.storage / other.user / other.id / "source"
        if source.is_symlink() and Path(os.readlink(source)).parts[1:2] == (id_,):
            raise RootError(f"{other.id} has the same content and is shown by links to it")


def _unlink_everywhere(spool: Spool, id_: UploadedFileId) -> None:
    """Remove the links to what is gone, whose manifest would have named its projects."""
    for link in spool.projects.glob(f"*/*~{id_.split('-')[2]}"):
        if link.is_symlink() and os.path.basename(os.readlink(link)) == id_:
            link.unlink()


def expired(
    spool: Spool, *, age_s: Callable[[datetime], float], days: float
) -> Iterator[tuple[Status, UploadedFileId]]:
    """The errors that are older than `days`, each with its status; none if that is 0.

    `age_s` is the age of what is dated so.
    """
    if days <= 0:
        return
    for status in Status:
        if not status.is_error:
            continue
        for id_ in spool.in_status(status):
            path, late = spool.stage(status) / id_, False
            # By its path: anyone who then removes it speaks of the same id.
            which = os.fspath(path.relative_to(spool.root))
            # It may be removed right now, or be damaged: then its age is unknown.
            gone = (FileNotFoundError, ManifestError)
            with suppress(*gone), aside.fence("uploaded_file", which, but=gone):
                found = manifest.read(path)
                at = datetime.fromisoformat(found["history"][-1]["at"])
                late = age_s(at) > days * 86_400
            if late:
                yield status, id_
