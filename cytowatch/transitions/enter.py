"""Moving an uploaded file on: what a stage returned is checked, made durable, and then renamed.

Everything that changes a stage directory is here, in the order that a crash forces: the accepted
output becomes ``derived``, the manifest is written where it is, one rename is the new status.
A crash between the last two leaves a manifest that says too much; `corrected` takes that back.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from cytowatch import aside, durable, formats, hooks, outside
from cytowatch.config.keys import Limits, Storage
from cytowatch.decoder import recorded
from cytowatch.decoder.answers import refused
from cytowatch.decoder.made import check_child, check_derived
from cytowatch.durable.failpoints import reached
from cytowatch.formats import directory
from cytowatch.model import Outcome
from cytowatch.record import manifest, names
from cytowatch.record.entries import ErrorEntry, FileEntry, Manifest
from cytowatch.record.errors import FormatError, IngestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import ERROR_OF, FOLLOWERS, Status
from cytowatch.transitions import notes
from cytowatch.tree.spool import Spool

__all__ = [
    "Place",
    "accept",
    "attempt",
    "begin",
    "clear",
    "corrected",
    "extracted",
    "fail",
    "is_folder",
    "is_linked",
    "lighten",
    "lighten_the_rest",
    "link",
    "out_directories",
    "parted",
    "plan_to_lighten",
    "rebuilt",
    "reject",
    "tidy",
    "withdraw",
    "without_temporaries",
]

_LIGHTEN = ".lighten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an uploaded file is, in which status, and what its manifest says there."""

    status: Status
    path: Path
    manifest: Manifest


def out_directories(path: Path) -> list[Path]:
    """The ``out.<attempt>`` in an ``<id>/``."""
    return [path / name for name in sorted(os.listdir(path)) if name.startswith("out.")]


def begin(spool: Spool, place: Place, status: Status, *, now: datetime) -> Place:
    """Enter the working `status` from UPLOADED; one that a power cut takes back is begun again."""
    return _enter(spool, place, place.manifest, status, now=now, attempts=1, durably=False)


def attempt(place: Place) -> Place:
    """Count one more attempt at the stage, on disk before it begins."""
    counted = cast("Manifest", {**place.manifest, "attempts": place.manifest["attempts"] + 1})
    manifest.write(place.path, counted)
    reached("attempt.counted")
    return Place(status=place.status, path=place.path, manifest=counted)


def withdraw(place: Place) -> None:
    """Take back the attempt that was counted: it was not the file's fault that it ended."""
    counted = place.manifest["attempts"]
    manifest.write(
        place.path, cast("Manifest", {**place.manifest, "attempts": max(0, counted - 1)})
    )


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
) -> Place:
    """Check what a stage returned, make it durable, and move the uploaded file on.

    `duplicate_of` is the id of an uploaded file with the same content, if there is one.

    Raises
    ------
    IngestError
        The output is not what a stage may make; nothing was moved.
    OSError
        A fault of the machine; the step can be done again.
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
    return _enter(spool, place, changed, outcome.status, now=now, attempts=attempts)


def reject(spool: Spool, place: Place, outcome: Outcome, first: str, *, now: datetime) -> Place:
    """End ERROR_FORMAT `duplicate`, with all that was detected: `first` has the same content."""
    changed = _name_source(place.path, _checked(place, outcome, first))
    wrong = FormatError("duplicate", f"the same content is there already, as {first}")
    known = Place(status=place.status, path=place.path, manifest=changed)
    return fail(spool, known, wrong, now=now)


def _checked(place: Place, outcome: Outcome, duplicate_of: str | None) -> Manifest:
    """The manifest as a stage wants it, whose answer was checked by itself in `answers`."""
    if outcome.status not in FOLLOWERS[place.status] or outcome.status.is_error:
        raise refused(place.status, f"{outcome.status.name} cannot follow {place.status.name}")
    changed = cast("Manifest", {**place.manifest, **outcome.changes})
    if duplicate_of is not None or place.status is Status.DETECTING_FORMAT:
        changed["duplicate_of"] = duplicate_of
    if wrong := manifest.problems(changed):
        raise refused(place.status, outside.text(wrong[0], most=500))
    return changed


def is_linked(place: Place) -> bool:
    """Whether it has begun to be shown by links to another one of the same content."""
    source = place.path / "source"
    return place.manifest["duplicate_of"] is not None and (
        source.is_symlink() or not source.is_dir()
    )


def parted(place: Place) -> Place:
    """`place`, which is no duplicate after all: from now on it goes its own way."""
    changed = cast("Manifest", {**place.manifest, "duplicate_of": None})
    manifest.write(place.path, changed)
    return Place(status=place.status, path=place.path, manifest=changed)


def link(spool: Spool, place: Place, first: Place, *, now: datetime) -> Place:
    """Publish it as relative links to `first`, which is in the storage of the same user.

    Its own copy of the same bytes goes. Doing it twice changes nothing.
    """
    first_id = first.path.name
    graves = []
    for name in ("source", "derived"):
        own = place.path / name
        if own.is_symlink() or not (first.path / name).is_dir():
            continue
        if own.exists():
            graves.append(spool.bury(own))
        own.symlink_to(Path("..", first_id, name))
        reached("duplicate.linked")
    # Before its bytes go, or a power cut might bring back a source without them.
    durable.fsync_directory(place.path)
    for grave in graves:
        spool.discard(grave)
    shown = ("images", "conversion", "verification", "format", "sha256")
    same = {key: cast("dict[str, Any]", first.manifest)[key] for key in shown}
    said = f"the same content as {first_id}: linked"
    changed = cast(
        "Manifest",
        {
            **place.manifest,
            **same,
            "duplicate_of": first_id,
            "files": first.manifest["files"],
            "warnings": list(dict.fromkeys([*place.manifest["warnings"], said])),
        },
    )
    return _enter(spool, place, changed, first.status, now=now, attempts=0)


def is_folder(found: Manifest) -> bool:
    """Whether it stands for a dropped folder, which no stage treats."""
    return found["format"] is not None and found["format"]["id"] == directory.FORMAT.id


def extracted(spool: Spool, place: Place, changed: Manifest, *, now: datetime) -> Place:
    """Publish the uploaded file of a dropped folder, all of whose images were claimed."""
    return _enter(spool, place, changed, Status.EXTRACTED, now=now, attempts=0)


def _note_of(spool: Spool, id_: str) -> Path:
    return spool.requests / f"{id_}{_LIGHTEN}"


def plan_to_lighten(spool: Spool, place: Place) -> None:
    """Note, before it is published, that its source is to be given up afterwards."""
    # Without it a power cut would leave a source that nobody gives up any more.
    durable.write_note(_note_of(spool, place.manifest["id"]), place.manifest["user"])


def lighten(spool: Spool, place: Place) -> Place:
    """Give up the source of a published upload, which the configuration does not keep.

    The manifest stops naming it first: a crash between the two leaves a file too many, never one
    too few, and the note of `plan_to_lighten` for `lighten_the_rest`. Doing it twice changes nothing.
    """
    files = [row for row in place.manifest["files"] if row["role"] != "source"]
    changed = cast("Manifest", {**place.manifest, "files": files})
    if changed != place.manifest:
        manifest.write(place.path, changed)
    reached("source.given_up")
    kept = {row["path"] for row in files}
    for folder, _, found in durable.walk(place.path / "source"):
        for name in found:
            path = Path(folder, name)
            if str(path.relative_to(place.path)) not in kept:
                path.unlink()
        # Before the note goes, which is what remembers that something may be left here.
        durable.fsync_directory(Path(folder))
    spool.discard(_note_of(spool, place.manifest["id"]))
    return Place(status=place.status, path=place.path, manifest=changed)


def lighten_the_rest(spool: Spool) -> Iterator[str]:
    """Give up the sources that a crash or a fault has left, by the notes of `plan_to_lighten`.

    Gives the ids of those whose manifest may have changed. Nothing may be in work meanwhile.
    """
    for note, id_ in notes.there(spool, _LIGHTEN):
        with aside.fence("request", note.name) as fenced:
            path = notes.place_of(spool, note, id_)
            if path is not None and not (path / "source").is_symlink():
                found = manifest.read(path)
                lighten(spool, Place(status=manifest.status_of(found), path=path, manifest=found))
            else:
                # It ended in an error, was removed, or is taken up again and noted anew at its end.
                spool.discard(note)
        if not fenced.failed and path is not None:
            yield id_


def fail(spool: Spool, place: Place, error: IngestError, *, now: datetime) -> Place:
    """End in the error of the stage: the original stays, everything half-made goes."""
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
    changed = cast(
        "Manifest",
        {
            **place.manifest,
            "images": [],
            "conversion": None,
            "files": _without_output(place.manifest["files"]),
            "phase": None,
        },
    )
    if error.reason == "changed":
        # Its hash is of bytes that nobody has any more.
        changed["sha256"] = None
        changed["files"] = [cast("FileEntry", {**row, "sha256": None}) for row in changed["files"]]
    return _enter(spool, place, changed, status, now=now, attempts=0, error=entry)


def corrected(found: Manifest, status: Status, *, now: datetime) -> Manifest:
    """`found` as it must read in the directory of `status`: the directory is the truth.

    What a stage wrote down that never took effect is taken back, the step is done again.
    """
    keeps_output = status is Status.DEPLOYING and found["conversion"] is not None
    changed = dict(found)
    if not status.is_error and not keeps_output:
        changed |= {"images": [], "conversion": None, "files": _without_output(found["files"])}
    if not status.is_error:
        changed["error"] = None
    if status is Status.EXTRACTING_DATA and found["status"] == Status.EXTRACTED.name:
        # All its members were handed out already; unpacking again would make them twice.
        changed["phase"] = "publishing"
    if found["status"] != status.name:
        history = list(found["history"])
        while history and history[-1]["status"] != status.name:
            history.pop()
        if history:
            history[-1] = {**history[-1], "seconds": None}
            changed |= {
                "history": history,
                "status": status.name,
                "status_code": status.code,
                "attempts": history[-1]["attempt"],
            }
        else:
            return manifest.at_status(cast("Manifest", changed), status, now=now)
    return cast("Manifest", changed)


def tidy(spool: Spool, place: Place, *, now: datetime) -> Place:
    """Take up an uploaded file where a crash, or a fault of the machine, left it.

    The manifest is made to agree with the directory, output that was never accepted goes, and a
    source that had been renamed already is found again. Doing it twice changes nothing.
    """
    if is_linked(place):
        return place
    right = corrected(place.manifest, place.status, now=now)
    if right["phase"] != "publishing":
        kept = "derived" if right["conversion"] is not None else None
        clear(spool, place)
        if (leftover := place.path / "derived").name != kept and leftover.exists():
            spool.discard(leftover)
    without_temporaries(place.path)
    right = _found_again(place.path, right)
    if right != place.manifest:
        manifest.write(place.path, right)
    return Place(status=place.status, path=place.path, manifest=right)


def clear(spool: Spool, place: Place) -> None:
    """Let go what an attempt wrote that was not accepted, and the room that it takes."""
    if place.manifest["phase"] != "publishing" and not is_linked(place):
        for leftover in out_directories(place.path):
            spool.discard(leftover)


def without_temporaries(path: Path) -> None:
    """Remove what a crash left of a manifest that was being written, and the marks of a cluster."""
    for name in os.listdir(path):
        if name.startswith((f".{manifest.FILE_NAME}.", "begun.", "progress.", ".progress.")):
            (path / name).unlink(missing_ok=True)


def _found_again(path: Path, right: Manifest) -> Manifest:
    """A kill between naming a single source and its manifest: the name that it has by now."""
    rows = [file for file in right["files"] if file["role"] == "source"]
    sidecars = {file["path"] for file in right["files"] if file["role"] == "sidecar"}
    there = [name for name in os.listdir(path / "source") if f"source/{name}" not in sidecars]
    if len(rows) != 1 or len(there) != 1 or rows[0]["path"] == f"source/{there[0]}":
        return right
    # What lies in a folder of its own is of a set, and never named anew; the folder is not the file.
    if os.path.dirname(rows[0]["path"]) != "source" or not _is_file(path / "source" / there[0]):
        return right
    found = {**rows[0], "path": f"source/{there[0]}"}
    files = [cast("FileEntry", found) if file is rows[0] else file for file in right["files"]]
    return cast("Manifest", {**right, "files": files})


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def _enter(
    spool: Spool,
    place: Place,
    changed: Manifest,
    status: Status,
    *,
    now: datetime,
    attempts: int,
    error: ErrorEntry | None = None,
    durably: bool = True,
) -> Place:
    if status.is_final:
        spelled = dict.fromkeys(spool.spelled(project) for project in changed["projects"])
        changed = cast("Manifest", {**changed, "projects": list(spelled)})
    written = manifest.at_status(changed, status, now=now, attempts=attempts, error=error)
    if status.is_final:
        for leftover in out_directories(place.path):
            spool.discard(leftover)
        recorded.forget(place.path)
        without_temporaries(place.path)
    manifest.write(place.path, written, durably=durably)
    if status.is_final:
        hooks.note(spool, spool.hooks, written, status, now=now)
        reached("hook.noted")
    if status in (Status.DEPLOYED, Status.CONVERTED):
        for project in written["projects"]:
            shown = names.file_name(written["name"])
            spool.link(project, shown, written["user"], UploadedFileId(written["id"]))
            reached("project.linked")
    if status.is_success:
        notes.note_hash(spool, written)
        path = spool.publish(place.path, written["user"])
    else:
        # From one working status to the next a power cut may take the rename back: the manifest is
        # then ahead of the directory, as after a kill between the two, and the step is done again
        # (test_disk.py::test_power_that_is_cut). That saves two fsyncs a step.
        path = spool.move(place.path, status, durably=status.is_final)
    return Place(status=status, path=path, manifest=written)


def _keep_output(
    spool: Spool, place: Place, changed: Manifest, out: str, settings: Storage
) -> Manifest:
    """Make ``out.<attempt>`` the ``derived`` of the uploaded file, if the stage names anything in it.

    What was accepted of an earlier stage is looked at again: its decoder process could still change it.
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
        # A pyramid that is published must have its bytes: a power cut would leave zeros under its name
        # (test_power.py fails without any of these).
        durable.fsync_tree(made)
        reached("output.synced")
        # The manifest, which names it, is written into the same directory, and synced with it.
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
        # The manifest will name it so in storage, where nobody looks for it under another name.
        durable.fsync_directory(path / "source")
    files = [
        FileEntry(**{**file, "path": named}) if file is rows[0] else file
        for file in changed["files"]
    ]
    return cast("Manifest", {**changed, "files": files})


def _slug(changed: Manifest) -> str:
    return changed["id"].split("-", 3)[3]


def _hand_out(
    spool: Spool, place: Place, changed: Manifest, out: str, settings: Storage, most_files: int
) -> Manifest:
    """Publish the members of an archive, each once: what is still in ``out.<n>`` was not yet."""
    made = place.path / out / "children"
    if place.manifest["phase"] != "publishing":
        for child in changed["children"]:
            check_child(
                place.status, place.manifest, child, made / child, settings, most_files=most_files
            )
            if spool.taken(UploadedFileId(child), place.manifest["user"]):
                raise refused(place.status, f"there is an uploaded file {child} already")
        # Once `publishing` is said, nothing of it is unpacked again.
        for child in changed["children"]:
            durable.fsync_tree(made / child)
        durable.fsync_directory(made)
        durable.fsync_directory(made.parent)
        publishing = {**place.manifest, **changed, "phase": "publishing"}
        manifest.write(place.path, cast("Manifest", publishing))
        reached("children.announced")
    for left in out_directories(place.path):
        for child in changed["children"]:
            if (left / "children" / child).is_dir():
                spool.move(left / "children" / child, Status.UPLOADED, durably=False)
                reached("child.published")
    # All of them at once, before the folder that they were in goes.
    durable.fsync_directory(spool.stage(Status.UPLOADED))
    if not place.manifest["format"]:
        raise refused(place.status, "an archive without a format")
    return cast("Manifest", {**changed, "phase": None})


def _without_output(files: list[FileEntry]) -> list[FileEntry]:
    return [file for file in files if file["role"] in {"source", "sidecar"}]


def rebuilt(path: Path, id_: UploadedFileId, damaged: str, *, now: datetime) -> Manifest:
    """A manifest for an ``<id>/`` whose own cannot be read any more; the old one is kept beside it."""
    broken = path / manifest.FILE_NAME
    if os.path.lexists(broken):
        shutil.move(broken, path / f"{manifest.FILE_NAME}.damaged")
    files = [
        FileEntry(
            role="source",
            path=os.path.relpath(os.path.join(folder, name), path),
            size_bytes=os.stat(os.path.join(folder, name)).st_size,
            sha256=None,
            status=Status.UPLOADED.name,
        )
        for folder, _, found in durable.walk(path / "source")
        for name in sorted(found)
    ]
    made = manifest.new(
        id=id_, user="unknown", name=id_, drop_path=id_, files=files, now=now, software={}
    )
    return cast("Manifest", {**made, "warnings": [f"the manifest was damaged: {damaged}"]})
