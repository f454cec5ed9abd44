"""When something that cannot be claimed now is tried again, depending on the reason."""

from __future__ import annotations

import structlog

from cytowatch.inbox import scan
from cytowatch.inbox.gather import Bundle
from cytowatch.inbox.own import Own
from cytowatch.inbox.rooms import Room
from cytowatch.inbox.settle import Settler, Track
from cytowatch.record import names
from cytowatch.record.drop import Waiting

__all__ = ["LOOK_AGAIN_S", "PAUSED", "Later"]

#: Seconds until the next try of a drop that cannot be claimed because of how the machine is set up.
LOOK_AGAIN_S = 60.0
PAUSED = Waiting(why="paused", detail="the administrator has paused it; it is taken later")
_LOOK_FOR_RESUME_S = 0.5
_LOOK_FOR_ROOM_S = 1.0
#: The least time until a drop that was set aside is tried again.
_SOON_S = 1.0


#: Reasons of how the machine is set up, which the log names once for each drop.
_LOGGED = frozenset({"not_permitted", "other_filesystem"})
#: So many of one user in an hour: a folder with very many of them says the same of each.
_MOST_LOGGED = 20
_HOUR_S = 3600.0


class Later:
    """Ensures that everything that is put off has a time for the next try, or a change to wait for."""

    def __init__(self, settler: Settler, own: Own) -> None:
        self._settler = settler
        self._own = own
        #: Of each user how many were logged since when.
        self._logged: dict[str, tuple[int, float]] = {}

    def paused(self, track: Track, now: float) -> None:
        """Let `track` wait until the administrator lets its user continue."""
        self._settler.busy(track, PAUSED, now, quiet_s=_LOOK_FOR_RESUME_S)

    def hold(self, now: float, lacks: str) -> None:
        """Start nothing, because the disk `lacks` something; quiet drops wait for that."""
        said = f"{lacks}: nothing new is begun; it is taken when there is room"
        waiting = Waiting(why="disk", detail=said)
        for track in self._settler.due(now):
            if track.drop.user:
                self._settler.busy(track, waiting, now, quiet_s=_LOOK_FOR_ROOM_S)

    def put_aside(
        self, tracks: tuple[Track, ...], why: str, now: float, next_at: float = 0.0
    ) -> None:
        """Let `tracks` wait until they are tried again."""
        for track in tracks:
            self._settler.busy(track, scan.set_aside(why), now, quiet_s=max(next_at - now, _SOON_S))

    def put_room_aside(self, room: Room, now: float) -> None:
        """Let what is due in `room`, which could not be put together, wait until it is tried again."""
        tracks = [t for t in self._settler.of_user(room.user) if t.drop.path in room.due]
        self.put_aside(tuple(tracks), room.why or "", now, room.retry_at)

    def put_off(self, bundle: Bundle, waiting: Waiting, now: float) -> None:
        """Let `bundle` wait until the reason may be gone."""
        before = bundle.tracks[0].waiting
        if waiting.why in _LOGGED and (before is None or before.why != waiting.why):
            self._log(bundle.tracks[0], waiting, now)
        for track in bundle.tracks:
            match waiting.why:
                case "incomplete":
                    self._settler.lacking(track, waiting, changed_at=bundle.changed_at)
                case "no_lease":
                    fallback_s = self._own.of(track.drop.user).fallback_quiet_s
                    left = fallback_s - (now - bundle.changed_at)
                    self._settler.busy(track, waiting, now, quiet_s=max(0.05, left))
                case "settling":
                    track.changed_at = now
                    self._settler.busy(track, waiting, now)
                case "other_filesystem" | "unreadable":
                    self._settler.busy(track, waiting, now, quiet_s=LOOK_AGAIN_S)
                case "not_permitted":
                    # Somebody must mend it: the longer it waits, the rarer it is tried.
                    pause_s = max(_SOON_S, (now - bundle.changed_at) / 10)
                    self._settler.busy(track, waiting, now, quiet_s=min(LOOK_AGAIN_S, pause_s))
                case "not_an_image":
                    self._settler.stuck(track, waiting)
                case _:
                    self._settler.busy(track, waiting, now)

    def _log(self, track: Track, waiting: Waiting, now: float) -> None:
        count, since = self._logged.get(track.drop.user, (0, now))
        if now - since >= _HOUR_S:
            count, since = 0, now
        self._logged[track.drop.user] = count + 1, since
        if count < _MOST_LOGGED:
            path = names.printable(track.drop.path)
            structlog.get_logger().warning(
                "waits", path=path, why=waiting.why, detail=waiting.detail
            )
