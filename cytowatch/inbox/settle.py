"""When a drop is quiet: a class that is given what was seen and when, and does nothing else.

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


#: Up to so many drops of one user are all compared whenever what is due is asked for; of more, the
#: next time is so much later for each of them.
_FEW = 2_000
_PAUSE_FOR_EACH_S = 1e-5


@dataclass(slots=True, kw_only=True)
class Track:
    """What is known of one drop; times are seconds of our monotonic clock."""

    drop: Drop
    first_seen: float
    changed_at: float
    due_at: float | None
    waiting: Waiting | None
    claiming: bool = False
    #: False of what can never be claimed as it is: a link, a device.
    claimable: bool = True
    incomplete: bool = False
    #: Not before this, anything that has been quiet: somebody had it open.
    not_before: float = 0.0
    #: The path of the head of the set that it belongs to, if it is not the head itself.
    part_of: str | None = None


class Settler:
    """Guards that a drop is offered for a claim only after `quiet_s` without any change."""

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
        """Go on with other times; what is due already stays so.

        `own` gives (`quiet_s`, `incomplete_after_s`) of a user, where they differ.
        """
        self._times: Times = own or (lambda _user: (quiet_s, incomplete_after_s))

    def _quiet_s(self, track: Track) -> float:
        return self._times(track.drop.user)[0]

    @property
    def tracks(self) -> Iterable[Track]:
        """Everything that lies in the inboxes, as it was seen last."""
        return (track for tracks in self._tracks.values() for track in tracks.values())

    @property
    def users(self) -> set[str]:
        """Those in whose inboxes something lies."""
        return set(self._tracks)

    def knows(self, path: str) -> bool:
        """Whether something lies at `path`."""
        return path in self._tracks.get(path.split("/", 1)[0], self._tracks.get("", {}))

    def has_any(self, user: str) -> bool:
        """Whether something lies in the inbox of `user`."""
        return bool(self._tracks.get(user))

    def of_user(self, user: str) -> list[Track]:
        """What lies in the inbox of `user`; with "" what lies beside the inboxes."""
        return list(self._tracks.get(user, {}).values())

    def see(self, drop: Drop, never: Waiting | None, now: float) -> bool:
        """Take note of `drop` as it is at `now`; returns whether it was unknown.

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
                waiting=never or _SETTLING,
                claimable=never is None,
            )
            return track is None
        if track.drop.fingerprint != drop.fingerprint and not track.claiming:
            track.drop, track.changed_at, track.incomplete = drop, now, False
            track.not_before = 0.0
            track.due_at = None if never else now + quiet_s
            track.waiting = never or _SETTLING
            track.claimable = never is None
        return False

    def forget_missing(self, user: str, present: set[str]) -> None:
        """Drop what lay in the inbox of `user` and is not among `present` any more."""
        tracks = self._tracks.get(user, {})
        for path in [p for p, t in tracks.items() if p not in present and not t.claiming]:
            del tracks[path]
        if not tracks:
            self._tracks.pop(user, None)
            self._again_at.pop(user, None)

    def due(self, now: float) -> list[Track]:
        """What has been quiet long enough, oldest first; each is to be looked at again now."""
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
        """When `due` gives something next, or is to be asked again."""
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
        """Whether what `user` changed last at `changed_at` has waited as long as it may."""
        return now >= changed_at + self._times(user)[1]

    def busy(
        self, track: Track, waiting: Waiting, now: float, *, quiet_s: float | None = None
    ) -> None:
        """Somebody still writes it (or it must be quiet for longer): the quiet time begins again."""
        track.claiming = False
        track.waiting = waiting
        track.not_before = now + (self._quiet_s(track) if quiet_s is None else quiet_s)
        track.due_at = track.not_before

    def lacking(self, track: Track, waiting: Waiting, *, changed_at: float | None = None) -> None:
        """It is incomplete: it is looked at again on a change, or when its time is up.

        `changed_at` is when anything of its set changed last.
        """
        track.claiming = False
        track.incomplete = True
        track.waiting = waiting
        since = track.changed_at if changed_at is None else changed_at
        track.due_at = since + self._times(track.drop.user)[1]

    def ready_at(self, track: Track, *, quiet_s: float = 0.0) -> float:
        """When it may be claimed at the earliest, as far as its own quiet goes."""
        return max(track.changed_at + max(self._quiet_s(track), quiet_s), track.not_before)

    def until(self, track: Track, when: float) -> None:
        """It waits for others of its set: it is looked at again at `when`."""
        track.due_at = when
        track.waiting = _SETTLING

    def stuck(self, track: Track, waiting: Waiting) -> None:
        """It cannot be claimed as it is: it is looked at again when something about it changes."""
        track.claiming = False
        track.waiting = waiting
        track.due_at = None

    def unmarked(self, track: Track, now: float) -> None:
        """It needs no marker any more: its quiet decides."""
        track.waiting = _SETTLING
        track.due_at = max(now, self.ready_at(track))

    def claimed(self, track: Track) -> None:
        """It has left the inbox."""
        tracks = self._tracks.get(track.drop.user, {})
        if tracks.get(track.drop.path) is track:
            del tracks[track.drop.path]
