"""An uploaded file that is finished: where it is, and in which status.

Anyone who then retries, hands back or removes it is the only one that changes the tree: the daemon, or a command
that holds its lock because none runs.
"""

from __future__ import annotations

from pathlib import Path

from cytowatch.record.errors import RootError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.tree import places
from cytowatch.tree.spool import Spool

__all__ = ["place", "published", "status_of"]


def place(spool: Spool, id_: UploadedFileId) -> Place:
    """Where an uploaded file is that is finished.

    Raises
    ------
    RootError
        There is none, it is still in work, or its manifest cannot be read.
    ManifestError, OSError
        It is in storage, and its manifest cannot be read.
    """
    found = next(places.of(spool, id_), None)
    if found is None:
        raise RootError(f"there is no uploaded file {id_}")
    status, path = found
    if status is None:
        return Place.read(path)
    if not status.is_final:
        raise RootError(f"{id_} is still in work ({status.label})")
    try:
        return Place.read(path, status)
    except (OSError, ManifestError) as error:
        raise RootError(f"the manifest of {id_} cannot be read: {error}") from error


def published(spool: Spool, id_: UploadedFileId) -> Path:
    """The directory of an uploaded file in storage.

    Raises
    ------
    RootError
        It is not there.
    """
    found = places.in_storage(spool, id_)
    if found is None:
        raise RootError(f"{id_} is not in storage")
    return found


def status_of(spool: Spool, id_: UploadedFileId) -> Status | None:
    """The status of an uploaded file that is finished; None for any other."""
    try:
        return place(spool, id_).status
    except (RootError, OSError, ManifestError):
        return None
