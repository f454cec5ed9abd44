"""The inboxes as the daemon sees them: scan, settle and claim, put together.

The scan loop only looks; claims run in threads of their own, for an fsync of 40 GB takes its time.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cytowatch import names
from cytowatch.config import Config
from cytowatch.inbox import claim, scan
from cytowatch.inbox.scan import Drop, Waiting
from cytowatch.inbox.settle import Settler, Track
from cytowatch.model import UploadedFileId
from cytowatch.spool import Spool

__all__ = ["Claimed", "Intake"]

#: The least time between two scans of one inbox, as a multiple of what the last one took.
_SCAN_SHARE = 5.0
_CLAIMS_AT_A_TIME = 4
#: So many drops that wait are told one by one; the metrics count them all.
_MOST_TOLD = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A drop that has become an uploaded file."""

    id: UploadedFileId
    drop: Drop
    settled_s: float


class Intake:
    """Guards what is known of the inboxes; used by the main thread alone, save `hint`.

    Parameters
    ----------
    make_id
        Makes an id from the time and a name.
    wake
        Called from other threads when there is something for the main loop.
    """

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        now: Callable[[], datetime],
        make_id: Callable[[datetime, str], UploadedFileId],
        software: dict[str, str],
        wake: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._config = config
        self._now = now
        self._make_id = make_id
        self._software = software
        self._wake = wake
        self._settler = Settler(
            quiet_s=config.inbox.quiet_s, incomplete_after_s=config.inbox.incomplete_after_s
        )
        self._hints: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._device = os.stat(spool.root).st_dev
        self._executor = ThreadPoolExecutor(_CLAIMS_AT_A_TIME, thread_name_prefix="claim")
        self._running: list[tuple[Track, Future[UploadedFileId | Waiting]]] = []

    def hint(self, user: str) -> None:
        """Something happened in the inbox of `user`. Any thread may say so."""
        self._hints.add(user)
        self._wake()

    def scan_all(self, now: float) -> int:
        """Look at every inbox; tells how many drops no event had told of."""
        found = 0
        hinted = set(self._hints)
        present = set()
        for drop, waiting in scan.stray(self._spool.inbox, self._config.inbox.ignore):
            self._settler.see(drop, waiting, now)
            present.add(drop.path)
        self._settler.forget_missing("", present)
        users = scan.users(self._spool.inbox)
        for user in users:
            new = self._scan(user, now)
            found += 0 if user in hinted else new
        for user in {track.drop.user for track in self._settler.tracks} - {*users, ""}:
            self._settler.forget_missing(user, set())
        return found

    def scan_hinted(self, now: float) -> float | None:
        """Look at the inboxes that events named; gives when one that was put off is due."""
        later: float | None = None
        for user in list(self._hints):
            earliest = self._not_before.get(user, 0.0)
            if earliest > now:
                later = earliest if later is None else min(later, earliest)
                continue
            self._hints.discard(user)
            if (self._spool.inbox / user).is_dir():
                self._scan(user, now)
        return later

    def _scan(self, user: str, now: float) -> int:
        began = time.monotonic()
        present: set[str] = set()
        new = 0
        try:
            ignore = self._config.inbox.ignore
            for drop, waiting in scan.scan(self._spool.inbox, user, ignore, device=self._device):
                present.add(drop.path)
                new += self._settler.see(drop, waiting, now)
        except FileNotFoundError:
            # The inbox went away under the scan: what was in it is not "deleted" until it is back.
            return new
        self._settler.forget_missing(user, present)
        self._not_before[user] = now + _SCAN_SHARE * (time.monotonic() - began)
        return new

    def claim_due(self, now: float) -> None:
        """Begin to claim what has been quiet long enough, after one more look at it."""
        for track in self._settler.due(now):
            try:
                found = os.stat(self._spool.inbox / track.drop.path, follow_symlinks=False)
            except OSError:
                self._settler.claimed(track)
                continue
            drop = Drop(
                user=track.drop.user,
                path=track.drop.path,
                project=track.drop.project,
                fingerprint=scan.fingerprint(found),
            )
            self._settler.see(drop, None, now)
            if track.due_at is None or track.due_at > now:
                continue
            track.claiming = True
            future = self._executor.submit(
                claim.claim,
                self._spool,
                track.drop,
                config=self._config,
                now=self._now(),
                make_id=self._make_id,
                software=self._software,
                quiet_for_s=now - track.changed_at,
                overdue=self._settler.overdue(track, now),
            )
            future.add_done_callback(lambda _: self._wake())
            self._running.append((track, future))

    def collect(self, now: float) -> list[Claimed]:
        """What the claims that ended since have brought.

        Raises
        ------
        OSError
            A fault of the machine in one of them; its drop is tried again later.
        """
        claimed: list[Claimed] = []
        still = []
        for track, future in self._running:
            if not future.done():
                still.append((track, future))
                continue
            try:
                result = future.result()
            except OSError as error:
                waiting = Waiting(why="input_output", detail=f"{error.strerror or error}")
                self._settler.busy(track, waiting, now)
                continue
            match result:
                case Waiting(why="incomplete"):
                    self._settler.lacking(track, result)
                case Waiting(why="no_lease"):
                    left = self._config.inbox.fallback_quiet_s - (now - track.changed_at)
                    self._settler.busy(track, result, now, quiet_s=max(0.05, left))
                case Waiting(why="settling"):
                    track.claiming = False
                    track.changed_at = now
                    self._settler.busy(track, result, now)
                case Waiting(why="unreadable"):
                    self._settler.stuck(track, result)
                case Waiting():
                    self._settler.busy(track, result, now)
                case id_:
                    self._settler.claimed(track)
                    claimed.append(
                        Claimed(id=id_, drop=track.drop, settled_s=now - track.changed_at)
                    )
        self._running = still
        return claimed

    def next_due(self) -> float | None:
        """When a drop has been quiet long enough next."""
        return self._settler.next_due()

    def idle(self, now: float, *, patience_s: float) -> bool:
        """Whether nothing here can still be claimed without a new write.

        What lacks something counts as hopeless unless its time is up within `patience_s`.
        """
        return not self._running and not any(
            track.due_at is not None and (not track.incomplete or track.due_at - now < patience_s)
            for track in self._settler.tracks
        )

    def waiting_counts(self) -> tuple[Counter[str], int]:
        """How many drops wait, by reason, and their bytes together."""
        tracks = list(self._settler.tracks)
        counts = Counter(track.waiting.why for track in tracks if track.waiting)
        return counts, sum(track.drop.fingerprint.size_bytes for track in tracks)

    def waiting(self, now: float) -> list[dict[str, Any]]:
        """What lies in the inboxes longest, why, and since when, ready for JSON."""
        longest = sorted(self._settler.tracks, key=lambda track: track.first_seen)
        wall = self._now()
        return [
            {
                "user": track.drop.user,
                "path": names.decode(os.fsencode(track.drop.path))[0],
                "why": track.waiting.why if track.waiting else "settling",
                "detail": track.waiting.detail if track.waiting else "",
                "size_bytes": track.drop.fingerprint.size_bytes,
                "since": (wall - timedelta(seconds=now - track.first_seen)).isoformat(
                    timespec="seconds"
                ),
            }
            for track in longest[:_MOST_TOLD]
        ]

    def stop(self) -> None:
        """Let the claims that run come to their end; no new one begins."""
        self._executor.shutdown(wait=True, cancel_futures=True)
