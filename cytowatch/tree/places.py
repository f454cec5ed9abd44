"""Where an uploaded file is, and in which status: the only module that searches the tree for one.

Under ``stages/`` the directory decides the status. In ``storage/`` the manifest does, so a place there is given
without a status; `Place.read` adds the manifest's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.tree.spool import Spool

__all__ = ["everything", "in_status", "in_storage", "of"]


def everything(spool: Spool) -> Iterator[tuple[Status | None, Path]]:
    """Every uploaded file of the tree; one that moves meanwhile may be seen in both places."""
    for status in STAGE_STATUSES:
        for id_ in spool.in_status(status):
            yield status, spool.stage(status) / id_
    for path in spool.stored():
        yield None, path


def in_status(
    spool: Spool, id_: UploadedFileId, user: str, status: Status
) -> tuple[Status | None, Path]:
    """Where an uploaded file of `user` lies if it is in `status`."""
    if status.directory is None:
        return None, spool.storage / user / id_
    return status, spool.stage(status) / id_


def in_storage(spool: Spool, id_: UploadedFileId, user: str | None = None) -> Path | None:
    """Its directory in storage, where the folder of `user` is looked into first; None if it is in none."""
    users = sorted(spool.users(), key=lambda one: one != user)
    paths = (spool.storage / one / id_ for one in users)
    return next(filter(Path.is_dir, paths), None)


def of(
    spool: Spool, id_: UploadedFileId, user: str | None = None, *, last: Status | None = None
) -> Iterator[tuple[Status | None, Path]]:
    """The places of an uploaded file, most likely first; it may move on while they are looked at.

    Parameters
    ----------
    user
        Whose it is, if that is known: then nobody else's storage is looked into.
    last
        The status that it had when last seen. Where it was then comes first, and need not be there.
    """
    if last is not None and user is not None:
        yield in_status(spool, id_, user, last)
    # Twice: it may be published between the two looks, and never comes back.
    for _ in range(2):
        # The stage directories first, because it comes from there.
        staged = spool.find(id_)
        if staged is not None:
            yield staged
        for one in [user] if user else spool.users():
            path = spool.storage / one / id_
            if path.is_dir():
                yield None, path
