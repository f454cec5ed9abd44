"""Looking through the inboxes: users take turns, and a look at one inbox never delays another's.

A look at an inbox is a generator that continues in the next turn of the main loop when its share of this one
is used up. A fault of one inbox affects only that inbox.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from cytowatch import aside
from cytowatch.config import Inbox
from cytowatch.inbox import scan
from cytowatch.inbox.markers import Markers
from cytowatch.inbox.settle import Settler
from cytowatch.record import names
from cytowatch.record.drop import Drop, Waiting

__all__ = ["Sweep"]

#: The least time between two looks at one inbox, as a multiple of what the last one took.
_SHARE = 5.0
#: The time for one inbox in a turn, and for all of them together, in seconds.
_SLICE_S = 0.02
_TURN_S = 0.04
#: An event comes within a moment, or not at all.
_EVENT_LATENCY_NS = 250_000_000
#: Two changes within a tick of the filesystem's clock have the same time; the coarsest tick is two seconds.
_CLOCK_TICK_NS = 3_000_000_000
#: Reasons that the log reports as well, once; `set_aside` has its own line.
_LOGGED = frozenset({"unreadable", "too_deep"})
_MOST_LOGGED = 20
#: The name of the user to whom files in ``inbox/`` itself belong.
_NOBODY = ""


class Sweep:
    """Keeps how far each inbox has been looked at; for the main thread only, except `hint`.

    Parameters
    ----------
    device
        The filesystem of the root.
    local
        Whether the times of folders can be trusted; they cannot if other machines write as well.
    looked
        Called at the end of each look with the user and the paths of all that lies there.
    """

    def __init__(
        self,
        inbox: Path,
        settler: Settler,
        markers: Markers,
        *,
        settings: Callable[[str], Inbox],
        device: int,
        local: bool,
        looked: Callable[[str, set[str]], None],
    ) -> None:
        self._inbox = inbox
        #: As text: a thousand inboxes are a thousand paths in every scan.
        self._path = os.fspath(inbox)
        self._settler = settler
        self._markers = markers
        self._device = device
        self._local = local
        self._looked = looked
        self._settings = settings
        self._hints: set[str] = set()
        #: Whose inbox takes so long to look at that its part of the last scan comes later.
        self._put_off: set[str] = set()
        #: Who is to be looked at in this turn and the next ones; None where it has not begun.
        self._queue: OrderedDict[str, Generator[None, None, None] | None] = OrderedDict()
        self._spent_s: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._empty: dict[str, tuple[int, int, int]] = {}
        #: Who is still to be looked at before all have been.
        self._left: set[str] = set()
        self._now = 0.0
        self._young_ns = 0
        self._first = True
        #: Drops that no event announced, and whether all inboxes have been looked at, since asked last.
        self._found = 0
        self._whole = False

    def hint(self, user: str) -> None:
        """Note that something happened in the inbox of `user`. For any thread."""
        self._hints.add(user)

    def looks_at(self, user: str) -> bool:
        """Whether the look at this inbox has begun and is not finished."""
        return self._queue.get(user) is not None

    @property
    def under_way(self) -> bool:
        """Whether some inbox is still to be looked at."""
        return bool(self._queue)

    def begin(self, now: float, *, events_lost: bool = False, whole: bool = False) -> None:
        """Let every inbox be looked at; the event of a new file may still be on its way.

        An inbox that takes long is looked at later, unless `whole`: it gets no more than its share of the main
        thread, however often scans are wanted and however much lies in it.

        Raises
        ------
        OSError
            The folder of the inboxes cannot be read.
        """
        self._now = now
        self._young_ns = time.time_ns() - (0 if events_lost else _EVENT_LATENCY_NS)
        users = scan.users(self._inbox)
        known = set(users)
        rooms = [one.which for one in aside.all_of("user") if one.which.split("/", 1)[0] in known]
        aside.keep_only("user", rooms)
        # An event need not be tried again: the scan sees what it announced.
        aside.keep_only("event", ())
        for user in self._settler.users - {*users, _NOBODY}:
            self._settler.forget_missing(user, set())
            self._looked(user, set())
        for user in (_NOBODY, *users):
            if user in self._queue or self._is_empty_still(user):
                continue
            if whole or self._not_before.get(user, 0.0) <= now:
                self._put(user)
            else:
                self._put_off.add(user)
        self._left |= {*self._queue, *self._put_off}
        if not self._left:
            self._whole, self._first = True, False

    def go_on(self, now: float, *, whole: bool = False) -> float | None:
        """Continue for a moment; return when there is more to look at. With `whole`, look at everything."""
        self._now = now
        later = self._heed(now)
        end = float("inf") if whole else time.monotonic() + _TURN_S
        while self._queue:
            # The one whose turn was longest ago is the first.
            self._look_on(next(iter(self._queue)))
            if time.monotonic() >= end:
                break
        return now if self._queue else later

    def seen(self) -> tuple[int, bool]:
        """Since the last call: the number of drops that no event announced, and whether all inboxes were looked at."""
        found, whole = self._found, self._whole
        self._found, self._whole = 0, False
        return found, whole

    def _heed(self, now: float) -> float | None:
        later: float | None = None
        # Any thread may add a hint meanwhile.
        for user in {*list(self._hints), *self._put_off}:
            if user in self._queue:
                # A file that arrived during this look may be in a part that was already read.
                continue
            if not scan.is_user(user):
                self._hints.discard(user)
                self._put_off.discard(user)
                continue
            earliest = self._not_before.get(user, 0.0)
            if earliest > now:
                later = earliest if later is None else min(later, earliest)
            else:
                self._put(user)
        return later

    def _put(self, user: str) -> None:
        self._queue[user] = None
        self._put_off.discard(user)

    def _look_on(self, user: str) -> None:
        """Continue the look at one inbox until its share of this turn is used up."""
        look = self._queue[user]
        if look is None:
            look = self._queue[user] = self._fenced(user)
        began = time.monotonic()
        ended = True
        for _ in look:
            if time.monotonic() - began >= _SLICE_S:
                ended = False
                break
        spent_s = self._spent_s.get(user, 0.0) + time.monotonic() - began
        if not ended:
            self._spent_s[user] = spent_s
            self._queue.move_to_end(user)
            return
        del self._queue[user]
        self._spent_s.pop(user, None)
        self._not_before[user] = self._now + _SHARE * spent_s
        self._left.discard(user)
        if not self._left:
            self._whole, self._first = True, False

    def _fenced(self, user: str) -> Generator[None, None, None]:
        hinted = user in self._hints
        self._hints.discard(user)
        with aside.fence("user", user) as fenced:
            new = yield from self._look(user)
            if not hinted and not self._first:
                self._found += sum(at <= self._young_ns for at in new)
        if fenced.failed:
            waiting = scan.set_aside(fenced.why)
            self._settler.see(*scan.inbox_itself(user, waiting), self._now)

    def _look(self, user: str) -> Generator[None, None, list[int]]:
        """Look at one inbox; returns the times (ns) of the drops that were unknown."""
        present: set[str] = set()
        markers: dict[str, Drop] = {}
        new: list[int] = []
        refused = 0
        ending = self._settings(user).done_marker
        try:
            for found in self._drops(user):
                if found is None:
                    yield None
                    continue
                drop, waiting = found
                if ending and drop.name.endswith(ending) and drop.name != ending and drop.user:
                    markers[drop.path.removesuffix(ending)] = drop
                    continue
                present.add(drop.path)
                if self._settler.see(drop, waiting, self._now):
                    new.append(drop.fingerprint.ctime_ns)
                    if waiting is not None and waiting.why in _LOGGED:
                        refused += 1
                        _log(drop, waiting, refused)
        except FileNotFoundError:
            # The inbox went away under the scan: what was in it is not "deleted" until it is back.
            return new
        self._settler.forget_missing(user, present)
        self._looked(user, present)
        yield None
        if ending and user:
            self._markers.put(user, markers)
            yield from self._mark(user)
        self._note_if_empty(user)
        return new

    def _drops(self, user: str) -> Iterator[tuple[Drop, Waiting | None] | None]:
        if user == _NOBODY:
            return scan.stray(self._inbox, self._settings(user).ignore)
        return scan.steps(self._inbox, user, self._settings(user).ignore, device=self._device)

    def _mark(self, user: str) -> Generator[None, None, None]:
        """Make drops due at once that their copy program has marked as done, and no others."""
        for number, track in enumerate(self._settler.of_user(user)):
            if number % 1000 == 0:
                yield None
            if track.claiming or not track.claimable:
                continue
            if self._markers.of(track.drop.path) is None:
                wanted = f"{track.drop.name}{self._settings(user).done_marker}"
                why = Waiting(why="done_marker", detail=f"waiting for {wanted}")
                self._settler.stuck(track, why)
                track.claimable = True
            elif track.due_at is None:
                track.due_at = self._now

    def _is_empty_still(self, user: str) -> bool:
        """Whether this inbox was empty, and nothing has been put into it since."""
        noted = self._empty.get(user)
        try:
            return noted is not None and noted == _identity(f"{self._path}/{user}")
        except OSError:
            return False

    def _note_if_empty(self, user: str) -> None:
        """Note the time of an empty inbox, if no later change can have the same time."""
        self._empty.pop(user, None)
        # If other machines write, the times of a folder can be late.
        if not self._local or user == _NOBODY or self._settler.has_any(user):
            return
        path = self._inbox / user
        with suppress(OSError):
            seen = _identity(path)
            old_enough = time.time_ns() - seen[2] > _CLOCK_TICK_NS
            if old_enough and not os.listdir(path) and seen == _identity(path):
                self._empty[user] = seen


def _log(drop: Drop, waiting: Waiting, count: int) -> None:
    """Report drops that somebody has to mend; if there are very many in one inbox, only the first."""
    if count <= _MOST_LOGGED:
        structlog.get_logger().warning(
            "waits", path=names.printable(drop.path), why=waiting.why, detail=waiting.detail
        )


def _identity(path: str | Path) -> tuple[int, int, int]:
    """(device, inode, time of the last change in ns) of a folder; users cannot set that time."""
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_ctime_ns
