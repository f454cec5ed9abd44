"""Settling: quiet on our own clock, only from looks."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cytowatch.inbox.settle import Settler, Track
from cytowatch.record.drop import Drop, Fingerprint, Waiting


def drop(size: int = 1, *, inode: int = 7, mtime_ns: int = 0, path: str = "ann/a.svs") -> Drop:
    return Drop(
        user=path.split("/", maxsplit=1)[0],
        path=path,
        project=None,
        fingerprint=Fingerprint(
            device=1, inode=inode, size_bytes=size, mtime_ns=mtime_ns, ctime_ns=0, blocks=8
        ),
    )


def settler() -> Settler:
    return Settler(quiet_s=10, incomplete_after_s=100)


def only(watched: Settler, now: float) -> Track:
    [track] = watched.due(now)
    return track


def test_a_drop_is_due_after_quiet_s_and_not_before() -> None:
    """Quiet is counted from the first look."""
    watched = settler()
    assert watched.see(drop(), None, 0.0)
    assert watched.due(9.99) == []
    assert only(watched, 10.0).drop == drop()


def test_every_change_begins_the_quiet_time_anew() -> None:
    """Size, times, inode: any difference is a change, even a time that a client sets to 2018."""
    watched = settler()
    watched.see(drop(1), None, 0.0)
    assert not watched.see(drop(2), None, 9.0)
    assert watched.due(18.9) == []
    watched.see(drop(2, mtime_ns=1_500_000_000), None, 18.9)
    assert watched.due(28.8) == []
    watched.see(drop(2, inode=8), None, 28.8)
    assert watched.due(38.7) == []
    assert only(watched, 38.8)


def test_a_writer_begins_the_quiet_time_anew() -> None:
    """A client may still verify or set times after its close, so its close is a change."""
    watched = settler()
    watched.see(drop(), None, 0.0)
    track = only(watched, 10.0)
    watched.busy(track, Waiting(why="open_for_writing", detail=""), 10.0)
    assert watched.due(19.9) == []
    assert only(watched, 20.0) is track


def test_what_lacks_something_is_due_when_its_time_is_up_or_when_it_changes() -> None:
    """It is not read again and again: only a write can complete it."""
    watched = settler()
    watched.see(drop(), None, 0.0)
    watched.lacking(only(watched, 10.0), Waiting(why="incomplete", detail="missing its end"))
    assert watched.due(99.9) == []
    assert watched.is_late(only(watched, 100.0).changed_at, 100.0, "ann")
    watched.see(drop(2), None, 50.0)
    assert not watched.is_late(only(watched, 60.0).changed_at, 60.0, "ann")


def test_what_is_no_file_is_never_due() -> None:
    """It waits with its reason, at any time."""
    watched = settler()
    never = Waiting(why="not_a_regular_file", detail="")
    watched.see(drop(), never, 0.0)
    assert watched.due(1e9) == []
    assert [track.waiting for track in watched.tracks] == [never]


def test_what_is_still_copied_by_its_name_waits_for_that_only_once_it_is_quiet() -> None:
    """While it grows it arrives as anything else does; it is never due, and each change begins again."""
    watched = settler()
    never = Waiting(why="temporary_name", detail="", once_quiet=True)

    def why(size: int, now: float) -> list[str]:
        watched.see(drop(size), never, now)
        assert watched.due(1e9) == []
        return [track.waiting.why for track in watched.tracks if track.waiting]

    assert why(1, 0.0) == why(1, 9.9) == ["settling"]
    assert why(1, 10.0) == ["temporary_name"]
    assert why(2, 11.0) == why(2, 20.9) == ["settling"]
    assert why(2, 21.0) == ["temporary_name"]


def test_a_drop_that_is_taken_away_is_forgotten_but_not_while_it_is_claimed() -> None:
    """The claim itself takes it away."""
    watched = settler()
    watched.see(drop(), None, 0.0)
    watched.see(drop(path="bob/b.svs", inode=9), None, 0.0)
    only_ann = next(t for t in watched.due(10.0) if t.drop.user == "ann")
    only_ann.claiming = True
    watched.forget_missing("ann", set())
    watched.forget_missing("bob", set())
    assert [track.drop.user for track in watched.tracks] == ["ann"]


@given(st.lists(st.tuples(st.floats(0.01, 30), st.integers(0, 2)), min_size=1, max_size=40))
def test_never_due_within_quiet_s_of_a_change(looks: list[tuple[float, int]]) -> None:
    """However often it is looked at: what is due has been the same for `quiet_s`."""
    watched, now, seen, changed = settler(), 0.0, None, 0.0
    for pause, size in looks:
        now += pause
        if size != seen:
            seen, changed = size, now
        watched.see(replace(drop(size)), None, now)
        assert bool(watched.due(now)) == (now >= changed + 10)
