"""One thing may raise anything in a loop over users, drops, claims, folders or events: the others are served."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch import aside
from cytowatch.config.keys import Config, Storage
from cytowatch.durable import failpoints
from cytowatch.inbox import bounded, later, rooms, scan, watch
from cytowatch.inbox.claim import hold, take
from cytowatch.inbox.folders import Folders
from cytowatch.record import drop as drop_module
from cytowatch.record import manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.transitions.moves import Transitions
from cytowatch.tree.index.index import Index
from tests import builders
from tests.lab.root import HANGS_S
from tests.unit.test_claim import claiming, single
from tests.unit.test_damaged_tree import ledger
from tests.unit.test_inbox import Inboxes


@dataclass(frozen=True)
class Place:
    """A function with a fence, and by what the one is called that is poisoned there."""

    function: str
    which: str
    #: Whether it is the whole inbox of a user, in which then nothing is claimed.
    whole: bool = False


PLACES = (
    Place("inbox.scan._look", "bad"),
    Place("inbox.gather.Gatherer.bundles.<locals>.look_into", "bad"),
    Place("inbox.intake.Intake._take_up", "bad"),
    Place("inbox.claims.Claims.collect", "bad"),
    Place("inbox.turns.Turns._serve", "ann", whole=True),
    Place("inbox.rooms.Rooms._gather", "ann/", whole=True),
    Place("inbox.sweep.Sweep._fenced", "ann", whole=True),
)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    aside.reset()
    monkeypatch.setattr(aside, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(later, "_SOON_S", 0.01)
    monkeypatch.setattr(rooms, "_AGAIN_S", 0.01)
    yield
    aside.reset()
    sys.settrace(None)


@pytest.fixture
def inboxes(tmp_path: Path) -> Iterator[Inboxes]:
    made = Inboxes(tmp_path / "root")
    yield made
    made.intake.stop()


@contextmanager
def poisoned(
    monkeypatch: pytest.MonkeyPatch, function: str, which: str, kind: str
) -> Iterator[None]:
    """`which` raises a `kind` where it enters the loop of `function`, until this ends."""
    poison = (f"cytowatch.{function}", which, kind, "")
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_POISONED", [poison])
        yield


@pytest.mark.parametrize("place", PLACES, ids=lambda one: one.function)
def test_one_costs_itself_alone_and_goes_on(
    place: Place, inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of exception, one after the other: others are claimed, it is named, then it is claimed."""
    for number, kind in enumerate(failpoints.POISONS):
        bad, good, bob = f"bad{number}", f"good{number}", f"bob{number}"
        with poisoned(monkeypatch, place.function, place.which, kind):
            for path in (f"ann/{bad}", f"ann/{good}", f"bob/{bob}"):
                inboxes.drop(path)
            others = {bob} if place.whole else {good, bob}
            inboxes.until(lambda others=others: others <= inboxes.claimed and aside.all_of() != [])
            assert bad not in inboxes.claimed
            assert place.which in " ".join(one.which for one in aside.all_of())
        inboxes.until(lambda bad=bad, good=good: {bad, good} <= inboxes.claimed)
    inboxes.until(lambda: aside.all_of() == [] and inboxes.waiting() == {})
    assert list(inboxes.spool.tmp.iterdir()) == []


def test_what_lies_beside_the_inboxes(inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as set aside, and by its own reason when the cause is gone."""
    inboxes.drop("stray")
    for number, kind in enumerate(failpoints.POISONS):
        with poisoned(monkeypatch, "inbox.scan.stray", "stray", kind):
            inboxes.drop(f"bob/bob{number}")
            inboxes.until(lambda: inboxes.waiting().get("stray") == "set_aside")
            inboxes.until(lambda number=number: f"bob{number}" in inboxes.claimed)
        (inboxes.spool.inbox / "stray").unlink()
        inboxes.drop("stray")
        inboxes.until(lambda: inboxes.waiting() == {"stray": "no_user"} and aside.all_of() == [])


def left_half_done(inboxes: Inboxes, name: str) -> UploadedFileId:
    """A claim all of whose files have moved, as a kill leaves it; gives its id."""
    file = inboxes.drop(f"ann/{name}")
    device = inboxes.spool.inbox.stat().st_dev
    [drop] = [
        one
        for one, _ in scan.scan(inboxes.spool.inbox, "ann", (), device=device)
        if one.name == name
    ]
    id_ = UploadedFileId(f"20261123-141502-1000-{name}")
    place = inboxes.spool.tmp / id_
    parcel = single(drop)
    with ExitStack() as opened:
        held = cast("Any", hold.open_all(inboxes.spool, parcel, opened))
        take.prepare(claiming(inboxes.spool), place, parcel, held, datetime.now(UTC))
    file.rename(place / parcel.members[0].to)
    return id_


class Cases(Inboxes):
    """Inboxes with dropped folders, as the daemon has them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, folder_quiet_s=0.05)
        self.index = Index(self.spool, memory=True)
        self.ids = 0
        self.open()

    def open(self) -> None:
        """As after a start."""
        moves = Transitions(
            spool=self.spool, index=self.index, config=Config(),
            observer=ledger(self.index, self.spool), now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
        )  # fmt: skip
        self.folders = Folders(moves, make_id=self.an_id, software={}, settings=Storage())
        of = self.intake
        for one in (of, of._dropped, of._claims, of._claims._packing):
            one._folders = cast("Any", self.folders)

    def an_id(self, _now: datetime, name: str) -> UploadedFileId:
        self.ids += 1
        return UploadedFileId(f"20261123-141502-{self.ids:04}-{name}")

    def image(self, path: str) -> None:
        file = self.spool.inbox / path
        file.parent.mkdir(parents=True, exist_ok=True)
        builders.png(file)

    def extracted(self) -> set[str]:
        return {manifest.read(path)["name"] for path in self.spool.stored()}


@pytest.fixture
def cases(tmp_path: Path) -> Iterator[Cases]:
    made = Cases(tmp_path / "root")
    yield made
    made.intake.stop()


@pytest.mark.parametrize("function", ["inbox.claim.recovery.recover", "inbox.claims.Claims.mend"])
def test_a_claim_that_was_left_half_done(
    function: str, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are finished; it is kept where it is, and finished when the cause is gone."""
    for number, kind in enumerate(failpoints.POISONS):
        bad, good = (
            left_half_done(cases, f"bad{number}"),
            left_half_done(cases, f"good{number}"),
        )
        with poisoned(monkeypatch, function, "bad", kind):
            cases.intake._claims.to_mend = True
            assert [one.id for one in cases.intake.mend()] == [good], cases.intake.kept
            assert bad in [one.which for one in aside.all_of("claim")]
        # Once it is in its stage, a start that meets it there goes on with it.
        cases.intake._claims.to_mend = True
        cases.until(lambda bad=bad: cases.spool.find(bad) is not None)
        aside.clear("claim", bad)
        assert cases.spool.find(good) is not None


@pytest.mark.parametrize(
    "function", ["inbox.dropped.Dropped.finish_some", "inbox.claims.Claims._name_children"]
)
def test_a_dropped_folder(function: str, cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are finished; it is when the cause is gone."""
    for number, kind in enumerate(failpoints.POISONS):
        bad, good = f"bad{number}", f"good{number}"
        with poisoned(monkeypatch, function, f"ann/{bad}", kind):
            cases.image(f"ann/{bad}/a.png")
            cases.image(f"ann/{good}/b.png")
            cases.until(lambda good=good: good in cases.extracted())
            cases.until(lambda bad=bad: any(bad in one.which for one in aside.all_of()))
            assert bad not in cases.extracted()
        cases.until(lambda bad=bad: bad in cases.extracted())
    cases.until(lambda: not aside.all_of("folder"))


@pytest.mark.parametrize("kind", failpoints.POISONS)
@pytest.mark.parametrize(
    "function", ["inbox.folders.Folders._take_up_some", "inbox.folders.Folders.note"]
)
def test_a_folder_that_is_open_at_a_start(
    function: str, kind: str, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are taken up and noted; it is when the cause is gone."""
    for name in ("bad", "good"):
        cases.folders.parent(f"ann/{name}", "ann", None)
    cases.open()
    which = "bad" if "note" not in function else "ann/bad/"
    with poisoned(monkeypatch, function, which, kind):
        cases.folders.recover()
        cases.folders.note()
        assert "ann/good" in cases.folders.open
        [one] = aside.all_of("folder")
        assert "bad" in one.which
    time.sleep(0.02)
    cases.folders.note()
    assert set(cases.folders.open) == {"ann/bad", "ann/good"}
    assert aside.all_of("folder") == []


@pytest.mark.parametrize("kind", failpoints.POISONS)
def test_a_file_of_a_folder_that_lacks_its_mark(
    kind: str, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot be looked into keeps its own folder open; it is looked into again after."""
    now = time.monotonic()
    for user in ("ann", "bob"):
        cases.image(f"{user}/case/{user}.png")
        cases.folders.parent(f"{user}/case", user, None)
    cases.intake.scan_all(now, whole=True)
    for track in cases.intake._settler.tracks:
        cases.intake._settler.stuck(track, drop_module.Waiting(why="done_marker", detail=""))
    dropped = cases.intake._dropped
    dropped._is_an_image = lambda _track: False
    with poisoned(monkeypatch, "inbox.dropped.Dropped._lacks_marker", "ann.png", kind):
        assert dropped.times(now, lambda _folder: 0.0).keys() == {"bob/case"}
        assert [one.which for one in aside.all_of("drop")] == ["ann/case/ann.png"]
    assert dropped.times(now, lambda _folder: 0.0).keys() == {"ann/case", "bob/case"}
    assert aside.all_of("drop") == []


class Watched:
    """A watcher on two inboxes; whom it reported, and how often all was to be scanned."""

    def __init__(self, root: Path, mode: str) -> None:
        self.inbox, self.requests = root / "inbox", root / "requests"
        # Of each round of poison its own, as events of the one before may come late.
        bad = [self.inbox / f"ann{number}" for number in range(len(failpoints.POISONS))]
        for folder in (self.inbox / "ann", *bad, self.inbox / "bob", self.requests):
            folder.mkdir(parents=True)
        self.told: set[str] = set()
        self.lost = self.asked = self.moved = 0
        self.watcher = watch.Watcher(
            self.inbox, mode, self.told.add, self.was_lost, requests=self.requests,
            asked=self.was_asked, moved=self.has_moved,
        )  # fmt: skip

    def was_lost(self) -> None:
        self.lost += 1

    def was_asked(self) -> None:
        self.asked += 1

    def has_moved(self) -> None:
        self.moved += 1

    def until(self, true: Callable[[], bool], do: Callable[[], Any] = lambda: None) -> None:
        end = time.monotonic() + HANGS_S
        while not true():
            assert time.monotonic() < end
            do()
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("function", "which"),
    [("inbox.bounded._Group.on_event", "ann"), ("inbox.watch._Handler.on_any_event", "ann")],
)
def test_an_event_of_one_inbox(
    function: str, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' events come, all is scanned for what was missed, and the thread lives."""
    watched = Watched(tmp_path, "inotify")
    watched.watcher.start()
    try:
        for number, kind in enumerate(failpoints.POISONS):
            watched.told.clear()
            watched.lost = 0
            with poisoned(monkeypatch, function, f"{which}{number}", kind):
                (watched.inbox / f"ann{number}" / "a").touch()
                (watched.inbox / "bob" / f"{number}").touch()
                watched.until(lambda: "bob" in watched.told and watched.lost > 0)
                assert f"ann{number}" not in watched.told
                assert [one.which for one in aside.all_of("event")] == [f"ann{number}"]
            (watched.inbox / f"ann{number}" / "again").touch()
            watched.until(lambda number=number: f"ann{number}" in watched.told)
            aside.keep_only("event", ())
            assert watched.watcher.alive
    finally:
        watched.watcher.stop()


@pytest.mark.parametrize(
    ("function", "which"),
    [
        ("inbox.watch._RequestsHandler.on_any_event", "requests"),
        ("inbox.bounded._Emitter.build_and_queue_event", "emitter"),
    ],
)
def test_an_event_that_is_not_any_inbox_s(
    function: str, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lost, and the ones that come after it are not."""
    watched = Watched(tmp_path, "inotify")
    watched.watcher.start()
    try:
        for number, kind in enumerate(failpoints.POISONS):
            with poisoned(monkeypatch, function, which, kind):
                watched.until(lambda: aside.all_of("event") != [], watched.watcher.poke)
            watched.told.clear()
            watched.moved = 0
            (watched.inbox / "ann" / f"{number}").touch()
            watched.until(lambda: watched.moved > 0 and "ann" in watched.told, watched.watcher.poke)
            assert watched.watcher.alive
            aside.keep_only("event", ())
    finally:
        watched.watcher.stop()


@pytest.mark.parametrize("kind", failpoints.POISONS)
def test_an_overflow(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads the kernel's queue goes on."""
    for folder in ("inbox/ann", "requests"):
        (tmp_path / folder).mkdir(parents=True)
    group = object.__new__(bounded._Group)
    group._lock = threading.Lock()
    group._is_active = False
    with poisoned(monkeypatch, "inbox.bounded._Group.on_queue_overflow", "overflow", kind):
        group.on_queue_overflow()
        assert [one.which for one in aside.all_of("event")] == ["overflow"]
    group.on_queue_overflow()
    assert aside.all_of("event") == []
