"""A case: what is there, what is done, and what must hold; and the trees that cases begin with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from cytowatch.config.keys import Hook, Storage
from cytowatch.model import Outcome
from cytowatch.record import entries, manifest
from cytowatch.record.entries import Manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.transitions import accept as accept_module
from cytowatch.transitions import correct
from cytowatch.tree.spool import Spool

NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)

ID = UploadedFileId("20261123-141502-1000-a")

OTHER = UploadedFileId("20261123-141502-2000-b")

LATER = NOW + timedelta(days=1)

SLIDE = b"\xff\xd8 a slide \xff\xd9" * 40

PYRAMID = b"II*\0 a pyramid" * 40

HOOK = Hook(name="lab", on=("DEPLOYED", "CONVERTED", "ERROR_CONVERSION"), command=("true",))


@dataclass(frozen=True)
class Case:
    """`holds` tells what is wrong of a tree; it is given whether all had been done."""

    before: Callable[[Spool], object]
    do: Callable[[Spool], object]
    holds: Callable[[Spool, bool], str | None]
    #: What a scanner wrote: its bytes are not there at the end unless they were synced.
    dirty: bytes = b""
    #: Who syncs here for the sake of what another case shows.
    elsewhere: tuple[str, ...] = ()


CASES: dict[str, Case] = {}


def case(function: Callable[[], Case]) -> Callable[[], Case]:
    CASES[function.__name__.replace("_", " ")] = function()
    return function


def make(
    path: Path,
    status: Status,
    *,
    source: str = "a.jpg",
    derived: bool = False,
    **more: Any,
) -> Manifest:
    """An ``<id>/`` at `path` in `status`."""
    (path / "source").mkdir(parents=True)
    files = []
    for role, name, data in [("source", source, SLIDE), ("pyramid", "a.tif", PYRAMID)][
        : 1 + derived
    ]:
        folder = "source" if role == "source" else "derived"
        (path / folder).mkdir(exist_ok=True)
        (path / folder / name).write_bytes(data)
        files.append(
            {"role": role, "path": f"{folder}/{name}", "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "status": "UPLOADED"}
        )  # fmt: skip
    new = manifest.new(
        id=path.name, user="ann", name=source, drop_path=f"ann/{source}", files=cast("Any", files),
        now=NOW, software={},
    )  # fmt: skip
    form = {"id": "jpeg", "name": "JPEG", "native": False, "evidence": "", "openslide_vendor": None}
    found = manifest.at_status(
        cast("Manifest", {**new, "format": form}), status, now=NOW, attempts=0 if status.is_final else 1
    )  # fmt: skip
    if status.is_error:
        found["error"] = {
            "reason": "corrupt",
            "detail": "",
            "stage": "CONVERTING",
            "retryable": True,
        }
    found = cast("Manifest", {**found, **more})
    (path / manifest.FILE_NAME).write_text(json.dumps(found))
    return found


def made_member(path: Path, parent: Manifest) -> None:
    """The member of an archive as the stage that extracts makes it."""
    (path / "source").mkdir(parents=True)
    (path / "source" / "a.jpg").write_bytes(SLIDE)
    row = entries.FileEntry(
        role="source", path="source/a.jpg", size_bytes=len(SLIDE), sha256=None, status="UPLOADED"
    )
    found = manifest.new(
        id=path.name, user="ann", name="a.jpg", drop_path=f"{parent['drop_path']}/a.jpg",
        files=[row], now=NOW, software=parent["software"], parent=parent,
    )  # fmt: skip
    (path / manifest.FILE_NAME).write_text(json.dumps(found))


def staged(spool: Spool, status: Status, id_: UploadedFileId = ID, **more: Any) -> Place:
    path = spool.stage(status) / id_
    return Place(status=status, path=path, manifest=make(path, status, **more))


def place_in(spool: Spool, id_: UploadedFileId = ID) -> Place | str:
    """Where the one copy of an uploaded file is, made to agree with its directory; or what is wrong."""
    found = [(status, spool.stage(status) / id_) for status in STAGE_STATUSES]
    found = [one for one in found if one[1].is_dir()]
    found += [
        (manifest.status_of(manifest.read(path)), path) for path in spool.storage.glob(f"*/{id_}")
    ]
    if len(found) != 1 or (
        found[0][1].is_relative_to(spool.storage) and not found[0][0].is_success
    ):
        return f"it is in {found}"
    [(status, path)] = found
    place = Place(status=status, path=path, manifest=manifest.read(path))
    if not status.is_final:
        return correct.tidy(spool, place, now=NOW)
    return (
        place if place.manifest["status"] == status.name else f"it says {place.manifest['status']}"
    )


def renumbered(spool: Spool) -> None:
    """The journals of claims as they would be, had the files of this tree the numbers that they had."""
    for journal in spool.tmp.glob("*/claim.json"):
        if not (data := journal.read_bytes()):
            continue
        known = json.loads(data)
        for member in known["members"]:
            # Of the two places it is in one at the most.
            for path in (journal.parent / member["to"], spool.inbox / member["from"]):
                if path.exists():
                    member["inode"] = path.stat().st_ino
        journal.write_text(json.dumps(known))


def torn(place: Place) -> str | None:
    """What its manifest names and is not whole."""
    content = {"source": SLIDE, "pyramid": PYRAMID}
    for row in place.manifest["files"]:
        path = place.path / row["path"]
        if not path.is_file() or path.read_bytes() != content[row["role"]]:
            return f"{path} is not whole"
    return None


def accept(spool: Spool, status: Status, *, hooks: tuple[Hook, ...] = (), **more: Any) -> Place:
    """Move it on to `status`, out of wherever it is."""
    found = spool.find(ID)
    assert found is not None
    place = Place(status=found[0], path=found[1], manifest=manifest.read(found[1]))
    return accept_module.accept(
        spool, place, Outcome(status=status, **more), "out.1", now=NOW, settings=Storage(), hooks=hooks
    )  # fmt: skip


def published(
    also: Callable[[Spool, Place], str | None],
) -> Callable[[Spool, bool], str | None]:
    """It is whole in one place; and `also`, if that is its storage."""

    def holds(spool: Spool, end: bool) -> str | None:
        place = place_in(spool)
        if isinstance(place, str):
            return place
        if end and not place.status.is_final:
            return "it was said to be at its end"
        return torn(place) or (also(spool, place) if place.status.is_final else None)

    return holds
