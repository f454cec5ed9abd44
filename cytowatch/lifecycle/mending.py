"""Looking after the index beside everything else: its faults are reported and repaired."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cytowatch.observe import systemd
from cytowatch.observe.health import Health
from cytowatch.tree.index.index import Index

__all__ = ["Indexing"]

#: How often every name in storage is looked at.
_THOROUGH_EVERY_S = 600.0
_PATIENCE_S = 10.0
#: At most this many that vanished at once are named in the log.
_MOST_TOLD = 100


class Indexing:
    """Guards that at most one thread makes the index right, and that nothing waits for it."""

    def __init__(self, index: Index, health: Health, log: Any) -> None:
        self._index = index
        self._health = health
        self._log = log
        self._thread = threading.Thread()
        self._missed: set[str] = set()
        self._thorough_at = float("-inf")

    def reconcile(self, *, from_scratch: bool = False, starting: bool = True) -> None:
        """Let the index agree with the tree, here and now; the first time it takes its time.

        With `starting` systemd is informed that the start takes longer for it.
        """

        def tick(count: int) -> None:
            if starting:
                systemd.notify("EXTEND_TIMEOUT_USEC=60000000", f"STATUS=indexing, {count:,} so far")
            if count and count % 100_000 == 0:
                self._log.info("indexing", files=count)

        began = time.monotonic()
        wrong = self._index.reconcile(from_scratch=from_scratch, tick=tick)
        if wrong:
            self._log.info("indexed", files=wrong, seconds=round(time.monotonic() - began, 3))

    def look(self) -> None:
        """Say if something is wrong with the index, and begin to mend it."""
        self._index.look_at_file()
        if self._index.fault is None:
            self._health.clear("index")
            if not self._thread.is_alive() and (due := self._index.due()):
                # Beside everything else: a damaged index may be large.
                self._run(self._index.again, due=due)
            return
        if not self._thread.is_alive():
            self._log.warning("index_fault", error=self._index.fault)
            said = f"state/index.sqlite3: {self._index.fault}; it is being made right"
            self._health.fault("index", said)
            self.begin(from_scratch=self._index.damaged)

    def look_for_vanished(self, now: float) -> None:
        """Begin to look for what is no longer in storage, and report what was found before."""
        known = {one.id: one for one in self._index.missing()}
        for id_ in sorted(known.keys() - self._missed)[:_MOST_TOLD]:
            self._log.warning("vanished", id=id_, user=known[id_].user, status=known[id_].status)
        self._missed = set(known)
        if self._thread.is_alive():
            return
        thoroughly = now - self._thorough_at >= _THOROUGH_EVERY_S
        if thoroughly:
            self._thorough_at = now
        self._thread = threading.Thread(
            target=self._index.look_for_vanished,
            kwargs={"thoroughly": thoroughly},
            name="index",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Wait for what is under way, so that the index can be closed."""
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)

    def begin(self, *, from_scratch: bool = True) -> None:
        """Make it right in a thread: with a large storage that takes minutes."""
        if not self._thread.is_alive():
            self._run(self.reconcile, from_scratch=from_scratch, starting=False)

    def _run(self, target: Callable[..., None], **what: Any) -> None:
        self._thread = threading.Thread(target=target, kwargs=what, name="index", daemon=True)
        self._thread.start()
