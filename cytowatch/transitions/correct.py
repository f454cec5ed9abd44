"""Tidying up after a crash or a fault: the manifest is corrected by the directory, unaccepted output is removed."""

from __future__ import annotations

import os
import shutil
import stat
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from cytowatch import durable
from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry, Manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place, is_linked
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool

__all__ = [
    "clear",
    "corrected",
    "out_directories",
    "rebuilt",
    "tidy",
    "without_output",
    "without_temporaries",
]


def out_directories(path: Path) -> list[Path]:
    """The ``out.<attempt>`` in an ``<id>/``."""
    return [path / name for name in sorted(os.listdir(path)) if name.startswith("out.")]


def corrected(found: Manifest, status: Status, *, now: datetime) -> Manifest:
    """The manifest `found`, corrected for the directory of `status`: the directory is the truth.

    Anything a stage wrote down that never took effect is undone; the step is repeated.
    """
    keeps_output = status is Status.DEPLOYING and found["conversion"] is not None
    changes: dict[str, Any] = {}
    if not status.is_error and not keeps_output:
        changes |= {"images": [], "conversion": None, "files": without_output(found["files"])}
    if not status.is_error:
        changes["error"] = None
    if status is Status.EXTRACTING_DATA and found["status"] == Status.EXTRACTED.name:
        # All its members are already handed out; unpacking again would make them twice.
        changes["phase"] = "publishing"
    if found["status"] != status.name:
        history = list(found["history"])
        while history and history[-1]["status"] != status.name:
            history.pop()
        if history:
            history[-1] = {**history[-1], "seconds": None}
            changes |= {
                "history": history,
                "status": status.name,
                "status_code": status.code,
                "attempts": history[-1]["attempt"],
            }
        else:
            return manifest.at_status(manifest.evolve(found, **changes), status, now=now)
    return manifest.evolve(found, **changes)


def tidy(spool: Spool, place: Place, *, now: datetime) -> Place:
    """Continue an uploaded file where a crash, or a fault of the machine, left it.

    The manifest is corrected by the directory, output that was never accepted is removed, and a
    source that was already renamed is found again. Doing it twice changes nothing.
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
    """Remove the unaccepted output of an attempt, and the disk space that it holds."""
    if place.manifest["phase"] != "publishing" and not is_linked(place):
        for leftover in out_directories(place.path):
            spool.discard(leftover)


def without_temporaries(path: Path) -> None:
    """Remove a half-written manifest that a crash left, and the marks of a cluster."""
    for name in os.listdir(path):
        if name.startswith((f".{manifest.FILE_NAME}.", "begun.", "progress.", ".progress.")):
            (path / name).unlink(missing_ok=True)


def _found_again(path: Path, right: Manifest) -> Manifest:
    """The name that a single source now has, after a kill between its rename and the manifest."""
    rows = [file for file in right["files"] if file["role"] == "source"]
    sidecars = {file["path"] for file in right["files"] if file["role"] == "sidecar"}
    there = [name for name in os.listdir(path / "source") if f"source/{name}" not in sidecars]
    if len(rows) != 1 or len(there) != 1 or rows[0]["path"] == f"source/{there[0]}":
        return right
    # A file in a folder of its own belongs to a set, and is never renamed; the folder is not the file.
    if os.path.dirname(rows[0]["path"]) != "source" or not _is_file(path / "source" / there[0]):
        return right
    found = {**rows[0], "path": f"source/{there[0]}"}
    files = [cast("FileEntry", found) if file is rows[0] else file for file in right["files"]]
    return manifest.evolve(right, files=files)


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def without_output(files: list[FileEntry]) -> list[FileEntry]:
    return [file for file in files if file["role"] in {"source", "sidecar"}]


def rebuilt(path: Path, id_: UploadedFileId, damaged: str, *, now: datetime) -> Manifest:
    """A new manifest for an ``<id>/`` whose own can no longer be read; the old one is kept beside it."""
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
    return manifest.evolve(made, warnings=[f"the manifest was damaged: {damaged}"])
