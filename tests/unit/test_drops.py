"""What is known of recent drops: as much as notes need, however many members an archive has."""

from __future__ import annotations

import gc
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from cytowatch.observe import drops
from cytowatch.observe.drops import Drops
from cytowatch.observe.wording import Seen
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
    assert "96 of 100 slides and images can be used so far, 1 failed" in made["root"].text
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
    known.expire(NOW)
    assert known.notes().keys() == {"d-0", "d-16", "d-17", "d-18", "d-19"}
