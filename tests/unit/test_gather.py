"""What lies in one room of an inbox, put together."""

from __future__ import annotations

from cytowatch.formats.sets.groups import Group
from cytowatch.inbox.gather import Bundle
from cytowatch.inbox.settle import Track
from cytowatch.record.drop import Drop, Fingerprint

HOUR = 3600
#: 2026-11-29 12:00 UTC.
NOON = 1_795_953_600


def bundle(kind: str | None, **seconds: int) -> Bundle:
    """A set of files, each with the time in seconds at which it arrived."""
    tracks = []
    for name, at in seconds.items():
        seen = Fingerprint(
            device=1,
            inode=len(tracks),
            size_bytes=1,
            mtime_ns=0,
            ctime_ns=(NOON + at) * 10**9,
            blocks=1,
        )
        drop = Drop(user="ann", path=f"ann/{name}", project=None, fingerprint=seen)
        tracks.append(Track(drop=drop, first_seen=0, changed_at=0, due_at=0, waiting=None))
    group = Group(kind=kind, members=tuple(seconds))
    return Bundle(group=group, room="ann", tracks=tuple(tracks), folder=None)


def test_a_slide_says_that_its_files_arrived_at_different_times() -> None:
    """So long after the others that it was another drop: the words give both times and the first late file."""
    said = bundle("hamamatsu-vms", head=60, a=0, late=3 * HOUR, later=3 * HOUR + 5).arrived_in_parts
    assert said is not None
    assert (
        "2 until 2026-11-29 12:01, 2 from 2026-11-29 15:00 UTC on, the first of them late" in said
    )


def test_a_slow_copy_is_one_drop() -> None:
    """However long it takes as a whole; and one image is not a slide of several files."""
    assert (
        bundle("mirax-mrxs", **{f"f{n}": n * HOUR // 2 for n in range(20)}).arrived_in_parts is None
    )
    assert bundle(None, image=0, sidecar=9 * HOUR).arrived_in_parts is None
    assert bundle("olympus-vsi", alone=0).arrived_in_parts is None
