"""What an admin asks for: projects, retried, handed back and removed files, pauses, an export, a new tree."""

from __future__ import annotations

import shutil
from typing import Any, cast

from cytowatch.admin import give_back, retry
from cytowatch.admin.remove import remove
from cytowatch.cli import export
from cytowatch.record import manifest
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.transitions import recover
from cytowatch.tree import pauses
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool
from tests.unit.power_cuts.cases import (
    ID,
    LATER,
    NOW,
    SLIDE,
    Case,
    accept,
    case,
    make,
    place_in,
    published,
    staged,
    torn,
)


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

    return Case(before, lambda spool: give_back.hand_back(spool, ID), holds)


@case
def what_is_removed() -> Case:
    def before(spool: Spool) -> None:
        make(spool.storage / "ann" / ID, Status.DEPLOYED)

    def do(spool: Spool) -> None:
        remove(spool, ID, Index(spool, memory=True))

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
            missing = [path for path in spool.directories() if not path.is_dir()]
            return f"{missing} are gone" if missing else None
        Spool.create(spool.root)
        return None

    return Case(before, lambda spool: Spool.create(spool.root), holds)
