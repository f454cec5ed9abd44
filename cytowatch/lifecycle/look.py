"""Looking through the inboxes: a full scan now and then, a part of it in each turn of the loop."""

from __future__ import annotations

import time
from functools import partial

from cytowatch.lifecycle.listen import Listening
from cytowatch.lifecycle.parts import Parts

__all__ = ["Looking"]


class Looking:
    """Guards when the inboxes were scanned; for the main thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._scanned_at = float("-inf")
        self.listening = Listening(parts, scan=self.scan)

    def due_at(self) -> float:
        """When the next full scan is due."""
        return self._scanned_at + self._parts.config.inbox.rescan_s

    def scan_if_due(self, now: float) -> None:
        """Begin a full scan, if it is time or events were lost."""
        if self._parts.scan_now.is_set() or now >= self.due_at():
            self._parts.duties.do("inbox", partial(self.scan, now), None)

    def scan(self, now: float, *, whole: bool = False) -> None:
        """Begin to scan all inboxes, and end it with `whole`."""
        parts = self._parts
        lost = parts.scan_now.is_set()
        parts.scan_now.clear()
        parts.pulse.beat("scanner", now)
        parts.intake.scan_all(now, events_lost=lost, whole=whole)
        self._scanned_at = now
        self.listening.look_for_unwatched(now, time.monotonic)
        do = parts.duties.do
        do("indexing", parts.indexing.look, None)
        do("indexing again", partial(parts.ledger.lately.again, parts.spool), None)
        do("missing", partial(parts.indexing.look_for_vanished, now), None)

    def go_on(self, now: float) -> float | None:
        """Go on with the scan, which looks at each inbox for a moment in each turn."""
        parts = self._parts
        more_at = parts.intake.scan_some(now)
        found, whole = parts.intake.seen()
        parts.metrics.rescan_found.inc(found)
        if whole:
            parts.pulse.beat("scanner", now)
            parts.metrics.last_scan.set(time.time())
        return more_at
