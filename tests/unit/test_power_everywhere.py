"""Power that is cut in any other step that makes something durable: archives, folders, links, notes, requests of an admin.

Each case says what is there, what is done, and what must hold of every state that a cut may leave, once the
daemon's own recovery has been at it. Then each fsync is left out in turn, as for a claim (`test_power`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

import cytowatch
from cytowatch import hooks
from cytowatch.admin import retry
from cytowatch.cli import export
from cytowatch.config import Config
from cytowatch.config.keys import Hook, Storage
from cytowatch.engine.hashing import Hasher
from cytowatch.hooks.pending import bury, place_of
from cytowatch.inbox import claim
from cytowatch.inbox import scan as inboxes
from cytowatch.inbox.claim import recovery, take
from cytowatch.inbox.folders import Folders
from cytowatch.model import Outcome
from cytowatch.panel import sessions, tokens
from cytowatch.panel.uploads import publish
from cytowatch.panel.uploads.rules import Announced
from cytowatch.panel.uploads.store import Store
from cytowatch.record import entries, manifest
from cytowatch.record.drop import Waiting
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import ConversionError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.transitions import accept as accept_module
from cytowatch.transitions import correct, enter, lighten, recover
from cytowatch.transitions import link as link_module
from cytowatch.transitions.moves import Transitions
from cytowatch.tree import pauses
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool
from tests.lab.power import Disk, losses, recorded
from tests.unit.test_power import DROPS, claimed
from tests.unit.test_power import published as on_the_way

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


# What is in the trees


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


# The cases


@case
def an_archive() -> Case:
    children = (OTHER,)

    def before(spool: Spool) -> None:
        staged(spool, Status.EXTRACTING_DATA)
        for child in children:
            # What the child made there: nothing of it is durable yet.
            made_member(spool.root.parent / "made" / child, manifest.read(spool.find(ID)[1]))  # type: ignore[index]

    def do(spool: Spool) -> None:
        out = spool.stage(Status.EXTRACTING_DATA) / ID / "out.1"
        shutil.copytree(spool.root.parent / "made", out / "children")
        accept(spool, Status.EXTRACTED, changes={"children": list(children), "skipped": []})

    def holds(spool: Spool, end: bool) -> str | None:
        place = place_in(spool)
        if isinstance(place, str):
            return place
        out = set(spool.in_status(Status.UPLOADED))
        if not place.status.is_final and place.manifest["phase"] is None:
            return f"{out} would be unpacked twice" if out else torn(place)
        if end and not place.status.is_final:
            return "it was said to be at its end"
        if not place.status.is_final:
            place = accept(spool, Status.EXTRACTED)
        if place.manifest["children"] != list(children):
            return f"it has {place.manifest['children']}"
        for child in children:
            there = place_in(spool, child)
            if isinstance(there, str) or torn(there):
                return f"{child}: {there}"
        return torn(place)

    return Case(before, do, holds)


@case
def a_folder() -> Case:
    def folders(spool: Spool) -> Folders:
        class Nobody:
            def __getattr__(self, _name: str) -> Callable[..., None]:
                return lambda *_: None

        index = Index(spool, memory=True)
        index.reconcile()
        moves = Transitions(
            spool=spool, index=index, config=Config(), observer=cast("Any", Nobody()),
            now=lambda: NOW, monotonic=time.monotonic,
        )  # fmt: skip
        return Folders(moves, make_id=lambda *_: ID, software={}, settings=Storage())

    def before(spool: Spool) -> None:
        claim.prepare_process()
        (spool.inbox / "ann" / "case").mkdir(parents=True)
        (spool.inbox / "ann" / "case" / "b.jpg").write_bytes(SLIDE)

    def do(spool: Spool) -> None:
        guard = folders(spool)
        device = os.stat(spool.root).st_dev
        [(drop, _)] = [
            one
            for one in inboxes.scan(spool.inbox, "ann", [], device=device)
            if one[0].name == "b.jpg"
        ]
        member = claim.Member(drop=drop, to="source/b.jpg")
        parcel = claim.Parcel(members=(member,), parent=guard.parent("ann/case", "ann", None))
        child = claim.claim(
            spool, parcel, config=Config(), now=NOW, software={}, overdue=False,
            make_id=lambda *_: OTHER, quiet_for_s=10,
        )  # fmt: skip
        assert child == OTHER
        guard.claimed("ann/case", [OTHER])
        guard.finish("ann/case", [])

    def holds(spool: Spool, end: bool) -> str | None:
        renumbered(spool)
        claim.recover(spool)
        there = place_in(spool, OTHER)
        if isinstance(there, str):
            dropped = [path for path in spool.inbox.rglob("*") if path.is_file()]
            # What a scanner wrote is not synced by anybody before it is claimed.
            return None if len(dropped) == 1 and not end else f"its image is in {dropped}, {there}"
        guard = folders(spool)
        guard.recover()
        place = place_in(spool)
        if isinstance(place, str):
            return f"the folder of an image: {place}"
        if place.manifest["children"] != [OTHER] or (end and not place.status.is_final):
            return f"{place.status}, {place.manifest['children']}"
        return torn(there)

    return Case(before, do, holds, dirty=SLIDE)


@case
def links_to_the_same_content() -> Case:
    def before(spool: Spool) -> None:
        make(spool.storage / "ann" / OTHER, Status.CONVERTED, derived=True)
        staged(spool, Status.DEPLOYING, duplicate_of=OTHER)

    def link(spool: Spool, place: Place) -> Place:
        path = spool.storage / "ann" / OTHER
        first = Place(status=Status.CONVERTED, path=path, manifest=manifest.read(path))
        return link_module.link(spool, place, first, now=NOW)

    def do(spool: Spool) -> None:
        link(spool, cast("Any", place_in(spool)))

    def holds(spool: Spool, end: bool) -> str | None:
        place = place_in(spool)
        if isinstance(place, str):
            return place
        if not place.status.is_final:
            if end:
                return "it was said to be at its end"
            if not correct.is_linked(place):
                return torn(place)
            place = link(spool, place)
        return torn(place)

    return Case(before, do, holds)


def told(spool: Spool, place: Place) -> str | None:
    """What is wrong with the deliveries of its end."""
    list(hooks.drop_untrue(spool))
    noted = [one.status for one in hooks.pending(spool)]
    return None if noted == [place.status.name] else f"{place.status} is reported as {noted}"


@case
def a_hook() -> Case:
    def do(spool: Spool) -> None:
        accept(spool, Status.DEPLOYED, hooks=(HOOK,))

    return Case(lambda spool: staged(spool, Status.DEPLOYING), do, published(told))


@case
def an_error_and_its_hook() -> Case:
    def do(spool: Spool) -> None:
        place = cast("Any", place_in(spool))
        enter.fail(spool, place, ConversionError("corrupt", "it is torn"), now=NOW, hooks=(HOOK,))

    return Case(lambda spool: staged(spool, Status.CONVERTING), do, published(told))


@case
def a_hook_that_nobody_answers() -> Case:
    def before(spool: Spool) -> None:
        found = make(spool.storage / "ann" / ID, Status.DEPLOYED)
        hooks.note(spool, [HOOK], found, Status.DEPLOYED, now=NOW)

    def do(spool: Spool) -> None:
        [one] = hooks.pending(spool)
        bury(spool, one)
        [one] = hooks.dead(spool)
        hooks.revive(spool, one)
        bury(spool, one)

    def holds(spool: Spool, _end: bool) -> str | None:
        list(hooks.drop_untrue(spool))
        known = [*hooks.pending(spool), *hooks.dead(spool)]
        return None if known and all(place_of(spool, one) for one in known) else "it is forgotten"

    return Case(before, do, holds)


@case
def a_project() -> Case:
    def shown(spool: Spool, place: Place) -> str | None:
        links = list(spool.projects.glob("*/*"))
        if [link.resolve() for link in links] != [place.path.resolve()]:
            return f"its project shows {links}"
        return None

    return Case(
        lambda spool: staged(spool, Status.DEPLOYING, projects=["study"]),
        lambda spool: accept(spool, Status.DEPLOYED),
        published(shown),
    )


@case
def a_hash_that_comes_after() -> Case:
    def before(spool: Spool) -> None:
        found = staged(spool, Status.DEPLOYING).manifest
        rows = [{**row, "sha256": None} for row in found["files"]]
        path = spool.stage(Status.DEPLOYING) / ID
        (path / manifest.FILE_NAME).write_text(json.dumps({**found, "files": rows}))

    def to_come(spool: Spool, _place: Place) -> str | None:
        hasher = Hasher(spool, cast("Any", None), None, lambda: None)
        return "nobody will hash it" if hasher.idle() else None

    return Case(before, lambda spool: accept(spool, Status.DEPLOYED), published(to_come))


@case
def a_source_that_is_given_up() -> Case:
    def do(spool: Spool) -> None:
        lighten.plan_to_lighten(spool, cast("Any", place_in(spool)))
        lighten.lighten(spool, accept(spool, Status.CONVERTED))

    def gone(spool: Spool, place: Place) -> str | None:
        list(lighten.lighten_the_rest(spool))
        now = Place(status=place.status, path=place.path, manifest=manifest.read(place.path))
        left = list((place.path / "source").iterdir())
        named = [row["role"] for row in now.manifest["files"]]
        return torn(now) or (
            f"{left} and {named} are left" if left or named != ["pyramid"] else None
        )

    def before(spool: Spool) -> None:
        conversion = {
            "why": "", "reader": "", "compression": "jpeg", "quality": 90, "tile": 256, "seconds": 0,
            "source_bytes": len(SLIDE), "output_bytes": len(PYRAMID),
        }  # fmt: skip
        staged(spool, Status.DEPLOYING, derived=True, conversion=conversion)

    return Case(before, do, published(gone))


@case
def an_error_that_is_tried_again() -> Case:
    def do(spool: Spool) -> None:
        retry.retry(spool, ID, now=LATER)

    def holds(spool: Spool, end: bool) -> str | None:
        # A cut between the two is what `recover` corrects at a start.
        list(recover.recover(spool, now=NOW))
        place = place_in(spool)
        if isinstance(place, str):
            return place
        if end and place.manifest["history"][-1]["at"] != manifest.utc(LATER):
            return f"it was said to be tried again, and is {place.manifest['history']}"
        return torn(place)

    return Case(lambda spool: staged(spool, Status.ERROR_CONVERSION), do, holds)


@case
def an_error_that_is_handed_back() -> Case:
    def before(spool: Spool) -> None:
        (spool.inbox / "ann").mkdir()
        staged(spool, Status.ERROR_CONVERSION)

    def holds(spool: Spool, end: bool) -> str | None:
        back = [
            path
            for path in spool.inbox.rglob("*")
            if path.is_file() and not path.name.endswith(".why.txt")
        ]
        kept = list(spool.stages.glob("*/*/source/*"))
        data = [path.read_bytes() for path in [*back, *kept]]
        if data != [SLIDE] or (end and not back):
            return f"it is in {[str(path) for path in [*back, *kept]]}"
        return None

    return Case(before, lambda spool: retry.hand_back(spool, ID), holds)


@case
def a_token_of_the_panel() -> Case:
    def before(spool: Spool) -> None:
        tokens.add(spool, "one", "ann", days=None, now=NOW)

    def holds(spool: Spool, end: bool) -> str | None:
        known = [one.name for one in tokens.listed(spool)]
        return None if known in (["one", "two"], ["one"][: 0 if end else 1]) else f"{known}"

    def do(spool: Spool) -> None:
        tokens.add(spool, "two", "bob", days=None, now=NOW)

    return Case(before, do, holds)


@case
def the_key_of_the_panel() -> Case:
    """One that is all zeros could be guessed; one that is gone is made again."""

    def holds(spool: Spool, end: bool) -> str | None:
        path = spool.state / "panel.key"
        found = path.read_bytes() if path.is_file() else b"none"
        return None if any(found) else f"its {len(found)} bytes can be guessed"

    return Case(lambda _: None, lambda spool: sessions._key(spool.state / "panel.key"), holds)


@case
def what_is_removed() -> Case:
    def before(spool: Spool) -> None:
        make(spool.storage / "ann" / ID, Status.DEPLOYED)

    def do(spool: Spool) -> None:
        retry.remove(spool, ID, Index(spool, memory=True))

    def holds(spool: Spool, end: bool) -> str | None:
        there = (spool.storage / "ann" / ID).is_dir()
        if there and end:
            return "it has come back"
        return torn(cast("Any", place_in(spool))) if there else None

    return Case(before, do, holds)


@case
def a_second_copy_that_is_set_aside() -> Case:
    def before(spool: Spool) -> None:
        staged(spool, Status.CONVERTING)
        staged(spool, Status.DEPLOYING)

    def holds(spool: Spool, _end: bool) -> str | None:
        list(recover.set_doubles_aside(spool))
        copies = [*spool.stages.glob("*/*/source/*"), *spool.state.glob("aside/*/source/*")]
        if [path.read_bytes() for path in copies] != [SLIDE, SLIDE]:
            return f"there is {copies}"
        return None

    return Case(before, lambda spool: list(recover.set_doubles_aside(spool)), holds)


@case
def a_pause() -> Case:
    def holds(spool: Spool, end: bool) -> str | None:
        held = pauses.read(spool).users
        return (
            None
            if held == {"ann", "ben"} or (not end and held == {"ann"})
            else f"{held} are paused"
        )

    return Case(
        lambda spool: pauses.pause(spool, "ann"), lambda spool: pauses.pause(spool, "ben"), holds
    )


@case
def the_end_of_a_pause() -> Case:
    def holds(spool: Spool, end: bool) -> str | None:
        return "they are paused again" if end and pauses.read(spool) else None

    return Case(
        lambda spool: pauses.pause(spool, "ann"), lambda spool: pauses.resume(spool, None), holds
    )


def claim_begun(spool: Spool, origins: tuple[str, ...]) -> None:
    """What a claim has made durable before it moves anything."""
    place = spool.tmp / ID
    make(place, Status.UPLOADED)
    (place / "source" / "a.jpg").unlink()
    members = []
    for origin in origins:
        path = spool.inbox / origin
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SLIDE)
        found = path.stat()
        members.append(
            {"from": origin, "to": f"source/{path.name}", "device": found.st_dev, "inode": found.st_ino,
             "size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
        )  # fmt: skip
    journal = {"user": "ann", "members": members, "folder": None, "marker": None}
    (place / claim.JOURNAL).write_text(json.dumps(journal))


def killed_and_started(spool: Spool, origins: tuple[str, ...], *, written: bool = False) -> None:
    """The daemon is killed once these were moved; one was written to meanwhile, perhaps."""
    for origin in origins:
        path = spool.tmp / ID / "source" / os.path.basename(origin)
        os.rename(spool.inbox / origin, path)
        if written:
            os.utime(path, ns=(1, 1))
    if (spool.inbox / "ann" / "set").is_dir():
        # As a claim removes it, once all is durable.
        recovery.sync_names(spool.tmp / ID, marked=False)
        os.rmdir(spool.inbox / "ann" / "set")
    told = claim.recover(spool)
    assert told == {ID: "undone" if written or len(origins) < 2 else "finished"}


def recovered(spool: Spool, end: bool) -> str | None:
    """Both are whole somewhere, together, and once."""
    renumbered(spool)
    told = claim.recover(spool)
    dropped = [path for path in spool.inbox.rglob("*") if path.is_file()]
    taken = list(spool.stages.glob("uploaded/*/source/*"))
    names = [sorted(path.name for path in paths) for paths in (dropped, taken)]
    if sorted(names) != [[], ["a.jpg", "a.xml"]]:
        return f"{told}: {dropped} in the inbox, {taken} claimed"
    torn = [str(path) for path in taken if path.read_bytes() != SLIDE]
    return f"{torn} are torn" if torn and end else None


BESIDE = ("ann/a.jpg", "ann/a.xml")
IN_A_SET = ("ann/set/a.jpg", "ann/set/a.xml")


@case
def a_claim_that_is_finished_by_a_start() -> Case:
    return Case(
        lambda spool: claim_begun(spool, BESIDE),
        lambda spool: killed_and_started(spool, BESIDE),
        recovered,
        dirty=SLIDE,
    )


@case
def a_claim_that_is_undone_by_a_start() -> Case:
    return Case(
        lambda spool: claim_begun(spool, BESIDE),
        lambda spool: killed_and_started(spool, BESIDE[:1]),
        recovered,
    )


@case
def a_claim_that_is_undone_by_a_start_when_its_folder_has_gone() -> Case:
    return Case(
        lambda spool: claim_begun(spool, IN_A_SET),
        lambda spool: killed_and_started(spool, IN_A_SET, written=True),
        recovered,
    )


@case
def a_claim_that_somebody_comes_between() -> Case:
    def before(spool: Spool) -> None:
        claim.prepare_process()
        (spool.inbox / "ann").mkdir()
        for origin in BESIDE:
            (spool.inbox / origin).write_bytes(SLIDE)

    def do(spool: Spool) -> None:
        device = os.stat(spool.root).st_dev
        drops = sorted(
            inboxes.scan(spool.inbox, "ann", [], device=device), key=lambda one: one[0].path
        )
        members = [claim.Member(drop=drop, to=f"source/{drop.name}") for drop, _ in drops]
        came = Waiting(why="settling", detail="it changed while it was taken")
        with mock.patch.object(take, "trouble_with", return_value=came):
            told = claim.claim(
                spool, claim.Parcel(members=tuple(members)), config=Config(), now=NOW, software={},
                overdue=False, make_id=lambda *_: ID, quiet_for_s=10,
            )  # fmt: skip
        assert told is not ID and isinstance(told, Waiting)

    # Undone, nothing depends on its journal; it is needed for a claim that goes on (`test_power`).
    return Case(before, do, recovered, elsewhere=("manifest.write",))


@case
def an_export() -> Case:
    def do(spool: Spool) -> None:
        export.export(ID, spool.root / "usb", spool.root)

    def holds(spool: Spool, end: bool) -> str | None:
        copy = spool.root / "usb" / "a.jpg"
        return (
            None if not end or (copy.exists() and copy.read_bytes() == SLIDE) else "there is none"
        )

    return Case(lambda spool: make(spool.storage / "ann" / ID, Status.DEPLOYED), do, holds)


@case
def a_new_tree() -> Case:
    def before(spool: Spool) -> None:
        for path in spool.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def holds(spool: Spool, end: bool) -> str | None:
        if end:
            Spool.open(spool.root)
            missing = [path for path in spool._directories() if not path.is_dir()]
            return f"{missing} are gone" if missing else None
        Spool.create(spool.root)
        return None

    return Case(before, lambda spool: Spool.create(spool.root), holds)


@case
def a_source_that_is_named() -> Case:
    form = {
        "id": "aperio-svs",
        "name": "SVS",
        "native": True,
        "evidence": "",
        "openslide_vendor": "aperio",
    }

    def before(spool: Spool) -> None:
        staged(spool, Status.UPLOADED, source="x", format=None)

    def do(spool: Spool) -> None:
        path = spool.stage(Status.UPLOADED) / ID
        place = Place(status=Status.UPLOADED, path=path, manifest=manifest.read(path))
        enter.begin(spool, place, Status.DETECTING_FORMAT, now=NOW)
        accept(spool, Status.DEPLOYING, changes={"format": form})
        accept(spool, Status.DEPLOYED)

    def holds(spool: Spool, end: bool) -> str | None:
        place = place_in(spool)
        if isinstance(place, Place) and place.manifest["format"] is None:
            early = place.status in (Status.UPLOADED, Status.DETECTING_FORMAT)
            return (
                None
                if early and not end and torn(place) is None
                else f"its format is unknown at {place.status}"
            )
        return published(lambda _spool, _place: None)(spool, end)

    return Case(before, do, holds)


UPLOAD = Announced(path="case/a.jpg", size=len(SLIDE), user="ann", project="Lung")


@case
def a_part_of_an_upload() -> Case:
    """What was acknowledged is there: the client does not send it again."""

    def do(spool: Spool) -> None:
        store = Store(spool.inbox)
        with store.writing(store.create(UPLOAD, "ann")) as descriptor:
            store.write(descriptor, SLIDE[:100])
            store.keep(descriptor)

    def holds(spool: Spool, end: bool) -> str | None:
        found = list(Store(spool.inbox).unfinished("ann"))
        if not end:
            return None
        if len(found) != 1 or found[0].announced != UPLOAD:
            return "the upload is gone"
        there = found[0].bytes_at
        good = there.exists() and there.read_bytes() == SLIDE[:100]
        return None if good else "bytes that were acknowledged are gone"

    return Case(lambda _spool: None, do, holds)


@case
def a_whole_upload() -> Case:
    """It is a drop, or still an upload that a next request publishes."""

    def before(spool: Spool) -> None:
        store = Store(spool.inbox)
        with store.writing(store.create(UPLOAD, "ann")) as descriptor:
            store.write(descriptor, SLIDE)

    def do(spool: Spool) -> None:
        [found] = Store(spool.inbox).unfinished("ann")
        publish.settle(found, spool.inbox)

    def holds(spool: Spool, end: bool) -> str | None:
        drop = spool.inbox / "ann/@Lung/case/a.jpg"
        if drop.exists():
            return None if drop.read_bytes() == SLIDE else "the drop has other bytes"
        if end:
            return "what was acknowledged as whole is not a drop"
        there = list(spool.inbox.glob(".uploads/*/tree/case/a.jpg"))
        return None if there and there[0].read_bytes() == SLIDE else "the upload is gone"

    return Case(before, do, holds)


# The tests


@pytest.fixture(params=CASES)
def recording(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Case, Disk]:
    found = CASES[request.param]
    spool = Spool.create(folder / "root")
    found.before(spool)
    return found, recorded(spool.root, lambda: found.do(spool), monkeypatch)


def lost(found: Case, disk: Disk, place: Path, left_out: int | None, *, first: bool) -> list[str]:
    def check(root: Path, _where: dict[int, Path], end: bool) -> str | None:
        return found.holds(Spool(root), end)

    dirty = {inode for inode, (data, _) in disk.files.items() if data == found.dirty}
    return losses(
        disk, place, check, unsure=lambda end: disk.born | dirty if end else disk.born - dirty, left_out=left_out, atomic=True, first=first
    )  # fmt: skip


def test_nothing_is_lost(recording: tuple[Case, Disk], tmp_path: Path) -> None:
    """In every state that a cut may leave."""
    found, disk = recording
    assert lost(found, disk, tmp_path / "at", None, first=False) == []


def test_every_fsync_is_needed(recording: tuple[Case, Disk], tmp_path: Path) -> None:
    """Without it some state is a loss."""
    found, disk = recording
    needless = [
        f"{number} {disk.makers[number]}"
        for number in range(len(disk.syncs))
        if disk.makers[number] not in found.elsewhere
        and not lost(found, disk, tmp_path / "at", number, first=True)
    ]
    assert needless == []


def test_every_place_that_syncs_has_a_case(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So none is made for nothing: every function that asks for an fsync is in what is tried here, or in `test_power`."""
    tried = set(on_the_way(folder / "way", monkeypatch)[0].makers)
    for kind, names in DROPS.items():
        tried |= set(claimed(names, folder / kind, monkeypatch).makers)
    for name, found in CASES.items():
        spool = Spool.create(folder / name / "root")
        found.before(spool)
        do = functools.partial(found.do, spool)
        tried |= set(recorded(spool.root, do, monkeypatch).makers)
    package = Path(cytowatch.__file__).parent
    there = {
        f"{path.stem}.{function.name}"
        for path in package.rglob("*.py")
        if path.parent.name != "durable"
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Attribute)
        and (
            call.attr.startswith("fsync")
            or call.attr in ("make_directory", "write_note", "replace_durably")
        )
    }
    assert there == tried
