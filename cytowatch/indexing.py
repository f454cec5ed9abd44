"""Looking after the index beside all else: what is wrong with it is told, and mended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cytowatch.index import Index
from cytowatch.observe import systemd
from cytowatch.observe.health import Health

__all__ = ["Indexing"]


class Indexing:
    """Guards that at most one thread makes the index right, and that nothing waits for it."""

    def __init__(self, index: Index, health: Health, log: Any) -> None:
        self._index = index
        self._health = health
        self._log = log
        self._thread = threading.Thread()

    def reconcile(self, *, anew: bool = False, starting: bool = True) -> None:
        """Let the index agree with the tree, here and now; the first time it takes its time.

        With `starting` systemd is told that the start takes longer for it.
        """

        def tick(count: int) -> None:
            if starting:
                systemd.notify("EXTEND_TIMEOUT_USEC=60000000", f"STATUS=indexing, {count:,} so far")
            if count and count % 100_000 == 0:
                self._log.info("indexing", files=count)

        began = time.monotonic()
        wrong = self._index.reconcile(anew=anew, tick=tick)
        if wrong:
            self._log.info("indexed", files=wrong, seconds=round(time.monotonic() - began, 3))

    def look(self) -> None:
        """Say if something is wrong with the index, and begin to mend it."""
        if self._index.fault is None:
            self._health.clear("index")
            if not self._thread.is_alive() and (due := self._index.due()):
                # Beside all else: what is damaged may be large.
                self._run(self._index.again, due=due)
            return
        if not self._thread.is_alive():
            self._log.warning("index_fault", error=self._index.fault)
            said = f"state/index.sqlite3: {self._index.fault}; it is being made right"
            self._health.fault("index", said)
            self.begin(anew=self._index.damaged)

    def begin(self, *, anew: bool = True) -> None:
        """Make it right in a thread: with a large storage that takes minutes."""
        if not self._thread.is_alive():
            self._run(self.reconcile, anew=anew, starting=False)

    def _run(self, target: Callable[..., None], **what: Any) -> None:
        self._thread = threading.Thread(target=target, kwargs=what, name="index", daemon=True)
        self._thread.start()
