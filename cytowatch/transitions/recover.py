"""The first thing that a start does: it leaves nothing half-done, and does nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cytowatch import aside
from cytowatch.decoder.recorded import kill_recorded
from cytowatch.record import manifest
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place, is_folder
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.transitions import correct, lighten
from cytowatch.tree.spool import Spool

__all__ = ["finish", "recover", "set_doubles_aside"]


def set_doubles_aside(spool: Spool) -> Iterator[tuple[UploadedFileId, Status, Path]]:
    """If an uploaded file is there twice, leave the one that is further on where it is.

    A rename cannot make two of one; restoring a backup that was taken while slides moved can. The other
    one is moved to ``state/aside/``, because nothing is deleted unasked. Returns its id, its status and
    its new place.
    """
    seen: set[UploadedFileId] = set()
    for status in reversed(STAGE_STATUSES):
        for id_ in spool.in_status(status):
            path = spool.stage(status) / id_
            place: Path | None = None
            with aside.fence("uploaded_file", id_):
                if id_ in seen or _is_published(spool, path):
                    kill_recorded(path)
                    place = spool.set_aside(path, status)
            seen.add(id_)
            if place is not None:
                yield id_, status, place


def _is_published(spool: Spool, path: Path) -> bool:
    try:
        user = manifest.read(path)["user"]
    except (FileNotFoundError, ManifestError):
        return False
    return (spool.storage / user / path.name).is_dir()


def recover(spool: Spool, *, now: datetime) -> Iterator[tuple[str, UploadedFileId]]:
    """Tidy every uploaded file in work; return the user and the id of each that continues.

    A decoder process that outlived its daemon is ended before its files are touched. If something fails
    for one file, the engine meets it again, and tries until the cause is gone.
    """
    for status in STAGE_STATUSES:
        for id_ in spool.in_status(status):
            user: str | None = "unknown"
            with aside.fence("uploaded_file", id_):
                user = _taken_up(spool, spool.stage(status) / id_, status, now=now)
            if user is not None:
                yield user, id_


def _taken_up(spool: Spool, path: Path, status: Status, *, now: datetime) -> str | None:
    """Tidy the uploaded file at `path`; return its user if it continues."""
    kill_recorded(path)
    try:
        found = manifest.read(path)
    except (ManifestError, FileNotFoundError):
        # The engine gives it a new manifest and ends it in an error; nothing of it is lost.
        return "unknown"
    if is_folder(found) and status is Status.EXTRACTING_DATA:
        correct.without_temporaries(path)
        return None
    if status.is_error:
        right = correct.corrected(found, status, now=now)
        if right != found:
            manifest.write(path, right)
        return None
    correct.tidy(spool, Place(status=status, path=path, manifest=found), now=now)
    return found["user"]


def finish(spool: Spool) -> Iterator[str]:
    """Remove what was to be removed and could not be: now, while nothing is in work, or at the next start.

    Returns the ids of the uploaded files whose manifest this has changed.
    """
    spool.empty_trash()
    with suppress(OSError):
        yield from lighten.lighten_the_rest(spool)
