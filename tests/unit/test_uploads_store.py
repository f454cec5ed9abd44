"""Unfinished uploads on disk: what lies there is doubted, and one of them costs only itself."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytowatch import aside
from cytowatch.durable import failpoints
from cytowatch.panel.uploads import publish
from cytowatch.panel.uploads.found import EXPIRES_S, Found
from cytowatch.panel.uploads.ledger import Ledger
from cytowatch.panel.uploads.rules import Announced
from cytowatch.panel.uploads.store import Store
from cytowatch.tree import announced


def begun(inbox: Path, name: str) -> tuple[Store, str]:
    store = Store(inbox)
    made = store.create(Announced(path=name, size=10, user="ann"), "ann")
    return store, made.token


@pytest.mark.parametrize("kind", failpoints.POISONS)
def test_one_that_cannot_be_removed_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The others expire, and it does once the cause is gone."""
    store, bad = begun(tmp_path, "a.svs")
    begun(tmp_path, "b.svs")
    later = (tmp_path / ".uploads").stat().st_mtime + 2 * EXPIRES_S
    folder = bad.partition(".")[0]
    poison = ("cytowatch.panel.uploads.store.Store.expire", folder, kind, "")
    monkeypatch.setattr(failpoints, "_POISONED", [poison])
    assert store.expire(later) == 1
    assert [path.name for path in (tmp_path / ".uploads").iterdir()] == [folder]
    assert [one.which for one in aside.all_of("request")] == [f"upload {folder}"]
    monkeypatch.setattr(failpoints, "_POISONED", [])
    assert store.expire(later) == 1
    assert aside.all_of("request") == []


@pytest.mark.parametrize("kind", failpoints.POISONS)
def test_one_that_cannot_be_published_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The other one becomes a drop, and it does once the cause is gone."""
    store, bad = begun(tmp_path, "a.svs")
    _, good = begun(tmp_path, "b.svs")
    for token in (bad, good):
        found = store.find(token, "ann")
        assert found is not None
        found.bytes_at.write_bytes(bytes(10))
    poison = ("cytowatch.panel.uploads.publish.publish_whole", bad, kind, "")
    monkeypatch.setattr(failpoints, "_POISONED", [poison])
    assert publish.publish_whole(store) == ["ann/b.svs"]
    assert [one.which for one in aside.all_of("request")] == [f"upload {bad}"]
    monkeypatch.setattr(failpoints, "_POISONED", [])
    assert publish.publish_whole(store) == ["ann/a.svs"]
    assert aside.all_of("request") == []


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../a.svs"}, {"path": 1}, {"size": -1}, {"size": True}, {"user": "../bob"},
        {"project": "a/../../b"}, {"files": "1"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_note_that_nobody_here_wrote_is_no_upload(
    tmp_path: Path, change: dict[str, object]
) -> None:
    """It leads nowhere: the upload is not found, and the others are."""
    store, token = begun(tmp_path, "a.svs")
    _, other = begun(tmp_path, "b.svs")
    folder, _, member = token.partition(".")
    note = tmp_path / ".uploads" / folder / "notes" / f"{member}.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), **change}))
    assert store.find(token, "ann") is None
    assert store.find(other, "ann") is not None
    assert store.count("ann") == 1


def opened(do: Callable[[], object]) -> int:
    """How many files and folders `do` opens or lists."""
    _seen.clear()
    _seen.append("on")
    try:
        do()
    finally:
        found = len(_seen) - 1
        _seen.clear()
    return found


_seen: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def watched() -> None:
    """What the interpreter itself reports; such a hook cannot be taken away, so it stays for the process."""

    def look(event: str, _arguments: object) -> None:
        if _seen and event in ("open", "os.listdir", "os.scandir"):
            _seen.append(event)

    sys.addaudithook(look)


def test_a_new_upload_reads_no_other_one(tmp_path: Path) -> None:
    """With two unfinished ones or with hundreds, it opens as many files, and the sums are right."""
    store, _ = begun(tmp_path, "0.svs")

    def one(name: str) -> None:
        assert store.count("ann") >= 1
        assert store.ledger.missing_bytes() >= 10
        store.create(Announced(path=name, size=10, user="ann"), "ann")

    one("1.svs")
    few = opened(lambda: one("2.svs"))
    for number in range(3, 300):
        store.create(Announced(path=f"{number}.svs", size=10, user="bob"), "bob")
    assert opened(lambda: one("300.svs")) == few
    assert (store.count("ann"), store.count("bob")) == (4, 297)
    assert store.ledger.missing_bytes() == 3010


@given(st.lists(st.tuples(st.sampled_from("bgdek"), st.integers(0, 5), st.integers(0, 9))))
def test_the_ledger_says_what_the_disk_says(steps: list[tuple[str, int, int]]) -> None:
    """However uploads begin, grow, go and end: the sums are those of a store that reads all of it."""
    with tempfile.TemporaryDirectory() as folder:
        inbox = Path(folder)
        store = Store(inbox)
        found: list[Found] = []
        for step, which, more in steps:
            one = found[which % len(found)] if found else None
            if step == "b":
                owner = "ann" if which % 2 else "bob"
                found.append(
                    store.create(Announced(path=f"{len(found)}.svs", size=10, user=owner), owner)
                )
            elif one is None or not one.bytes_at.exists():
                continue
            elif step == "g":
                with store.writing(one) as descriptor:
                    os.write(descriptor, bytes(min(more, 10 - one.offset)))
                store.ledger.left(one.token, 10 - one.offset)
            elif step == "d":
                store.remove(one)
            elif step == "k":
                store.ledger.read_again(most_often_s=0)
            elif one.offset == 10:
                publish.settle(one, inbox)
                store.ledger.end(one.token)
        fresh = Store(inbox)
        for owner in ("ann", "bob"):
            assert store.count(owner) == fresh.count(owner)
        assert store.ledger.missing_bytes() == fresh.ledger.missing_bytes()


def test_what_begins_and_ends_while_the_disk_is_read(tmp_path: Path) -> None:
    """The reading may have passed it already: the sums are right all the same."""
    left = {"ann-1": 10, "ann-2": 20}

    def read() -> Iterator[tuple[str, int]]:
        yield from list(left.items())
        if len(left) == 2:
            left["ann-3"] = 5
            ledger.begin("ann-3", 5)
            del left["ann-1"]
            ledger.end("ann-1")

    ledger = Ledger(lambda: [])
    ledger.load()
    ledger.begin("ann-1", 10)
    ledger.begin("ann-2", 20)
    ledger._read = read
    assert ledger.read_again(most_often_s=0)
    assert ledger.missing_bytes() == sum(left.values()) == 25
    assert ledger.moving_bytes(60) == 25
    assert ledger.count("ann") == 2


def test_what_nobody_adds_to_holds_up_no_stage(tmp_path: Path) -> None:
    """What an upload may still write counts for the daemon while bytes come, and again once they do."""
    clock = [0.0]
    left = {"ann-1": 10, "ann-2": 20}
    ledger = Ledger(left.items, lambda: clock[0])
    assert ledger.moving_bytes(3600) == 0, "nothing was read yet"
    assert ledger.missing_bytes() == 30
    assert ledger.moving_bytes(3600) == 30
    clock[0] = 3000.0
    ledger.left("ann-2", 15)
    left["ann-2"] = 15
    clock[0] = 4000.0
    assert ledger.moving_bytes(3600) == 15
    assert ledger.read_again()
    assert ledger.moving_bytes(3600) == 15, "a look at the disk adds nothing"
    assert ledger.missing_bytes() == 25


@pytest.mark.parametrize(
    ("text", "age_s", "found"),
    [
        ('{"bytes": 7}', 0, 7), ('{"bytes": 7}', 3600, 0), ('{"bytes": 7}', -3600, 0),
        ('{"bytes": -7}', 0, 0), ('{"bytes": 1e999}', 0, 0), ('{"bytes": "7"}', 0, 0),
        ("[7]", 0, 0), ("", 0, 0),
    ],
)  # fmt: skip
def test_only_a_panel_that_runs_is_believed(
    tmp_path: Path, text: str, age_s: float, found: int
) -> None:
    """What it stated long ago, or what somebody else wrote there, keeps no room."""
    (tmp_path / ".uploads").mkdir()
    path = announced.path_of(tmp_path)
    path.write_text(text)
    now = path.stat().st_mtime + age_s
    assert announced.read(tmp_path, now) == found
    path.unlink()
    assert announced.read(tmp_path, now) == 0


def test_what_is_announced_does_not_expire(tmp_path: Path) -> None:
    """The panel writes it again when there is something to say."""
    store, _ = begun(tmp_path, "a.svs")
    part = announced.Part(tmp_path)
    part.state(10)
    path = announced.path_of(tmp_path)
    assert store.expire(path.stat().st_mtime + 2 * EXPIRES_S) == 1
    left = sorted(one.name for one in (tmp_path / ".uploads").iterdir())
    assert left == [".room.json", ".room.lock"]


def test_each_panel_has_a_part_of_its_own(tmp_path: Path) -> None:
    """The daemon counts their sum; one that ended leaves its place to the next one, whose words replace its own."""
    (tmp_path / ".uploads").mkdir()
    one, other = announced.Part(tmp_path), announced.Part(tmp_path)
    one.state(10)
    other.state(7)
    assert announced.read(tmp_path) == 17
    assert (one.others(), other.others()) == (7, 10)
    other.state(3)
    assert announced.read(tmp_path) == 13
    # As the kernel does for one that was killed.
    one.close()
    again = announced.Part(tmp_path)
    assert again.others() == 3
    again.state(5)
    assert announced.read(tmp_path) == 8
    again.state(0)
    assert announced.read(tmp_path) == 3


def test_a_lock_that_was_removed_is_taken_again(tmp_path: Path) -> None:
    """Somebody has emptied the folder: two panels still never write into one file."""
    (tmp_path / ".uploads").mkdir()
    one, other = announced.Part(tmp_path), announced.Part(tmp_path)
    one.state(10)
    for path in (tmp_path / ".uploads").iterdir():
        path.unlink()
    other.state(7)
    one.state(11)
    assert announced.read(tmp_path) == 18


def test_more_panels_than_places_say_so(tmp_path: Path) -> None:
    """The seventeenth cannot state its room, and overwrites nobody's."""
    (tmp_path / ".uploads").mkdir()
    parts = [announced.Part(tmp_path) for _ in range(17)]
    for one in parts[:16]:
        one.state(1)
    with pytest.raises(BlockingIOError, match="16 panels"):
        parts[16].state(1)
    assert announced.read(tmp_path) == 16


def test_beside_another_panel_each_announces_its_own(tmp_path: Path) -> None:
    """An upload counts once, with the panel that it grows through."""
    stated = {"a": 0, "b": 0}
    clock = [0.0]

    def panel(others: str) -> Store:
        store = Store(tmp_path, others=lambda: stated[others])
        store.ledger = Ledger(
            lambda: ((one.token, one.announced.size - one.offset) for one in store.unfinished()),
            lambda: clock[0],
            others=lambda: stated[others],
        )
        return store

    a, b = panel("b"), panel("a")
    made = a.create(Announced(path="a.svs", size=10, user="ann"), "ann")
    stated["a"] = a.ledger.moving_bytes(3600)
    assert stated["a"] == 10
    # The other one starts beside it: it knows of the upload, and does not announce it.
    b.ledger.load()
    assert b.ledger.missing_bytes() == 10
    assert b.ledger.moving_bytes(3600) == 0
    b.create(Announced(path="b.svs", size=5, user="bob"), "bob")
    assert b.ledger.moving_bytes(3600) == 5
    # What the other one has taken on since the disk was read is counted before it is read again.
    stated["b"] = 5
    assert a.ledger.missing_bytes() == 15
    clock[0] += 60
    a.ledger.follow()
    assert (a.ledger.missing_bytes(), a.ledger.moving_bytes(3600)) == (15, 10)
    assert a.count("bob") == 1
    # Now it grows through the other panel, and changes over to it.
    made.bytes_at.write_bytes(bytes(4))
    b.ledger.left(made.token, 6)
    assert b.ledger.moving_bytes(3600) == 11
    clock[0] += 60
    a.ledger.follow()
    assert a.ledger.moving_bytes(3600) == 0
    # That one was killed, and what it stated is no longer fresh: nobody adds to its uploads.
    stated["b"] = 0
    clock[0] += 60
    a.ledger.follow()
    assert a.ledger.moving_bytes(3600) == 0
    assert a.ledger.missing_bytes() == 11
    # Started again, and by itself now, it announces what it finds.
    stated["a"] = 0
    b = panel("a")
    b.ledger.load()
    assert b.ledger.moving_bytes(3600) == 11


def test_one_of_a_folder_goes_on_where_it_was(tmp_path: Path) -> None:
    """The same file of the same group is the upload that is there, and counts once."""
    store = Store(tmp_path)
    wanted = Announced(path="case/a.svs", size=10, user="ann", group="case-2026", files=2)
    made = store.create(wanted, "ann")
    with store.writing(made) as descriptor:
        os.write(descriptor, b"abcde")
    assert store.known(wanted, "ann") == made
    assert store.create(wanted, "ann").offset == 5
    assert store.count("ann") == 1
    assert store.known(replace(wanted, path="case/b.svs"), "ann") is None
    with pytest.raises(FileExistsError):
        store.known(replace(wanted, size=11), "ann")
