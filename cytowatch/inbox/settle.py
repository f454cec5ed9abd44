"""When a drop is quiet: a class that receives what was seen and when, and does nothing else.

A drop is *settled*, and may be claimed, when all of these hold:

1. nothing about it has changed for the `quiet_s` of its user, on our own monotonic clock (clients set their
   own times, and sizes before content);
2. nobody has it open for writing, which a lease proves (`claim` asks for it);
3. its structure is complete, because a connection cut mid-write looks exactly like a normal close
   (`claim` looks).

This module keeps the first, and remembers what the claim said of the other two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cytowatch.record.drop import Drop, Waiting

__all__ = ["Settler", "Times", "Track"]

#: (seconds of quiet, seconds for what is missing) of a user.
Times = Callable[[str], tuple[float, float]]

_SETTLING = Waiting(why="settling", detail="waiting until nothing about it changes any more")


def _at_first(never: Waiting | None) -> Waiting:
    """Why a drop waits that has just changed."""
    return _SETTLING if never is None or never.once_quiet else never


#: Up to this many drops of one user, all are compared at each call of `due`; beyond it, each further
#: drop delays the next comparison by so much.
_FEW = 2_000
_PAUSE_FOR_EACH_S = 1e-5


@dataclass(slots=True, kw_only=True)
class Track:
    """The facts about one drop; times are seconds of our monotonic clock."""

    drop: Drop
    first_seen: float
    changed_at: float
    due_at: float | None
    waiting: Waiting | None
    claiming: bool = False
    #: False for drops that can never be claimed as they are: a link, a device.
    claimable: bool = True
    incomplete: bool = False
    #: Not claimed before this time even if quiet, because somebody had it open.
    not_before: float = 0.0
    #: The path of the head of the set that it belongs to, if it is not the head itself.
    part_of: str | None = None


class Settler:
    """Ensures that a drop is offered for a claim only after `quiet_s` without any change."""

    def __init__(
        self, *, quiet_s: float, incomplete_after_s: float, own: Times | None = None
    ) -> None:
        self.reconfigure(quiet_s=quiet_s, incomplete_after_s=incomplete_after_s, own=own)
        #: By user and path.
        self._tracks: dict[str, dict[str, Track]] = {}
        #: When `due` looks again at what those have of whom there is very much.
        self._again_at: dict[str, float] = {}

    def reconfigure(
        self, *, quiet_s: float, incomplete_after_s: float, own: Times | None = None
    ) -> None:
        """Use other times from now on; drops that are already due stay so.

        `own` gives (`quiet_s`, `incomplete_after_s`) of a user, where they differ.
        """
        self._times: Times = own or (lambda _user: (quiet_s, incomplete_after_s))

    def _quiet_s(self, track: Track) -> float:
        return self._times(track.drop.user)[0]

    @property
    def tracks(self) -> Iterable[Track]:
        """Every drop in the inboxes, as last seen."""
        return (track for tracks in self._tracks.values() for track in tracks.values())

    @property
    def users(self) -> set[str]:
        """The users whose inboxes are not empty."""
        return set(self._tracks)

    def knows(self, path: str) -> bool:
        """Whether there is a drop at `path`."""
        return path in self._tracks.get(path.split("/", 1)[0], self._tracks.get("", {}))

    def has_any(self, user: str) -> bool:
        """Whether there is a drop in the inbox of `user`."""
        return bool(self._tracks.get(user))

    def of_user(self, user: str) -> list[Track]:
        """The drops in the inbox of `user`; with "" those beside the inboxes."""
        return list(self._tracks.get(user, {}).values())

    def see(self, drop: Drop, never: Waiting | None, now: float) -> bool:
        """Note `drop` as it is at `now`; return whether it was unknown.

        `never` is the reason why it can never be claimed as it is.
        """
        quiet_s, _ = self._times(drop.user)
        tracks = self._tracks.setdefault(drop.user, {})
        track = tracks.get(drop.path)
        if track is None or track.drop.fingerprint.inode != drop.fingerprint.inode:
            tracks[drop.path] = Track(
                drop=drop,
                first_seen=now,
                changed_at=now,
                due_at=None if never else now + quiet_s,
                waiting=_at_first(never),
                claimable=never is None,
            )
            return track is None
        if track.drop.fingerprint != drop.fingerprint and not track.claiming:
            track.drop, track.changed_at, track.incomplete = drop, now, False
            track.not_before = 0.0
            track.due_at = None if never else now + quiet_s
            track.waiting = _at_first(never)
            track.claimable = never is None
        elif never is not None and never.once_quiet and now >= track.changed_at + quiet_s:
            track.waiting = never
        return False

    def forget_missing(self, user: str, present: set[str]) -> None:
        """Forget the drops of `user` that are no longer among `present`."""
        tracks = self._tracks.get(user, {})
        for path in [p for p, t in tracks.items() if p not in present and not t.claiming]:
            del tracks[path]
        if not tracks:
            self._tracks.pop(user, None)
            self._again_at.pop(user, None)

    def due(self, now: float) -> list[Track]:
        """The drops that have been quiet long enough, oldest first; each must be checked again now."""
        found: list[Track] = []
        for user, tracks in self._tracks.items():
            if len(tracks) > _FEW:
                if now < self._again_at.get(user, now):
                    continue
                # Of very many it is not asked in each turn of a loop that serves others as well.
                self._again_at[user] = now + len(tracks) * _PAUSE_FOR_EACH_S
            found += [
                track
                for track in tracks.values()
                if track.due_at is not None and track.due_at <= now and not track.claiming
            ]
        return sorted(found, key=lambda track: track.due_at or 0.0)

    def next_due(self) -> float | None:
        """When `due` will next return something, or should be called again."""
        times = [
            track.due_at
            for tracks in self._tracks.values()
            if len(tracks) <= _FEW
            for track in tracks.values()
            if track.due_at is not None and not track.claiming
        ]
        times += [
            self._again_at.get(user, 0.0)
            for user, tracks in self._tracks.items()
            if len(tracks) > _FEW
        ]
        return min(times, default=None)

    def is_late(self, changed_at: float, now: float, user: str) -> bool:
        """Whether a drop of `user` that last changed at `changed_at` has waited as long as it may."""
        return now >= changed_at + self._times(user)[1]

    def busy(
        self, track: Track, waiting: Waiting, now: float, *, quiet_s: float | None = None
    ) -> None:
        """Restart the quiet time, because somebody still writes it (or it must be quiet for longer)."""
        track.claiming = False
        track.waiting = waiting
        track.not_before = now + (self._quiet_s(track) if quiet_s is None else quiet_s)
        track.due_at = track.not_before

    def lacking(self, track: Track, waiting: Waiting, *, changed_at: float | None = None) -> None:
        """Mark it as incomplete: it is checked again on a change, or when its time is up.

        `changed_at` is when any file of its set last changed.
        """
        track.claiming = False
        track.incomplete = True
        track.waiting = waiting
        since = track.changed_at if changed_at is None else changed_at
        track.due_at = since + self._times(track.drop.user)[1]

    def ready_at(self, track: Track, *, quiet_s: float = 0.0) -> float:
        """The earliest time at which it may be claimed, by its own quiet time."""
        return max(track.changed_at + max(self._quiet_s(track), quiet_s), track.not_before)

    def until(self, track: Track, when: float) -> None:
        """Let it wait for others of its set; it is checked again at `when`."""
        track.due_at = when
        track.waiting = _SETTLING

    def stuck(self, track: Track, waiting: Waiting) -> None:
        """Mark that it cannot be claimed as it is; it is checked again when something about it changes."""
        track.claiming = False
        track.waiting = waiting
        track.due_at = None

    def unmarked(self, track: Track, now: float) -> None:
        """It no longer needs a marker: its quiet time decides."""
        track.waiting = _SETTLING
        track.due_at = max(now, self.ready_at(track))

    def claimed(self, track: Track) -> None:
        """Forget it: it has left the inbox."""
        tracks = self._tracks.get(track.drop.user, {})
        if tracks.get(track.drop.path) is track:
            del tracks[track.drop.path]
