"""Accepting the outcome of a stage: it is checked, made durable, and only then named in the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

from cytowatch import durable, formats
from cytowatch.config.keys import Hook, Limits, Storage
from cytowatch.decoder.answers import refused
from cytowatch.decoder.made import check_child, check_derived
from cytowatch.durable.failpoints import reached
from cytowatch.model import Outcome
from cytowatch.record import manifest, schema
from cytowatch.record.entries import FileEntry, Manifest
from cytowatch.record.errors import FormatError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import FOLLOWERS, Status
from cytowatch.transitions.correct import out_directories
from cytowatch.transitions.enter import enter, fail
from cytowatch.tree.spool import Spool

__all__ = ["accept", "hand_out_the_rest", "reject"]


def accept(
    spool: Spool,
    place: Place,
    outcome: Outcome,
    out: str,
    *,
    now: datetime,
    settings: Storage,
    limits: Limits | None = None,
    duplicate_of: str | None = None,
    hooks: Sequence[Hook] = (),
) -> Place:
    """Check the outcome of a stage, make it durable, and move the uploaded file on.

    `duplicate_of` is the id of an uploaded file with the same content, if there is one.

    Raises
    ------
    IngestError
        The output is not what this stage may make; nothing was moved.
    OSError
        A fault of the machine; the step can be repeated.
    """
    changed = _checked(place, outcome, duplicate_of)
    if place.status is Status.EXTRACTING_DATA:
        most_files = (limits or Limits()).archive_max_entries
        changed = _hand_out(spool, place, changed, out, settings, most_files)
    else:
        changed = _keep_output(spool, place, changed, out, settings)
    if place.status is Status.DETECTING_FORMAT:
        changed = _name_source(place.path, changed)
    attempts = 0 if outcome.status.is_final else 1
    return enter(spool, place, changed, outcome.status, now=now, attempts=attempts, hooks=hooks)


def hand_out_the_rest(
    spool: Spool,
    place: Place,
    *,
    now: datetime,
    settings: Storage,
    limits: Limits,
    hooks: Sequence[Hook] = (),
) -> Place:
    """Publish the remaining members of an archive, after a crash between them."""
    most_files = limits.archive_max_entries
    changed = _hand_out(spool, place, place.manifest, "", settings, most_files)
    return enter(spool, place, changed, Status.EXTRACTED, now=now, attempts=0, hooks=hooks)


def reject(
    spool: Spool,
    place: Place,
    outcome: Outcome,
    first: str,
    *,
    now: datetime,
    hooks: Sequence[Hook] = (),
) -> Place:
    """End as ERROR_FORMAT `duplicate`, and keep everything that was detected: `first` has the same content."""
    changed = _name_source(place.path, _checked(place, outcome, first))
    wrong = FormatError("duplicate", f"the same content is there already, as {first}")
    known = Place(status=place.status, path=place.path, manifest=changed)
    return fail(spool, known, wrong, now=now, hooks=hooks)


def _checked(place: Place, outcome: Outcome, duplicate_of: str | None) -> Manifest:
    """The manifest as a stage wants it; `answers` has already checked the answer by itself."""
    if outcome.status not in FOLLOWERS[place.status] or outcome.status.is_error:
        raise refused(place.status, f"{outcome.status.name} cannot follow {place.status.name}")
    changed = cast("Manifest", {**place.manifest, **outcome.changes})
    if duplicate_of is not None or place.status is Status.DETECTING_FORMAT:
        changed["duplicate_of"] = duplicate_of
    if wrong := schema.problem(changed):
        raise refused(place.status, wrong)
    return changed


def _keep_output(
    spool: Spool, place: Place, changed: Manifest, out: str, settings: Storage
) -> Manifest:
    """Make ``out.<attempt>`` the ``derived`` of the uploaded file, if the stage names anything in it.

    The accepted output of an earlier stage is checked again, because its decoder process could still change it.
    """
    made, derived = place.path / out, place.path / "derived"
    names_any = any(row["path"].startswith("derived/") for row in changed["files"])
    if derived.exists():
        made_since = [
            row for row in changed["files"] if row["path"] not in _paths(place.manifest["files"])
        ]
        if made_since:
            raise refused(place.status, "there is a derived pyramid already")
        made_check = derived
    else:
        made_check = made
    if names_any:
        check_derived(place.status, made_check, changed["files"], settings, discard=spool.discard)
    if names_any and made_check is made:
        # The bytes of a published pyramid must be on disk: a power cut would leave zeros under its name
        # (test_power.py fails without any of these).
        durable.fsync_tree(made)
        reached("output.synced")
        # The manifest that names it is written into the same directory, and synced with it.
        durable.rename(made, derived)
        reached("output.accepted")
    for path in _paths(changed["files"]):
        if path.startswith("source/") and not (place.path / path).is_file():
            raise refused(place.status, f"there is no {path!r}")
    return changed


def _paths(files: list[FileEntry]) -> set[str]:
    return {row["path"] for row in files}


def _name_source(path: Path, changed: Manifest) -> Manifest:
    """Give a single source file the extension of its format."""
    rows = [file for file in changed["files"] if file["role"] == "source"]
    if len(rows) != 1 or changed["format"] is None:
        return changed
    extension = formats.by_id(changed["format"]["id"]).extension
    if rows[0]["path"].count("/") > 1:
        return changed
    named = f"source/{_slug(changed)}.{extension}"
    if rows[0]["path"] != named:
        durable.rename(path / rows[0]["path"], path / named)
        reached("source.named")
        # In storage the manifest uses this name, and nothing looks for it under another one.
        durable.fsync_directory(path / "source")
    files = [
        FileEntry(**{**file, "path": named}) if file is rows[0] else file
        for file in changed["files"]
    ]
    return manifest.evolve(changed, files=files)


def _slug(changed: Manifest) -> str:
    return changed["id"].split("-", 3)[3]


def _hand_out(
    spool: Spool, place: Place, changed: Manifest, out: str, settings: Storage, most_files: int
) -> Manifest:
    """Publish the members of an archive, each once: those still in ``out.<n>`` are not published yet."""
    made = place.path / out / "children"
    if place.manifest["phase"] != "publishing":
        for child in changed["children"]:
            check_child(
                place.status, place.manifest, child, made / child, settings, most_files=most_files
            )
            if spool.taken(UploadedFileId(child), place.manifest["user"]):
                raise refused(place.status, f"there is an uploaded file {child} already")
        # Once the manifest says `publishing`, nothing is unpacked again.
        for child in changed["children"]:
            durable.fsync_tree(made / child)
        durable.fsync_directory(made)
        durable.fsync_directory(made.parent)
        manifest.write(place.path, manifest.evolve(changed, phase="publishing"))
        reached("children.announced")
    for left in out_directories(place.path):
        for child in changed["children"]:
            if (left / "children" / child).is_dir():
                spool.move(left / "children" / child, Status.UPLOADED, durably=False)
                reached("child.published")
    # All of them at once, before the folder that held them is removed.
    durable.fsync_directory(spool.stage(Status.UPLOADED))
    if not place.manifest["format"]:
        raise refused(place.status, "an archive without a format")
    return manifest.evolve(changed, phase=None)
