"""Due drops, room by room: grouped in threads, and taken up in the main loop a part at a time.

To find out which files of a room are one slide, many of them must be read, and the time grows with their
number. So one thread does it for one user while the main loop serves the others.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from cytowatch import aside
from cytowatch.inbox.gather import Bundle, Gatherer, Stopped
from cytowatch.inbox.settle import Settler, Track
from cytowatch.inbox.turns import Turns

__all__ = ["Room", "Rooms"]

#: At least this many claims of a user may wait for their turn.
_LEAST_UNDER_WAY = 1000
#: The files of this many users are put together at a time.
_THREADS = 4
#: What is due and cannot be taken up now is looked at again so much later, in seconds.
_AGAIN_S = 1.0
_FOR_EACH_S = 1e-4
#: And so much later if the look at its inbox is not at an end, in seconds.
_HALF_SEEN_S = 0.1
#: The least time between two times that one room is put together, as a multiple of what it took.
_SHARE = 5.0
#: How long the bundles of one room are taken up in a turn, and those of all rooms together, in seconds.
_SLICE_S = 0.02
_TURN_S = 0.04


@dataclass(slots=True, kw_only=True)
class Room:
    """A room in which something is due: the paths of what is, and what was put together.

    `faults` says of each file that could not be looked into why; `why` is set where the room as a whole
    could not be put together, and `retry_at` when it is tried again. So many claims as `most` may be
    under way for its user; `is_part` says that there is more than `bundles`. `meanwhile` has, by their
    paths, the drops that became due while the room was being put together, with the time that each was given.
    """

    name: str
    user: str
    due: set[str]
    bundles: deque[Bundle] = field(default_factory=deque)
    faults: dict[str, str] = field(default_factory=dict)
    why: str | None = None
    retry_at: float = 0.0
    took_s: float = 0.0
    most: int = 0
    is_part: bool = False
    meanwhile: dict[str, tuple[Track, float]] = field(default_factory=dict)


class Rooms:
    """Guards which rooms are being put together; for the main thread only.

    Parameters
    ----------
    wake
        Called from other threads when there is something for the main loop.
    """

    def __init__(self, settler: Settler, gatherer: Gatherer, wake: Callable[[], None]) -> None:
        self._settler = settler
        self._gatherer = gatherer
        self._wake = wake
        self._turns = Turns(self._gather, failed=self._not_gathered, threads=_THREADS, of_one=1)
        #: What is being put together or taken up, by the room's name.
        self._gathering: dict[str, Room] = {}
        self._gathered: deque[Room] = deque()
        self._open: OrderedDict[str, Room] = OrderedDict()

    @property
    def busy(self) -> bool:
        """Whether something is being put together, or waits to be taken up."""
        return bool(self._gathering)

    @property
    def has_more(self) -> bool:
        """Whether something that was put together waits for the next turn."""
        return bool(self._open)

    def begin(self, now: float, due: list[Track], *, skip: Callable[[str], bool]) -> None:
        """Begin to put together the rooms in which something of `due` lies; `skip` says of whom none."""
        rooms: dict[tuple[str, str], list[Track]] = {}
        for track in due:
            rooms.setdefault((track.drop.room, track.drop.user), []).append(track)
        for (name, user), tracks in rooms.items():
            gathering = self._gathering.get(name)
            begins = gathering is None and not skip(user)
            # By then its room has been put together: the loop would not sleep for a moment else.
            pause_s = _AGAIN_S if begins or gathering is not None else _HALF_SEEN_S
            later = now + pause_s + len(tracks) * _FOR_EACH_S
            for track in tracks:
                track.due_at = later
            if gathering is not None:
                gathering.meanwhile.update((track.drop.path, (track, later)) for track in tracks)
            elif begins:
                room = Room(name=name, user=user, due={track.drop.path for track in tracks})
                self._gathering[name] = room
                self._turns.put(user, room)

    def _gather(self, room: Room) -> None:
        """In a thread of `Turns`."""
        began = time.monotonic()
        with suppress(Stopped), aside.fence("user", f"{room.name}/", but=(Stopped,)) as fenced:
            here = [
                track
                for track in self._settler.of_user(room.user)
                if track.claimable and not track.claiming and track.drop.room == room.name
            ]
            # Of very many only a part, because each takes memory; the others are due again afterwards.
            room.most = max(_LEAST_UNDER_WAY, len(here) // 10)
            bundles, room.faults = self._gatherer.bundles(room.name, here)
            due = (one for one in bundles if any(t.drop.path in room.due for t in one.tracks))
            room.bundles = deque(itertools.islice(due, room.most))
            room.is_part = next(due, None) is not None
        if fenced.failed:
            room.why, room.retry_at = fenced.why, fenced.next_at
        room.took_s = time.monotonic() - began
        self._gathered.append(room)
        self._wake()

    def _not_gathered(self, room: Room, why: str) -> None:
        """In a thread of `Turns`."""
        room.why = why
        self._gathered.append(room)
        self._wake()

    def take_up(self, do: Callable[[Room, Bundle], bool], failed: Callable[[Room], None]) -> None:
        """Call `do` with what was put together, for a moment; it says whether there is room for more.

        `failed` is called with a room that could not be put together.
        """
        while self._gathered:
            room = self._gathered.popleft()
            self._open[room.name] = room
        end = time.monotonic() + _TURN_S
        for name in list(self._open):
            room = self._open[name]
            self._open.move_to_end(name)
            if room.why is not None:
                failed(room)
            elif not self._some_of(room, do):
                continue
            del self._open[name]
            self._end(room)
            if time.monotonic() >= end:
                break

    def _some_of(self, room: Room, do: Callable[[Room, Bundle], bool]) -> bool:
        """Take up a part of `room`; returns whether it is done."""
        end = time.monotonic() + _SLICE_S
        while room.bundles:
            if not do(room, room.bundles[0]):
                break
            room.due.difference_update(t.drop.path for t in room.bundles.popleft().tracks)
            if time.monotonic() >= end:
                return not room.bundles
        if room.bundles or room.is_part:
            self._put_off_rest(room)
        return True

    def _end(self, room: Room) -> None:
        """The room may be put together again, for what became due meanwhile after no more than its share."""
        del self._gathering[room.name]
        soon = time.monotonic() + _SHARE * room.took_s
        for track, later in room.meanwhile.values():
            # Another time was given to it for a reason: it has changed, or lacks something.
            if track.due_at == later:
                track.due_at = min(soon, later)

    def _put_off_rest(self, room: Room) -> None:
        """What could not be taken up is put together again: something that belongs to it may have come."""
        now = time.monotonic()
        pause_s = max(_AGAIN_S, _SHARE * room.took_s)
        for track in self._settler.of_user(room.user):
            if track.due_at is not None and not track.claiming and track.drop.path in room.due:
                track.due_at = now + pause_s

    def stop(self) -> None:
        """Finish what is being put together; nothing new starts."""
        self._gatherer.stop()
        self._turns.stop()
