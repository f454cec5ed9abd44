"""Retrying: an uploaded file that ended in an error goes back to the stage that failed."""

from __future__ import annotations

import os
from datetime import datetime

from cytowatch.admin import ended
from cytowatch.admin.give_back import give_back
from cytowatch.record import manifest
from cytowatch.record.errors import RootError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool

__all__ = ["retry"]


def retry(spool: Spool, id_: UploadedFileId, *, now: datetime) -> str:
    """Send an uploaded file that ended in an error back to the stage that failed; returns where to.

    One that was incomplete goes back to its inbox instead, to meet its late part.

    Raises
    ------
    RootError
        It is not in an error.
    """
    place = ended.place(spool, id_)
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
    give_back(spool, place, os.path.dirname(place.manifest["drop_path"]))
    return "inbox"
