"""Entering a status: the manifest is written where the uploaded file is, and one rename is the new status.

A crash between the two leaves a manifest that says too much; `correct` takes that back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from cytowatch.config.keys import Hook
from cytowatch.decoder import recorded
from cytowatch.durable.failpoints import reached
from cytowatch.hooks.pending import note as note_hook
from cytowatch.record import manifest, names
from cytowatch.record.entries import ErrorEntry, FileEntry, Manifest
from cytowatch.record.errors import IngestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import ERROR_OF, Status
from cytowatch.transitions import notes
from cytowatch.transitions.correct import out_directories, without_output, without_temporaries
from cytowatch.tree.spool import Spool

__all__ = ["attempt", "begin", "enter", "extracted", "fail", "parted", "withdraw"]


def begin(spool: Spool, place: Place, status: Status, *, now: datetime) -> Place:
    """Enter the working `status` from UPLOADED; if a power cut undoes that, it begins again."""
    return enter(spool, place, place.manifest, status, now=now, attempts=1, durably=False)


def attempt(place: Place) -> Place:
    """Count one more attempt at the stage; the count is on disk before the attempt begins."""
    counted = manifest.evolve(place.manifest, attempts=place.manifest["attempts"] + 1)
    manifest.write(place.path, counted)
    reached("attempt.counted")
    return Place(status=place.status, path=place.path, manifest=counted)


def parted(place: Place) -> Place:
    """`place`, which is not a duplicate after all: it is treated by itself from now on."""
    changed = manifest.evolve(place.manifest, duplicate_of=None)
    manifest.write(place.path, changed)
    return Place(status=place.status, path=place.path, manifest=changed)


def withdraw(place: Place) -> None:
    """Undo the count of an attempt that did not end through a fault of the file."""
    counted = place.manifest["attempts"]
    manifest.write(place.path, manifest.evolve(place.manifest, attempts=max(0, counted - 1)))


def extracted(
    spool: Spool, place: Place, changed: Manifest, *, now: datetime, hooks: Sequence[Hook] = ()
) -> Place:
    """Publish the uploaded file of a dropped folder, all of whose images were claimed."""
    return enter(spool, place, changed, Status.EXTRACTED, now=now, attempts=0, hooks=hooks)


def fail(
    spool: Spool,
    place: Place,
    error: IngestError,
    *,
    now: datetime,
    hooks: Sequence[Hook] = (),
) -> Place:
    """End in the error of the stage: the original stays, everything half-made is removed."""
    status = ERROR_OF.get(place.status, Status.ERROR_DEPLOYMENT)
    for leftover in [*out_directories(place.path), place.path / "derived"]:
        if leftover.exists():
            spool.discard(leftover)
    entry = ErrorEntry(
        reason=error.reason,
        detail=error.detail,
        stage=place.status.name,
        retryable=error.retryable,
    )
    changed = manifest.evolve(
        place.manifest,
        images=[],
        conversion=None,
        files=without_output(place.manifest["files"]),
        phase=None,
    )
    if error.reason == "changed":
        # Its hash describes bytes that no longer exist.
        changed["sha256"] = None
        changed["files"] = [cast("FileEntry", {**row, "sha256": None}) for row in changed["files"]]
    return enter(spool, place, changed, status, now=now, attempts=0, error=entry, hooks=hooks)


def enter(
    spool: Spool,
    place: Place,
    changed: Manifest,
    status: Status,
    *,
    now: datetime,
    attempts: int,
    error: ErrorEntry | None = None,
    durably: bool = True,
    hooks: Sequence[Hook] = (),
) -> Place:
    if status.is_final:
        spelled = dict.fromkeys(spool.spelled(project) for project in changed["projects"])
        changed = manifest.evolve(changed, projects=list(spelled))
    written = manifest.at_status(changed, status, now=now, attempts=attempts, error=error)
    if status.is_final:
        for leftover in out_directories(place.path):
            spool.discard(leftover)
        recorded.forget(place.path)
        without_temporaries(place.path)
    manifest.write(place.path, written, durably=durably)
    if status.is_final:
        note_hook(spool, hooks, written, status, now=now)
        reached("hook.noted")
    if status in (Status.DEPLOYED, Status.CONVERTED):
        for project in written["projects"]:
            shown = names.link_name(written["drop_path"], written["name"])
            spool.link(project, shown, written["user"], UploadedFileId(written["id"]))
            reached("project.linked")
    if status.is_success:
        notes.note_hash(spool, written)
        path = spool.publish(place.path, written["user"])
    else:
        # A power cut may undo the rename from one working status to the next. The manifest is then ahead
        # of the directory, as after a kill between the two, and the step is repeated
        # (test_disk.py::test_power_that_is_cut). That saves two fsyncs per step.
        path = spool.move(place.path, status, durably=status.is_final)
    return Place(status=status, path=path, manifest=written)
