"""Handing back: the original of an error returns to an inbox, as one unit."""

from __future__ import annotations

import errno
import os

from cytowatch import durable
from cytowatch.admin import ended
from cytowatch.inbox import back
from cytowatch.inbox.back import Unit
from cytowatch.observe import drops, returned
from cytowatch.record.errors import RootError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.originals import originals
from cytowatch.record.place import Place
from cytowatch.tree.spool import Spool

__all__ = ["give_back", "hand_back"]

_NOT_A_FOLDER = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})


def hand_back(spool: Spool, id_: UploadedFileId) -> str:
    """Hand the original of an error back to its user, into ``_returned``; returns the folder.

    Raises
    ------
    RootError
        It is not in an error.
    """
    place = ended.place(spool, id_)
    if not place.status.is_error:
        raise RootError(f"{id_} is {place.status.label}: `cytowatch export` copies its original")
    folder = f"{place.manifest['user']}/{returned.FOLDER}"
    said = returned.why(drops.seen(place.manifest, place.status))
    give_back(spool, place, folder, why=said)
    return str(spool.inbox / folder)


def give_back(spool: Spool, place: Place, folder: str, *, why: str = "") -> None:
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
