"""What is done with an uploaded file after it is finished: retried, handed back, removed.

Anyone who calls this is the only one that changes the tree: the daemon, or a command that holds its
lock because none runs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cytowatch import aside, durable
from cytowatch.inbox import back
from cytowatch.inbox.back import Unit
from cytowatch.observe import drops, returned
from cytowatch.record import manifest, names
from cytowatch.record.errors import RootError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.originals import originals
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["expired", "hand_back", "published", "remove", "retry", "status_of"]

_NOT_A_FOLDER = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})


def _place(spool: Spool, id_: UploadedFileId) -> Place:
    """Where an uploaded file is that is finished."""
    found = spool.find(id_)
    if found is None:
        there = (spool.storage / user / id_ for user in spool.users())
        for path in filter(Path.is_dir, there):
            read = manifest.read(path)
            return Place(status=manifest.status_of(read), path=path, manifest=read)
        raise RootError(f"there is no uploaded file {id_}")
    status, path = found
    if not status.is_final:
        raise RootError(f"{id_} is still in work ({status.label})")
    try:
        return Place(status=status, path=path, manifest=manifest.read(path))
    except (OSError, ManifestError) as error:
        raise RootError(f"the manifest of {id_} cannot be read: {error}") from error


def published(spool: Spool, id_: UploadedFileId) -> Path:
    """The directory of an uploaded file in storage.

    Raises
    ------
    RootError
        It is not there.
    """
    for path in spool.storage.glob(f"*/{id_}"):
        return path
    raise RootError(f"{id_} is not in storage")


def status_of(spool: Spool, id_: UploadedFileId) -> Status | None:
    """The status of an uploaded file that is finished; None for any other."""
    try:
        return _place(spool, id_).status
    except (RootError, OSError, ManifestError):
        return None


def retry(spool: Spool, id_: UploadedFileId, *, now: datetime) -> str:
    """Send an uploaded file that ended in an error back to the stage that failed; returns where to.

    One that was incomplete goes back to its inbox instead, to meet its late part.

    Raises
    ------
    RootError
        It is not in an error.
    """
    place = _place(spool, id_)
    if not place.status.is_error or place.manifest["error"] is None:
        raise RootError(
            f"{id_} is not an error ({place.status.label}), so there is nothing to retry"
        )
    if place.manifest["error"]["reason"] == "incomplete":
        return _to_inbox(spool, place)
    failed = Status[place.manifest["error"]["stage"]]
    native = place.manifest["format"] is not None and place.manifest["format"]["native"]
    # What was derived went with the error, so a pyramid is derived again before it is deployed.
    again = Status.CONVERTING if failed is Status.DEPLOYING and not native else failed
    if place.manifest["format"] is None or place.manifest["error"]["reason"] == "changed":
        # By its bytes, as if it had just come.
        again = Status.DETECTING_FORMAT
    with manifest.held(place.path) as found:
        manifest.write(place.path, manifest.at_status(found, again, now=now))
        spool.move(place.path, again)
    return again.name


def _to_inbox(spool: Spool, place: Place) -> str:
    if place.manifest["parent_id"] is not None:
        # What lies in the inbox by now may be of another slide with the same names.
        raise RootError(
            f"{place.manifest['id']} is incomplete and was part of another drop "
            f"({place.manifest['parent_id']}): send that again, whole"
        )
    _give_back(spool, place, os.path.dirname(place.manifest["drop_path"]))
    return "inbox"


def hand_back(spool: Spool, id_: UploadedFileId) -> str:
    """Hand the original of an error back to its user, into ``_returned``; returns the folder.

    Raises
    ------
    RootError
        It is not in an error.
    """
    place = _place(spool, id_)
    if not place.status.is_error:
        raise RootError(f"{id_} is {place.status.label}: `cytowatch export` copies its original")
    folder = f"{place.manifest['user']}/{returned.FOLDER}"
    said = returned.why(drops.seen(place.manifest, place.status))
    _give_back(spool, place, folder, why=said)
    return str(spool.inbox / folder)


def _give_back(spool: Spool, place: Place, folder: str, *, why: str = "") -> None:
    """Rename every original into `folder` of the inboxes, as one unit; then the ``<id>/`` goes.

    `why` is put beside them.

    Raises
    ------
    RootError
        A folder on the way is a link or a file, or a file is left over; what was not moved is kept.
    """
    rows = [(row["path"], name) for row, name in originals(place.manifest)]
    stem = os.path.splitext(os.path.basename(rows[0][1].partition("/")[0]))[0] if rows else ""
    with durable.locked(place.path):
        try:
            unit = Unit(stem=stem, files=rows)
            back.give_back(place.path, unit, spool.inbox, folder, why=why)
        except OSError as error:
            if error.errno not in _NOT_A_FOLDER:
                raise
            raise RootError(
                f"{folder} in the inboxes is not a folder of its own, or a part of it is a link: rename "
                f"what lies there, then try again ({error.strerror}: {error.filename})"
            ) from error
        left = next((top for top, _, files in durable.walk(place.path / "source") if files), None)
        if left:
            raise RootError(f"a file in {left} could not be handed back, and stays where it is")
        spool.discard(place.path)


def remove(spool: Spool, id_: UploadedFileId, index: Index, *, even_linked: bool = False) -> None:
    """Remove an uploaded file for good: one rename into the trash, then its links, then its bytes.

    Of one that vanished from storage, what is still known.

    Raises
    ------
    RootError
        A project shows it and `even_linked` is not set, or another one is shown by links to it.
    """
    try:
        place = _place(spool, id_)
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
