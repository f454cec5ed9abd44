"""The index: no matter what happens, it answers as one that is made again from the tree."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, lists, sampled_from, sets, text, tuples

from cytowatch.record import manifest
from cytowatch.record.entries import ErrorEntry, FileEntry, Manifest
from cytowatch.record.place import Place
from cytowatch.record.status import FOLLOWERS, Status
from cytowatch.tree.index import named
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

START = datetime(2026, 11, 23, tzinfo=UTC)


def uploaded(number: int, *, user: str = "ann", content: int = 0) -> Manifest:
    now = START + timedelta(seconds=number)
    return manifest.new(
        id=f"{now:%Y%m%d-%H%M%S}-a{number:03}-slide-{number}", user=user, name=f"slide {number}.svs",
        drop_path=f"{user}/slide {number}.svs", now=now, software={},
        files=[FileEntry(role="source", path="source/a.svs", size_bytes=number,
                         sha256=f"{content:064}", status="UPLOADED")],
    )  # fmt: skip


def put(spool: Spool, found: Manifest) -> Place:
    path = spool.stage(Status.UPLOADED) / found["id"]
    path.mkdir()
    manifest.write(path, found)
    return Place(status=Status.UPLOADED, path=path, manifest=found)


def go(spool: Spool, place: Place, status: Status, *, now: datetime) -> Place:
    """As the engine does: the manifest, then one rename."""
    error = ErrorEntry(reason="damaged", detail="d", stage=place.status.name, retryable=False)
    written = manifest.at_status(
        place.manifest, status, now=now, error=error if status.is_error else None
    )
    manifest.write(place.path, written)
    if status.is_success:
        path = spool.publish(place.path, written["user"])
    else:
        path = spool.move(place.path, status)
    return Place(status=status, path=path, manifest=written)


def anew(spool: Spool) -> list[object]:
    made = Index(spool, memory=True)
    made.reconcile()
    try:
        return list(made.every())
    finally:
        made.close()


class Uploads(RuleBasedStateMachine):
    """Arrivals, steps, removals; with and without being told, over ends of the process."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.spool = Spool.create(Path(self.folder.name) / "root")
        self.index = Index(self.spool)
        self.places: list[Place] = []
        self.number = 0

    def teardown(self) -> None:
        self.index.close()
        self.folder.cleanup()

    @rule(user=sampled_from(["ann", "bob"]), content=integers(0, 2))
    def arrives(self, user: str, content: int) -> None:
        self.number += 1
        place = put(self.spool, uploaded(self.number, user=user, content=content))
        self.places.append(place)
        self.index.look([place.manifest["id"]])

    @precondition(lambda self: any(not p.status.is_final for p in self.places))
    @rule(which=integers(0, 99), way=integers(0, 99), told=booleans())
    def goes_on(self, which: int, way: int, told: bool) -> None:
        """Not told: the process ended between the rename and the row; it starts again."""
        moving = [p for p in self.places if not p.status.is_final]
        place = moving[which % len(moving)]
        followers = sorted(FOLLOWERS[place.status], key=lambda s: s.code)
        self.number += 1
        after = go(
            self.spool, place, followers[way % len(followers)],
            now=START + timedelta(seconds=self.number),
        )  # fmt: skip
        self.places[self.places.index(place)] = after
        if told:
            self.index.put(after.manifest, after.status)
        else:
            self.starts_anew()

    @precondition(lambda self: any(p.status.is_final for p in self.places))
    @rule(which=integers(0, 99), told=booleans())
    def is_removed(self, which: int, told: bool) -> None:
        ended = [p for p in self.places if p.status.is_final]
        place = ended[which % len(ended)]
        self.places.remove(place)
        self.spool.discard(place.path)
        if told:
            self.index.look([place.manifest["id"]])
        else:
            self.starts_anew()

    @rule()
    def starts_anew(self) -> None:
        self.index.close()
        self.index = Index(self.spool)
        self.index.reconcile()

    @invariant()
    def it_answers_as_one_made_anew(self) -> None:
        assert self.index.fault is None
        assert list(self.index.every()) == anew(self.spool)
        counts = self.index.counts()
        for status in Status:
            assert counts[status] == sum(place.status is status for place in self.places)


TestUploads = Uploads.TestCase
TestUploads.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "root")


def deployed(spool: Spool, count: int) -> Index:
    index = Index(spool)
    index.reconcile()
    for number in range(count):
        place = put(spool, uploaded(number, user="ann" if number % 2 else "bob"))
        for status in (Status.DETECTING_FORMAT, Status.DEPLOYING, Status.DEPLOYED):
            place = go(spool, place, status, now=START + timedelta(seconds=number))
            index.put(place.manifest, place.status)
    return index


def test_a_start_reads_nothing_of_a_storage_that_did_not_change(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one manifest, and not one name; after a change by hand only what differs."""
    deployed(spool, 20).close()
    reads: list[Path] = []
    real = manifest.read

    def read(path: Path) -> Manifest:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(manifest, "read", read)
    index = Index(spool)
    assert index.reconcile() == 0
    assert reads == []
    gone = next((spool.storage / "ann").iterdir())
    gone.rename(spool.root / "elsewhere")
    assert index.reconcile() == 1
    assert reads == []
    assert index.counts()[Status.DEPLOYED] == 19
    (spool.root / "elsewhere").rename(gone)
    assert index.reconcile() == 1
    assert reads == [gone]
    assert index.counts()[Status.DEPLOYED] == 20
    index.close()


def test_a_whole_user_that_is_gone(spool: Spool) -> None:
    """Moved away by hand: no row of it stays."""
    index = deployed(spool, 6)
    (spool.storage / "ann").rename(spool.root / "ann")
    index.reconcile()
    assert {row.user for row in index.select()} == {"bob"}
    assert list(index.every()) == anew(spool)
    index.close()


@pytest.mark.parametrize("damage", ["deleted", "random", "another", "cut"])
def test_a_file_that_is_lost_or_damaged_is_made_anew(spool: Spool, damage: str) -> None:
    """It is a cache: the tree knows all."""
    index = deployed(spool, 30)
    told = list(index.every())
    index.close()
    path = spool.state / "index.sqlite3"
    match damage:
        case "deleted":
            path.unlink()
        case "random":
            data = bytearray(path.read_bytes())
            data[3000:-100] = bytes(range(256)) * ((len(data) - 3100) // 256 + 1)
            path.write_bytes(data)
        case "another":
            path.write_bytes(b"this is not a database at all" * 100)
        case "cut":
            path.write_bytes(path.read_bytes()[:5000])
    again = Index(spool)
    again.reconcile()
    if again.fault is not None:
        again.reconcile(from_scratch=again.damaged)
    assert again.fault is None
    assert list(again.every()) == told
    again.close()


def test_lists(spool: Spool) -> None:
    """Filters, sorting, and pages that follow each other without a gap."""
    index = deployed(spool, 9)
    ids = [row.id for row in index.select(ascending=True)]
    assert ids == sorted(ids)
    pages = [row.id for offset in (0, 4, 8) for row in index.select(limit=4, offset=offset)]
    assert pages == ids[::-1]
    assert {row.user for row in index.select(where={"user": "ann", "status": "DEPLOYED"})} == {
        "ann"
    }
    assert len(index.select(name_has="SLIDE 3")) == 1
    assert [row.id for row in index.select(sort="size", limit=2)] == ids[:-3:-1]
    assert [row.id for row in index.select(ids=ids[:2])] == ids[1::-1]
    assert len(index.select(since="2026-11-23T00:00:03", until="2026-11-23T00:00:05")) == 2
    for wanted in (ids[3], ids[3][:15], "a003", "slide 3.svs"):
        assert [row.id for row in index.find(wanted)] == [ids[3]]
    assert index.find("nothing") == []
    assert index.distinct("user", "a", 10) == ["ann"]
    index.close()


def test_the_first_of_some_content(spool: Spool) -> None:
    """In storage, of the same user; when it is removed, the next one."""
    index = deployed(spool, 6)
    key = f"{0:064}"
    first = index.first("ann", key)
    assert first == min(row.id for row in index.select(where={"user": "ann"}))
    assert index.first("eve", key) is None
    spool.discard(spool.storage / "ann" / first)
    index.look([first])
    assert index.first("ann", key) not in (first, None)
    index.close()


LETTERS = "aAbB9_%\"'*- äÄ試\x00"


@given(
    names=lists(text(LETTERS, max_size=9), min_size=1, max_size=12),
    again=lists(tuples(integers(0, 11), text(LETTERS, max_size=9)), max_size=6),
    gone=sets(integers(0, 11), max_size=3),
    wanted=text(LETTERS, min_size=1, max_size=5),
    trigrams=booleans(),
)
def test_a_search_finds_every_name_that_holds_the_letters(
    names: list[str], again: list[tuple[int, str]], gone: set[int], wanted: str, trigrams: bool
) -> None:
    """Anywhere in it, after renames and removals, and by an SQLite without trigrams too."""
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Spool.create(Path(folder) / "root"), memory=True)
        index.reconcile()
        assert index._database
        if not trigrams:
            for kind, name in [("TRIGGER", "more"), ("TRIGGER", "fewer"), ("TRIGGER", "other")]:
                index._database.execute(f"DROP {kind} named_{name}")
            index._database.execute("DROP TABLE named")
        told = dict(enumerate(names))
        for number, name in [*told.items(), *again]:
            if number in told:
                told[number] = name
                found = uploaded(number)
                found["name"] = name
                index.put(found, Status.UPLOADED)
        for number in gone & set(told):
            index.look([uploaded(number)["id"]])
            del told[number]
        # SQLite folds the case of ASCII only, and ends a text at a NUL.
        folded = str.maketrans("AB", "ab")
        wanted = wanted.translate(folded)
        right = {n for n, name in told.items() if wanted in name.translate(folded)}
        seen = {int(row.id.split("-a")[1][:3]) for row in index.select(name_has=wanted)}
        assert index.fault is None
        assert seen == right
        index.close()


def test_a_rare_name_is_not_looked_for_in_every_row(spool: Spool) -> None:
    """SQLite's own plan says so."""
    index = deployed(spool, 3)
    holds, values = named.condition(index._ask, "slide 2")
    plan = index._ask(
        f"EXPLAIN QUERY PLAN SELECT id FROM uploaded WHERE {holds} ORDER BY id DESC", values
    )
    assert not [row for row in plan if row[3].startswith("SCAN uploaded")], plan
    index.close()
