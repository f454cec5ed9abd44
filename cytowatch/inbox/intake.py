"""The inboxes as the daemon sees them: scan, settle and claim, put together.

The main loop only looks, for a moment per user. Finding out which files belong together, and claiming them,
happens in threads of their own, because an fsync of 40 GB takes a while.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from cytowatch import aside, durable
from cytowatch.config import Config
from cytowatch.inbox import waits
from cytowatch.inbox.claim import Claiming
from cytowatch.inbox.claims import Claimed, Claims
from cytowatch.inbox.dropped import Dropped
from cytowatch.inbox.folders import Folders
from cytowatch.inbox.gather import Bundle, Gatherer
from cytowatch.inbox.later import PAUSED, Later
from cytowatch.inbox.markers import Markers
from cytowatch.inbox.own import Own
from cytowatch.inbox.packing import Packing
from cytowatch.inbox.readiness import Readiness
from cytowatch.inbox.rooms import Room, Rooms
from cytowatch.inbox.settle import Settler, Track
from cytowatch.inbox.sweep import Sweep
from cytowatch.record.names import UploadedFileId
from cytowatch.tree.pauses import Pauses
from cytowatch.tree.spool import Spool

__all__ = ["Intake"]

#: The least time between two counts of what waits, as a multiple of what the last one took.
_COUNT_SHARE = 20.0


class Intake:
    """Keeps what is known of the inboxes; for the main thread only, except `hint`.

    Parameters
    ----------
    make_id
        Makes an id from the time and a name.
    wake
        Called from other threads when there is something for the main loop.
    images_of
        The ids of the images of a user that were dropped by themselves under a name.

    Memory bound
    ------------
    One `Track` per file in the inboxes and the few findings of the looks into it, never its content. Bundles are
    put together room by room, and dropped when they are claimed or put off. Settler and gatherer uphold it: they
    forget what a whole look at an inbox no longer finds. Without it a share that is filled and emptied again and
    again would let the daemon grow without end.
    """

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        now: Callable[[], datetime],
        make_id: Callable[[datetime, str], UploadedFileId],
        software: dict[str, str],
        folders: Folders,
        wake: Callable[[], None],
        images_of: Callable[[str, str], Sequence[str]] = lambda _user, _name: (),
    ) -> None:
        self._config = config
        self._now = now
        self._folders = folders
        self._wake = wake
        self._own = Own(config)
        self._settler = Settler(
            quiet_s=config.inbox.quiet_s,
            incomplete_after_s=config.inbox.incomplete_after_s,
            own=self._own.times,
        )
        local = durable.is_local(spool.inbox)
        self._markers = Markers()
        self._gatherer = Gatherer(spool.inbox)
        self._sweep = Sweep(
            spool.inbox, self._settler, self._markers, settings=self._own.of,
            device=os.stat(spool.root).st_dev, local=local, looked=self._gatherer.forget,
        )  # fmt: skip
        self._rooms = Rooms(self._settler, self._gatherer, wake)
        self._dropped = Dropped(
            spool.inbox, self._settler, self._markers, folders, trash=spool.trash,
            is_an_image=self._gatherer.is_an_image,
        )  # fmt: skip
        self._later = Later(self._settler, self._own)
        self._readiness = Readiness(
            spool.inbox, self._settler, self._markers, self._own, images_of=images_of
        )
        with_ = Claiming(
            spool=spool, config=config, now=now, make_id=make_id, software=software, leases=local
        )
        packing = Packing(spool.inbox, self._gatherer, self._markers, folders, self._dropped)
        self._claims = Claims(
            with_, self._settler, packing, self._later, folders=folders, dropped=self._dropped, wake=wake
        )  # fmt: skip
        self._counts: tuple[Counter[str], dict[str, float], int] = (Counter(), {}, 0)
        self._count_at = float("-inf")

    def reconfigure(self, config: Config) -> None:
        """Use other times, names and markers from now on."""
        self._config = config
        self._own.reconfigure(config)
        self._claims.reconfigure(config)
        now = time.monotonic()
        for track in self._settler.tracks:
            waiting = track.waiting is not None and track.waiting.why == "done_marker"
            if waiting and not self._own.of(track.drop.user).done_marker:
                self._settler.unmarked(track, now)
        # If a marker is now required, the next look finds drops without one.
        for user in self._settler.users - {""}:
            self._sweep.hint(user)

    def hint(self, user: str) -> None:
        """Note that something happened in the inbox of `user`. For any thread."""
        self._sweep.hint(user)
        self._wake()

    def scan_all(self, now: float, *, events_lost: bool = False, whole: bool = False) -> None:
        """Begin a look at every inbox, which `scan_some` continues. With `whole`, look at everything now.

        Raises
        ------
        OSError
            The folder of the inboxes cannot be read.
        """
        self._claims.mend_kept()
        self._sweep.begin(now, events_lost=events_lost, whole=whole)
        self._sweep.go_on(now, whole=whole)
        for where in ("drop", "claim"):
            there = [one.which for one in aside.all_of(where) if self._settler.knows(one.which)]
            aside.keep_only(where, [*there, *self._claims.kept])

    def scan_some(self, now: float) -> float | None:
        """Continue the look, also at inboxes that events named; return when there is more to look at."""
        return self._sweep.go_on(now)

    def seen(self) -> tuple[int, bool]:
        """Since the last call: the number of drops that no event announced, and whether all inboxes were looked at."""
        return self._sweep.seen()

    def claim_due(self, now: float, pauses: Pauses) -> None:
        """Begin to claim what has been quiet long enough, after one more look at it."""
        if self._claims.to_mend:
            # Nothing new while what a fault left half-done waits to be put right.
            return
        due: list[Track] = []
        paused = {user: pauses.covers(user) for user in self._settler.users}
        for track in self._settler.due(now):
            if paused[track.drop.user]:
                self._later.paused(track, now)
            elif track.drop.user:
                due.append(track)
        # Half of a set may be in the part of an inbox that has not been looked at.
        self._rooms.begin(now, due, skip=self._sweep.looks_at)
        self._rooms.take_up(
            lambda room, bundle: self._take_up(room, bundle, now),
            lambda room: self._later.put_room_aside(room, now),
        )
        self._claims.keep_folders_open(now)
        self._dropped.finish_some(now, self._own.folder_quiet_s)

    def hold(self, now: float, lacks: str) -> None:
        """Start nothing, because the disk `lacks` something; quiet drops wait for that."""
        self._later.hold(now, lacks)

    def _take_up(self, room: Room, bundle: Bundle, now: float) -> bool:
        """Claim `bundle` if it is ready; return whether more may be claimed for its user."""
        # Of very many only a part, because each takes memory.
        if self._claims.of(room.user) >= room.most:
            return False
        if any(track.claiming for track in bundle.tracks):
            return True
        why = next(
            (room.faults[t.drop.path] for t in bundle.tracks if t.drop.path in room.faults), None
        )
        with aside.fence("claim", bundle.head.drop.path, clears=False) as fenced:
            if why is None:
                ready = self._readiness.of(bundle, now)
                if ready is not None:
                    self._claims.begin(ready, now)
        if fenced.failed or why is not None:
            self._later.put_aside(bundle.tracks, fenced.why or why or "", now, fenced.next_at)
        return True

    def collect(self, now: float) -> list[Claimed]:
        """The results of the claims that have ended since the last call."""
        return self._claims.collect(now)

    def mend(self) -> list[Claimed]:
        """Finish or undo the claims that a fault of the machine left half-done; return the finished ones."""
        return self._claims.mend()

    @property
    def kept(self) -> dict[str, str]:
        """What a fault left in ``state/tmp`` and could not be put right yet, by id: why."""
        return self._claims.kept

    def next_due(self) -> float | None:
        """When the next drop will have been quiet long enough, or the next folder may be finished."""
        more = time.monotonic() if self._rooms.has_more or self._claims.has_more else None
        times = [self._settler.next_due(), self._dropped.next_at(), more]
        return min((one for one in times if one is not None), default=None)

    @property
    def is_claiming(self) -> bool:
        """Whether claims are under way."""
        return self._claims.busy

    @property
    def is_empty(self) -> bool:
        """Whether the inboxes are empty."""
        return next(iter(self._settler.tracks), None) is None

    def idle(self, now: float, *, patience_s: float) -> bool:
        """Whether nothing here can still be claimed without a new write.

        An incomplete drop counts as hopeless unless its time is up within `patience_s`.
        """
        return (
            not self._claims.busy
            and not self._sweep.under_way
            and not self._rooms.busy
            and not self._dropped.any_to_finish(now, self._own.folder_quiet_s)
            and not any(
                track.due_at is not None
                and track.waiting is not PAUSED
                and not (track.waiting and track.waiting.why in waits.HOPELESS)
                and (not track.incomplete or track.due_at - now < patience_s)
                for track in self._settler.tracks
            )
        )

    def waiting_counts(self, now: float) -> tuple[Counter[str], dict[str, float], int]:
        """How many drops wait and the oldest for how many seconds, by reason; all their bytes."""
        if now >= self._count_at:
            began = time.monotonic()
            self._counts = waits.counts(self._settler, now, self._folders.is_open)
            self._count_at = now + _COUNT_SHARE * (time.monotonic() - began)
        return self._counts

    def waiting(self, now: float) -> list[dict[str, Any]]:
        """The drops that have waited longest, why, and since when, ready for JSON."""
        return waits.listed(self._settler, now, self._now(), self._folders.is_open)

    def left(self, now: float) -> list[dict[str, Any]]:
        """Files that people recently left in finished folders, in the same kind of rows."""
        wall = self._now()
        since = wall - timedelta(days=self._config.feedback.status_days)
        return waits.left(self._settler, now, wall, self._folders.is_open, since=since)

    def stop(self) -> None:
        """Finish the running claims, and start no new one."""
        self._rooms.stop()
        self._claims.stop()
