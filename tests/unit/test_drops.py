"""What is known of recent drops: as much as notes need, however many members an archive has."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import stat
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cytowatch.observe import drops, wording
from cytowatch.observe.drops import Drops
from cytowatch.observe.feedback import Note, Notes
from cytowatch.observe.seen import Seen
from cytowatch.record.status import Status

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def member(number: int, status: Status, root: str = "root", **more: object) -> Seen:
    what = {
        "id": f"{root}-{number}", "parent_id": root, "user": "ann", "path": f"a.zip/{number}.png",
        "status": status, "share": 0.0, "at": NOW, "received_at": "2026-11-29T12:00:00+00:00",
        "reason": "damaged" if status.is_error else None, **more,
    }  # fmt: skip
    return Seen(**what)  # type: ignore[arg-type]


def archive(known: Drops, members: int, root: str = "root", **more: object) -> None:
    what = {"id": root, "parent_id": None, "path": "a.zip", "children": members, **more}
    known.put(root, member(0, Status.EXTRACTED, root, **what))


def held_bytes(members: int) -> int:
    """What is held after an archive of so many, each of which was in work and succeeded."""
    gc.collect()
    tracemalloc.start()
    known = Drops(keep_for=timedelta(days=7))
    archive(known, members)
    for number in range(1, members + 1):
        for status in (Status.CONVERTING, Status.CONVERTED):
            known.put("root", member(number, status))
    known.notes()
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert known.notes()["root"].says == f"EXTRACTED {members:,} of {members:,}"
    return held


def test_memory_does_not_grow_with_the_members_of_an_archive() -> None:
    """Beyond those that its note lists they are counted."""
    assert held_bytes(8_000) < 1.05 * held_bytes(4_000)


def test_a_folder_of_which_nothing_is_done_yet_counts_nothing() -> None:
    """A count of nothing says nothing."""
    known = Drops(keep_for=timedelta(days=7))
    what = {"id": "root", "parent_id": None, "path": "case", "is_folder": True}
    known.put("root", member(0, Status.EXTRACTING_DATA, "root", **what))
    text = known.notes()["root"].text
    assert "It is being processed: nothing of it is done yet.\n" in text
    assert "0 of 0" not in text


def test_what_failed_among_very_many_is_told_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in work and those that failed are known one by one; all are counted."""
    monkeypatch.setattr(drops, "_MOST_DONE", 10)
    known = Drops(keep_for=timedelta(days=7))
    archive(known, 100)
    for number in range(1, 101):
        known.put("root", member(number, Status.CONVERTING))
        if number > 97:
            continue
        known.put(
            "root", member(number, Status.ERROR_CONVERSION if number == 50 else Status.CONVERTED)
        )
    made = known.notes()
    assert made.keys() == {"root", "root-50"}
    assert made["root"].says == "EXTRACTED 100, 90% DONE, 1 FAILED"
    assert "96 of 100 slides and images can be used up to now, 1 failed" in made["root"].text
    assert "… and 86 more" in made["root"].text
    for number in (98, 99, 100):
        known.put("root", member(number, Status.CONVERTED))
    assert known.notes()["root"].says == "EXTRACTED 99 of 100, 1 FAILED"
    # One that is reported again is not another one.
    known.put("root", member(1, Status.CONVERTED))
    assert known.notes()["root"].says == "EXTRACTED 99 of 100, 1 FAILED"


def test_one_of_very_many_clears_an_earlier_failure_of_its_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a member that failed, and of one that could not be unpacked."""
    monkeypatch.setattr(drops, "_MOST_DONE", 2)
    known = Drops(keep_for=timedelta(days=7))
    archive(known, 1, "old", skipped=(("8.png", "damaged", 1, True),))
    known.put("old", member(7, Status.ERROR_CONVERSION, "old"))
    assert known.notes()["old"].says == "EXTRACTED 0 of 2, 2 FAILED"
    later = "2026-11-29T13:00:00+00:00"
    archive(known, 9, "new", received_at=later, path="b.zip")
    for number in range(1, 10):
        known.put("new", member(number, Status.CONVERTED, "new", received_at=later))
    made = known.notes()
    assert made["new"].says == "EXTRACTED 9 of 9"
    assert made["old"].says == "EXTRACTED 1 of 1"


def test_of_very_many_drops_those_that_ended_first_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is in work stays."""
    monkeypatch.setattr(drops, "_MOST_DROPS", 5)
    known = Drops(keep_for=timedelta(days=7))
    for number in range(20):
        status = Status.CONVERTING if number == 0 else Status.DEPLOYED
        one = member(
            number,
            status,
            id=f"d-{number}",
            parent_id=None,
            path=f"{number}.svs",
            at=NOW + timedelta(seconds=number),
        )
        known.put(one.id, one)
    known.expire()
    assert known.notes().keys() == {"d-0", "d-16", "d-17", "d-18", "d-19"}


def test_a_clock_that_is_set_neither_hides_nor_keeps_a_failure() -> None:
    """Which of two drops of a path came later is known without the wall clock, and so is how long a note is kept."""
    seconds = 0.0
    known = Drops(keep_for=timedelta(days=7), monotonic=lambda: seconds)
    known.came(["first", "again"])
    # It was an hour ahead when the first one came.
    known.put("first", _seen("first", "a.svs", Status.DEPLOYED, "2026-11-29T11:00:00.000Z"))
    known.put("again", _seen("again", "a.svs", Status.ERROR_FORMAT, "2026-11-29T10:30:00.000Z"))
    assert known.notes().keys() == {"first", "again"}
    known.came(["third"])
    known.put("third", _seen("third", "a.svs", Status.DEPLOYED, "2000-01-01T00:00:00.000Z"))
    assert known.notes().keys() == {"first", "third"}
    seconds = 6 * 86_400.0
    known.expire()
    assert known.notes().keys() == {"first", "third"}
    seconds = 7 * 86_400.0
    known.expire()
    assert known.notes() == {}
    assert known._came == {}


def test_what_an_earlier_daemon_left_is_kept_for_the_rest_of_its_time() -> None:
    """And one that comes from the future not for ever."""
    seconds = 0.0
    known = Drops(keep_for=timedelta(days=7), monotonic=lambda: seconds)
    for id_, age_s in (("old", 6 * 86_400.0), ("future", -9e9)):
        known.put(id_, _seen(id_, f"{id_}.svs", Status.DEPLOYED), age_s=age_s)
    seconds = 86_400.0
    known.expire()
    assert known.notes().keys() == {"future"}
    seconds = 7 * 86_400.0
    known.expire()
    assert known.notes() == {}


def test_one_that_waits_for_the_machine_says_so() -> None:
    """By itself and in the note of its archive, until it goes on; that it waits for another one is nobody's business."""
    known = Drops(keep_for=timedelta(days=7))
    known.put("one", _seen("one", "a.svs", Status.CONVERTING))
    archive(known, 2)
    known.put("root", member(1, Status.CONVERTING))
    for why, says in (("duplicate", "CONVERTING"), ("input_output", "CONVERTING, disk fault")):
        known.held_up("one", why)
        assert known.notes()["one"].says == says
    known.held_up("root-1", "disk")
    known.held_up("gone", "disk")
    made = known.notes()
    assert (
        "It waits (CONVERTING). The disk of the server has a fault.\nWhat to do: Tell"
        in made["one"].text
    )
    assert "CONVERTING 1.png: disk full\n" in made["root"].text
    known.put("one", _seen("one", "a.svs", Status.DEPLOYING))
    assert known.notes()["one"].says == "DEPLOYING"


def unpacked(
    root: str, path: str, received_at: str, *, children: int = 1, skipped: Any = ()
) -> Seen:
    return _seen(root, path, Status.EXTRACTED, received_at, children=children, skipped=skipped)


def _seen(
    id_: str, path: str, status: Status, received_at: str = "2026-11-29T10:00:00.000Z", **more: Any
) -> Seen:
    return Seen(
        id=id_, parent_id=None, user="ann", path=path, status=status, share=0.0,
        at=datetime.fromisoformat(received_at), received_at=received_at, **more,
    )  # fmt: skip


LATER = "2026-11-29T11:00:00.000Z"


def says(known: Drops) -> dict[str, str]:
    return {note.about: note.says for note in known.notes().values()}


def test_a_failure_is_cleared_by_the_same_path() -> None:
    """A single file gives way to the next try that has ended; another name clears nothing."""
    known = Drops(keep_for=timedelta(days=7))
    known.put("1", _seen("1", "a.jpg", Status.ERROR_CONVERSION, reason="damaged"))
    known.put("2", _seen("2", "b.jpg", Status.DEPLOYED, LATER))
    assert says(known) == {"a.jpg": "FAILED, damaged", "b.jpg": "DEPLOYED"}
    known.put("3", _seen("3", "a.jpg", Status.CONVERTING, LATER))
    assert len(known.notes()) == 3
    known.put("3", _seen("3", "a.jpg", Status.CONVERTED, LATER))
    assert says(known) == {"a.jpg": "CONVERTED", "b.jpg": "DEPLOYED"}
    known.forget("3")
    assert says(known)["a.jpg"] == "FAILED, damaged"


def test_a_member_is_cleared_in_its_archive() -> None:
    """By the same member of the next archive of that name; what was lost, too."""
    known = Drops(keep_for=timedelta(days=7))
    lost = (("lost.svs", "damaged: x", 1, True),)
    known.put("1", unpacked("1", "b.zip", "2026-11-29T10:00:00.000Z", children=2, skipped=lost))
    known.put("1", _seen("1a", "b.zip/bad.svs", Status.ERROR_FORMAT, reason="incomplete"))
    known.put("1", _seen("1b", "b.zip/good.svs", Status.DEPLOYED))
    assert says(known) == {
        "b.zip": "EXTRACTED 1 of 3, 2 FAILED", "bad.svs in b.zip": "FAILED, incomplete",
    }  # fmt: skip
    known.put("2", unpacked("2", "b.zip", LATER, children=2))
    known.put("2", _seen("2a", "b.zip/bad.svs", Status.DEPLOYED, LATER))
    # The newer one has ended, and the older one still lacks a member: it gives way.
    assert says(known) == {"b.zip": "EXTRACTED 2, 50% DONE"}
    known.put("2", _seen("2b", "b.zip/lost.svs", Status.DEPLOYED, LATER))
    assert sorted(note.says for note in known.notes().values()) == [
        "EXTRACTED 2 of 2", "EXTRACTED 2 of 2",
    ]  # fmt: skip


def test_one_name_in_two_folders() -> None:
    """Told apart by the folder; with many folders the file and the drop stay."""
    known = Drops(keep_for=timedelta(days=7))
    for number in (1, 2):
        path = f"case-10{number}"
        known.put(path, _seen(path, path, Status.EXTRACTED, children=1, is_folder=True))
        known.put(path, _seen(f"{number}", f"{path}/HE.svs", Status.ERROR_FORMAT, reason="damaged"))
    assert {"HE.svs in case-101", "HE.svs in case-102"} <= says(known).keys()
    deep = "/".join(["batch.zip", *["folder" * 4] * 9, "HE.svs"])
    assert wording.about(deep) == "HE.svs in … in batch.zip"


def test_many_notes_are_sorted_by_day(tmp_path: Path) -> None:
    """What ended well goes to a folder for its day; what needs a person stays where it is seen first."""
    (tmp_path / "status").mkdir()
    notes = Notes(tmp_path, "status")
    few = {
        f"{n}": Note(
            user="ann", about=f"{n}.svs", says="DEPLOYED", text="x", day=f"2026-11-2{n % 2}"
        )
        for n in range(50)
    }
    bad = {"bad": Note(user="ann", about="z.svs", says="FAILED, damaged", text="x", first=True)}
    notes.show({**few, **bad})
    folder = tmp_path / "status" / "ann"
    assert len(list(folder.iterdir())) == 51
    many = {f"{key}{n}": note for key, note in few.items() for n in range(3)}
    Notes(tmp_path, "status").show({**many, **bad})
    assert sorted(path.name for path in folder.iterdir()) == [
        "! z.svs - FAILED, damaged.txt", "2026-11-20", "2026-11-21",
    ]  # fmt: skip
    assert len(list(folder.glob("2026-11-20/*.txt"))) == 75
    Notes(tmp_path, "status").show(bad)
    assert [path.name for path in folder.iterdir()] == ["! z.svs - FAILED, damaged.txt"]


def some_notes(user: str, count: int) -> dict[str, Note]:
    """That many notes of `user`, by what they are about."""
    return {
        f"{user}/{one}": Note(user=user, about=f"{one}.svs", says="CONVERTED", text=f"{one}")
        for one in range(count)
    }


def test_many_notes_of_one_user_hold_up_nobody_else_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When time is up, the next user is first; in the end all are there."""
    looks = itertools.count()
    monkeypatch.setattr("cytowatch.observe.feedback.time.monotonic", lambda: float(next(looks)))
    notes = Notes(tmp_path, "status")
    (tmp_path / "status").mkdir()
    notes.show({**some_notes("ann", 500), **some_notes("bob", 1)}, until=100.0)
    assert len(list((tmp_path / "status" / "ann").iterdir())) == 100
    assert not (tmp_path / "status" / "bob").exists()
    rounds = 0
    while notes.is_behind:
        rounds += 1
        notes.go_on(until=100.0 * rounds + 100)
        assert len(list((tmp_path / "status" / "bob").iterdir())) == 1
    assert rounds == 5
    assert len(list((tmp_path / "status" / "ann").glob("*.txt"))) == 500
    notes.show({}, until=0.0)
    assert notes.is_behind
    notes.go_on()
    assert not notes.is_behind
    assert not list((tmp_path / "status").glob("*/*"))


@pytest.mark.parametrize("day", [None, "2026-11-29"])
def test_a_start_leaves_the_notes_that_still_say_the_same(tmp_path: Path, day: str | None) -> None:
    """One that was changed, made something else, or is not for everyone to read is written again."""
    wanted = {
        key: dataclasses.replace(note, day=day) for key, note in some_notes("ann", 101).items()
    }
    (tmp_path / "status").mkdir()
    Notes(tmp_path, "status").show(wanted)
    folder = tmp_path / "status" / "ann" / (day or "")
    before = {path.name: path.stat() for path in folder.iterdir()}
    changed, other, closed, *_ = sorted(before)
    (folder / changed).write_text("x")
    (folder / other).unlink()
    os.mkfifo(folder / other)
    (folder / closed).chmod(0o600)
    Notes(tmp_path, "status").show(wanted)
    after = {path.name: path.stat() for path in folder.iterdir()}
    assert after.keys() == before.keys()
    written = {name for name, told in after.items() if told.st_ino != before[name].st_ino}
    assert written == {changed, other, closed}
    texts = {path.name.partition(".")[0]: path.read_text() for path in folder.iterdir()}
    assert all(name == text for name, text in texts.items())
    assert {stat.S_IMODE(told.st_mode) for told in after.values()} == {0o644}
