"""Archives and folders: their members are handed out, and what they came from is at its end."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any, cast

from cytowatch.config import Config
from cytowatch.config.keys import Storage
from cytowatch.inbox import claim
from cytowatch.inbox import scan as inboxes
from cytowatch.inbox.folders import Folders
from cytowatch.record import manifest
from cytowatch.record.status import Status
from cytowatch.transitions.moves import Transitions
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool
from tests.unit.power_cuts.cases import (
    ID,
    NOW,
    OTHER,
    SLIDE,
    Case,
    accept,
    case,
    made_member,
    place_in,
    renumbered,
    staged,
    torn,
)
from tests.unit.test_claim import claiming


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
            claiming(spool, OTHER, now=NOW),
            parcel,
            overdue=False,
            quiet_for_s=10,
        )
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
