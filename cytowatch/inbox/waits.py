"""Reports about the drops that wait in the inboxes: how many, how long, and why."""

from __future__ import annotations

import errno
import heapq
import itertools
import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from cytowatch import durable
from cytowatch.inbox.settle import Settler, Track
from cytowatch.record import manifest, names
from cytowatch.record.drop import Waiting

__all__ = ["HOPELESS", "IsOpen", "counts", "fault", "left", "listed"]

#: Whether the dropped folder at a path below ``inbox/`` is being taken.
IsOpen = Callable[[str], bool]
#: Reasons that somebody has to mend; the drop is tried again, and nothing else waits for it.
HOPELESS = frozenset(
    {"still_copied", "other_filesystem", "not_permitted", "unreadable", "set_aside"}
)

#: This many waiting drops are listed one by one; the metrics count them all.
_MOST_TOLD = 1000
_LEAST_TOLD = 20


def counts(
    settler: Settler, now: float, is_open: IsOpen
) -> tuple[Counter[str], dict[str, float], int]:
    """How many drops wait and the oldest for how many seconds, by reason; all their bytes."""
    found: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    size_bytes = 0
    for track in settler.tracks:
        size_bytes += track.drop.fingerprint.size_bytes
        if track.waiting and track.part_of is None and not _is_left(track, is_open):
            why = track.waiting.why
            found[why] += 1
            oldest[why] = max(now - track.first_seen, oldest.get(why, 0.0))
    return found, oldest, size_bytes


def listed(settler: Settler, now: float, wall: datetime, is_open: IsOpen) -> list[dict[str, Any]]:
    """The drops that have waited longest, why, since when, and until when they may, ready for JSON."""
    longest: list[Track] = []
    users = settler.users
    # Some of each user, so that very many of one hide none of the others.
    share = max(_LEAST_TOLD, _MOST_TOLD // max(1, len(users)))
    for user in users:
        heads = (
            track
            for track in settler.of_user(user)
            if track.part_of is None and not _is_left(track, is_open)
        )
        longest += heapq.nsmallest(share, heads, key=_rank)
    longest = sorted(longest, key=_rank)[:_MOST_TOLD]
    # A set is as large as all of its files that are there.
    more: Counter[str] = Counter()
    for track in settler.tracks:
        if track.part_of is not None:
            more[track.part_of] += track.drop.fingerprint.size_bytes
    return [
        _row(track, now, wall, more_bytes=more[track.drop.path])
        for track in sorted(longest, key=lambda track: track.first_seen)
    ]


def left(
    settler: Settler, now: float, wall: datetime, is_open: IsOpen, *, since: datetime
) -> list[dict[str, Any]]:
    """Files that are not images, in finished folders, and that changed after `since`.

    They wait for nothing. The rows are like those of `listed`.
    """
    oldest_ns = since.timestamp() * 1e9
    some = (
        track
        for track in settler.tracks
        if _is_left(track, is_open) and track.drop.fingerprint.ctime_ns >= oldest_ns
    )
    return [_row(track, now, wall) for track in itertools.islice(some, _MOST_TOLD)]


def _is_left(track: Track, is_open: IsOpen) -> bool:
    if track.waiting is None or track.waiting.why != "not_an_image":
        return False
    parts = track.drop.path.split("/")
    project = len(parts) > 2 and parts[1].startswith("@")
    return not is_open("/".join(parts[: 3 if project else 2]))


def _row(track: Track, now: float, wall: datetime, *, more_bytes: int = 0) -> dict[str, Any]:
    until = due_at = None
    if track.due_at is not None:
        at = manifest.utc((wall + timedelta(seconds=track.due_at - now)).replace(microsecond=0))
        until, due_at = (at, None) if track.incomplete else (None, at)
    return {
        "user": track.drop.user,
        "path": names.decode(os.fsencode(track.drop.path))[0],
        "why": track.waiting.why if track.waiting else "settling",
        "detail": track.waiting.detail if track.waiting else "",
        "size_bytes": track.drop.fingerprint.size_bytes + more_bytes,
        "since": manifest.utc(
            (wall - timedelta(seconds=now - track.first_seen)).replace(microsecond=0)
        ),
        "until": until,
        "due_at": due_at,
    }


def _rank(track: Track) -> tuple[bool, float]:
    """Drops that somebody must mend come before those that only settle, each by age."""
    return track.waiting is None or track.waiting.why == "settling", track.first_seen


def fault(error: OSError) -> Waiting:
    """Why a drop waits that met a fault of the machine."""
    if error.errno == errno.EXDEV:
        # The same filesystem, mounted a second time: only the rename shows that.
        said = "it is on another mount than the root, and a slide is renamed, never copied"
        return Waiting(why="other_filesystem", detail=said)
    if error.errno in (errno.EACCES, errno.EPERM):
        said = (
            f"it cannot be moved ({error.strerror}): it and the folder that it lies in must "
            "belong to the user of cytowatch, and be writable"
        )
        if error.errno == errno.EPERM:
            said += ", and may not be protected against changes (`lsattr` shows `i` or `a`)"
        return Waiting(why="not_permitted", detail=said)
    return Waiting(why=durable.why_of(error), detail=f"{error.strerror or error}")
