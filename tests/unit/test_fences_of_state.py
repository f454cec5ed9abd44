"""One thing raises anything in a loop over uploaded files, requests, notes or deliveries: the others are served."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from cytowatch import aside, hooks
from cytowatch.admin import invariants, requests
from cytowatch.admin.remove import expired
from cytowatch.config import Config
from cytowatch.durable import failpoints
from cytowatch.engine.hashing import Hasher
from cytowatch.hooks.deliver import Courier
from cytowatch.observe import returned
from cytowatch.observe.feedback import Note, Notes
from cytowatch.record import manifest
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.transitions import lighten, notes, recover
from cytowatch.transitions.moves import Transitions
from cytowatch.tree import find
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool
from tests.unit.test_damaged_tree import BAD, HOOK, NOW, SOUND, Log, ledger, put

BOTH = {SOUND, BAD}


@dataclass(frozen=True)
class Loop:
    """`do` goes through the loop once, and gives whom it served; `then` it goes on by itself."""

    function: str
    which: str
    do: Callable[[Spool], set[str]]
    #: A thing that is set aside is served in part: it is listed by its id, for example.
    still: bool = False


LOOPS: list[Loop] = []


def loop(
    function: str, which: str = BAD, *, still: bool = False
) -> Callable[[Callable[[Spool], set[str]]], Callable[[Spool], set[str]]]:
    def add(do: Callable[[Spool], set[str]]) -> Callable[[Spool], set[str]]:
        LOOPS.append(Loop(f"cytowatch.{function}", which, do, still))
        return do

    return add


def both(spool: Spool, status: Status) -> list[Path]:
    folder = spool.storage / "ann" if status.is_success else spool.stage(status)
    return [
        folder / id_ if (folder / id_).exists() else put(spool, id_, status) for id_ in (SOUND, BAD)
    ]


@loop("tree.index.reconcile.Reconciling._look_at_one")
def _(spool: Spool) -> set[str]:
    both(spool, Status.DEPLOYED)
    index = Index(spool, memory=True)
    index.reconcile()
    assert index.fault is None
    return {row.id for row in index.select() if row.reason is None}


@loop("tree.index.reconcile.Reconciling._storages", "bob")
def _(spool: Spool) -> set[str]:
    both(spool, Status.DEPLOYED)
    if not (spool.storage / "bob").exists():
        (spool.storage / "bob").mkdir()
        (spool.storage / "ann" / BAD).rename(spool.storage / "bob" / BAD)
    index = Index(spool, memory=True)
    index.reconcile()
    return {row.id for row in index.select()}


@loop("tree.index.index.Index.put")
def _(spool: Spool) -> set[str]:
    index = Index(spool, memory=True)
    for path in both(spool, Status.DEPLOYED):
        index.put(manifest.read(path), Status.DEPLOYED)
    assert index.fault is None
    return {row.id for row in index.select()}


@loop("tree.find.entry")
def _(spool: Spool) -> set[str]:
    both(spool, Status.DEPLOYED)
    index = Index(spool, memory=True)
    index.reconcile()
    entries = [find.entry(spool, row) for row in index.select()]
    assert {entry.manifest["id"] for entry in entries if entry} == BOTH
    return {entry.manifest["id"] for entry in entries if entry and not entry.damaged}


@loop("tree.find._entry")
def _(spool: Spool) -> set[str]:
    both(spool, Status.DEPLOYED)
    return {entry.manifest["id"] for entry in find.entries(spool)}


@loop("lifecycle.lately.Lately._take_note")
def _(spool: Spool) -> set[str]:
    both(spool, Status.DEPLOYED)
    index = Index(spool, memory=True)
    index.reconcile()
    told = ledger(index, spool)
    told.count_tree(spool, NOW)
    return set(told.lately.notes())


@loop("observe.drops.Drops.notes")
def _(spool: Spool) -> set[str]:
    index = Index(spool, memory=True)
    told = ledger(index, spool)
    for path in both(spool, Status.CONVERTING):
        found = manifest.read(path)
        before = Place(status=Status.DETECTING_FORMAT, path=path, manifest=found)
        after = Place(status=Status.CONVERTING, path=path, manifest=found)
        told.entered(before, after, 1.0)
        told.progressed(after, 0.5)
    return set(told.lately.notes())


def waiting(path: str) -> dict[str, object]:
    return {
        "user": "ann", "path": path, "why": "settling", "detail": "", "size_bytes": 1,
        "since": "2026-11-29T10:00:00Z", "until": None,
    }  # fmt: skip


@loop("observe.arriving.notes", "ann/b.svs")
def _(spool: Spool) -> set[str]:
    rows = [waiting(f"ann/{name}.svs") for name in "ab"]
    there = ledger(Index(spool, memory=True), spool).lately.notes(rows)
    return {id_ for path, id_ in (("ann/a.svs", SOUND), ("ann/b.svs", BAD)) if path in there}


@loop("lifecycle.lately.Lately.entered", still=True)
def _(spool: Spool) -> set[str]:
    index = Index(spool, memory=True)
    moves = Transitions(
        spool=spool, index=index, config=Config(), observer=ledger(index, spool), now=lambda: NOW,
        monotonic=time.monotonic,
    )  # fmt: skip
    for path in both(spool, Status.DEPLOYED):
        found = manifest.read(path)
        before = Place(status=Status.DEPLOYING, path=path, manifest=found)
        moves._moved(before, Place(status=Status.DEPLOYED, path=path, manifest=found), 1.0)
    return {row.id for row in index.select()}


@loop("transitions.moves.Transitions._moved", still=True)
def _(spool: Spool) -> set[str]:
    """An uploaded file that has moved stays moved, and its row is right, if the observer fails."""
    index = Index(spool, memory=True)
    moves = Transitions(
        spool=spool, index=index, config=Config(), observer=ledger(index, spool), now=lambda: NOW,
        monotonic=time.monotonic,
    )  # fmt: skip
    for path in both(spool, Status.DEPLOYED):
        before = Place(status=Status.DEPLOYING, path=path, manifest=manifest.read(path))
        moved = moves._moved(before, dataclasses.replace(before, status=Status.DEPLOYED), 1.0)
        assert moved.status is Status.DEPLOYED
    return {row.id for row in index.select()}


@loop("lifecycle.counts.Ledger.set_ages", "UPLOADED")
def _(spool: Spool) -> set[str]:
    both(spool, Status.UPLOADED)
    index = Index(spool, memory=True)
    index.reconcile()
    ledger(index, spool).set_ages(NOW)
    return {SOUND} if aside.all_of("row") else BOTH


@loop("transitions.recover.set_doubles_aside")
def _(spool: Spool) -> set[str]:
    for status in (Status.UPLOADED, Status.CONVERTING):
        for path in both(spool, status):
            assert path.exists()
    return {id_ for id_, _, _ in recover.set_doubles_aside(spool)}


@loop("transitions.recover.recover", still=True)
def _(spool: Spool) -> set[str]:
    both(spool, Status.CONVERTING)
    return {id_ for _, id_ in recover.recover(spool, now=NOW)}


@loop("transitions.lighten.lighten_the_rest", f"{BAD}.lighten")
def _(spool: Spool) -> set[str]:
    for path in both(spool, Status.DEPLOYED):
        found = manifest.read(path)
        lighten.plan_to_lighten(spool, Place(status=Status.DEPLOYED, path=path, manifest=found))
    return set(recover.finish(spool))


@loop("transitions.notes.there", "no id")
def _(spool: Spool) -> set[str]:
    for id_ in (SOUND, "no id"):
        (spool.requests / f"{id_}.hash").write_text("ann")
    found = {id_ for _, id_ in notes.there(spool, ".hash")}
    return BOTH if notes.refused(spool) else found


@loop("engine.hashing.Hasher._waiting", f"{BAD}.hash")
def _(spool: Spool) -> set[str]:
    both(spool, Status.DEPLOYED)
    for id_ in BOTH:
        (spool.requests / f"{id_}.hash").write_text("ann")
    return {path.name for _, path in Hasher(spool, Index(spool), Log("x"), lambda: None)._waiting()}


@loop("admin.remove.expired")
def _(spool: Spool) -> set[str]:
    both(spool, Status.ERROR_FORMAT)
    return {
        id_
        for _, id_ in expired(
            spool, age_s=lambda at: (NOW + timedelta(days=9) - at).total_seconds(), days=1
        )
    }


@loop("admin.requests.answer_all", "b.json")
def _(spool: Spool) -> set[str]:
    both(spool, Status.ERROR_FORMAT)
    for name, id_ in (("b", BAD), ("c", SOUND)):
        (spool.requests / f"{name}.json").write_text(json.dumps({"do": "return", "id": id_}))
    done = requests.answer_all(spool, Index(spool, memory=True), now=NOW)
    return {one.request["id"] for one in done}


@loop("admin.requests.sweep", "b.answer")
def _(spool: Spool) -> set[str]:
    for name in "bc":
        (spool.requests / f"{name}.answer").write_text("x")
    requests.sweep(spool, now_s=time.time() + 9999)
    left = {path.stem for path in spool.requests.glob("*.answer")}
    return {id_ for name, id_ in (("b", BAD), ("c", SOUND)) if name not in left}


def noted(spool: Spool) -> None:
    for path in both(spool, Status.DEPLOYED):
        hooks.note(spool, [HOOK], manifest.read(path), Status.DEPLOYED, now=NOW)


@loop("hooks.pending._read")
def _(spool: Spool) -> set[str]:
    noted(spool)
    return {one.id for one in hooks.pending(spool)}


@loop("hooks.pending.drop_untrue")
def _(spool: Spool) -> set[str]:
    for path in both(spool, Status.ERROR_FORMAT):
        hooks.note(spool, [HOOK], manifest.read(path), Status.DEPLOYED, now=NOW)
    return {one.id for one in hooks.drop_untrue(spool)}


@loop("hooks.deliver.Courier._deliver")
def _(spool: Spool) -> set[str]:
    noted(spool)
    told: set[str] = set()
    courier = Courier(spool, (HOOK,), lambda one, outcome: told.add(one.id))
    courier._deliver(HOOK, threading.Event())
    return told


@loop("observe.feedback.Notes.show", "bob")
@loop("observe.feedback.Notes.go_on", "bob")
def notes_of_two(spool: Spool) -> set[str]:
    for user in ("ann", "bob"):
        (spool.inbox / user).mkdir(exist_ok=True)
    shown = {user: Note(user=user, about="a", says="x", text="x") for user in ("ann", "bob")}
    Notes(spool.root, "status").show(shown)
    there = {path.parent.name for path in spool.status_dir.glob("*/*.txt")}
    return {id_ for user, id_ in (("ann", SOUND), ("bob", BAD)) if user in there}


@loop("observe.feedback.Notes._write", "b - x.txt")
def _(spool: Spool) -> set[str]:
    (spool.inbox / "ann").mkdir(exist_ok=True)
    shown = {name: Note(user="ann", about=name, says="x", text="x") for name in "ab"}
    Notes(spool.root, "status").show(shown)
    there = {path.name for path in (spool.status_dir / "ann").glob("*.txt")}
    return {id_ for name, id_ in (("a - x.txt", SOUND), ("b - x.txt", BAD)) if name in there}


@loop("tree.index.reconcile.Reconciling.look_for_vanished", "storage/bob")
def _(spool: Spool) -> set[str]:
    index = Index(spool)
    where = {SOUND: "ann", BAD: "bob"}
    if not index.select():
        for id_, user in where.items():
            made = put(spool, id_, Status.DEPLOYED, user=user)
            if user != "ann":
                (spool.storage / user).mkdir()
                made.rename(spool.storage / user / id_)
        index.reconcile()
        for id_, user in where.items():
            (spool.storage / user / id_).rename(spool.root / id_)
    index.look_for_vanished(thoroughly=True)
    found = {one.id for one in index.missing()}
    index.close()
    return found


@loop("observe.returned.notes", "bob/_returned")
def _(spool: Spool) -> set[str]:
    for user in ("ann", "bob"):
        place = spool.inbox / user / returned.FOLDER
        place.mkdir(parents=True, exist_ok=True)
        (place / f"a{returned.ENDING}").write_text("x")
    told = {note.user for _, note in returned.notes(spool.inbox, since=NOW - timedelta(days=1))}
    return {id_ for user, id_ in (("ann", SOUND), ("bob", BAD)) if user in told}


@loop("admin.invariants._fenced")
def _(spool: Spool) -> set[str]:
    both(spool, Status.UPLOADED)
    told = "\n".join(invariants.broken(spool, at_rest=True))
    return {id_ for id_ in BOTH if f"{id_} is still in work" in told}


@pytest.fixture(autouse=True)
def nothing_aside() -> Iterator[None]:
    aside.reset()
    yield
    aside.reset()
    sys.settrace(None)


@pytest.mark.parametrize("kind", failpoints.POISONS)
@pytest.mark.parametrize("through", LOOPS, ids=lambda one: one.function)
def test_the_others_are_served(
    through: Loop, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is set aside with its reason, and goes on when the cause is gone."""
    spool = Spool.create(tmp_path / "root")
    monkeypatch.setattr(failpoints, "_POISONED", [(through.function, through.which, kind, "")])
    served = through.do(spool)
    assert SOUND in served
    assert (BAD in served) is through.still
    if through.function != "cytowatch.admin.invariants._fenced":
        assert [one.which for one in aside.all_of() if through.which in one.which]
    monkeypatch.setattr(failpoints, "_POISONED", [])
    monkeypatch.setattr(aside.time, "monotonic", itertools.count(1e9).__next__)
    assert through.do(spool) | served >= BOTH
    assert not aside.all_of("request")
