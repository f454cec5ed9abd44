"""Starting: what stands in the way and passes by itself is waited for inside the running daemon.

A full disk, a filesystem that takes no writes or fails for a moment, a defect that one start meets:
systemd would give up after a few starts, and then nothing would start it again when the cause is gone.
So the daemon says that it is ready, reports in ``/healthz`` what it waits for, and tries again. It ends
only for what an administrator must change.

Source: docs/decisions/020-a-start-waits.md
"""

from __future__ import annotations

import errno
import queue
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cytowatch.observe import health, systemd
from cytowatch.observe.health import Health, Server
from cytowatch.observe.metrics import Metrics
from cytowatch.record.errors import CytowatchError, RootError, TransientError
from cytowatch.record.names import printable

__all__ = ["Asked", "Listener", "Waiting", "is_for_an_admin", "words"]

#: How a root cannot be used until somebody changes something: permissions, paths that lead nowhere.
_ADMINS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EINVAL,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EOPNOTSUPP,
    }
)
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 5.0
#: A port that is taken is tried again so often.
_LISTEN_EVERY_S = 5.0
_LONGEST = 500


class Asked:
    """What signals ask the main loop to do, and what wakes it."""

    def __init__(self) -> None:
        #: The name of the signal that asks it to end.
        self.end: str | None = None
        self.reload = False
        self.wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wake(self) -> None:
        """Let the main loop look at once; any thread may say so."""
        self.wakeups.put(None)

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until somebody wakes the main loop."""
        try:
            self.wakeups.get(timeout=max(0.001, seconds))
        except queue.Empty:
            return

    def forget_wakeups(self) -> None:
        """What was to be looked at was looked at."""
        with suppress(queue.Empty):
            while True:
                self.wakeups.get_nowait()

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last call."""
        asked, self.reload = self.reload, False
        return asked

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Heed SIGTERM, SIGINT and SIGHUP."""

        def end(number: int, _frame: object) -> None:
            # No lock may be taken here: the thread that it interrupts may hold it.
            self.end = signal.Signals(number).name
            self.wake()

        def again(_number: int, _frame: object) -> None:
            self.reload = True
            self.wake()

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, again)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Listener:
    """Guards the server of ``/metrics`` and ``/healthz``: a port that is taken, and a thread that died.

    Slides matter more than figures: without it everything else goes on.
    """

    def __init__(self, listen: str, metrics: Metrics, told: Health, log: Any) -> None:
        self._listen = listen
        self._metrics = metrics
        self._health = told
        self._log = log
        self._server: Server | None = None
        self._again_at = float("-inf")

    def ensure(self, now: float) -> None:
        """Listen, if nobody does and it is time to try."""
        if not self._listen or now < self._again_at:
            return
        if self._server is not None:
            if self._server.alive:
                return
            self.close()
        self._again_at = now + _LISTEN_EVERY_S
        try:
            self._server = health.serve(self._listen, self._metrics, self._health)
        except RootError as error:
            if self._health.reasons().get("metrics") != str(error):
                self._log.error("no_metrics", detail=str(error))
            self._health.fault("metrics", str(error))
            return
        self._again_at = float("-inf")
        self._health.clear("metrics")
        self._log.info("listening", address=self._server.address)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None


class Waiting:
    """Guards the pauses between attempts to start; for the main thread only."""

    def __init__(self, asked: Asked, listener: Listener, told: Health, log: Any) -> None:
        self._asked = asked
        self._listener = listener
        self._health = told
        self._log = log
        self._pause_s = _FIRST_PAUSE_S
        self._said = ""

    def pause(self, error: Exception, report: str | None) -> None:
        """Say what `error` makes the start wait for, and let some time pass; a signal ends it."""
        said = words(error)
        if said != self._said:
            self._said = said
            self._log.error("start_waits", detail=said, report=report)
        self._health.fault("start", f"it cannot start yet, and tries again by itself: {said}")
        systemd.notify("READY=1", f"STATUS=waiting to start: {said}")
        end = time.monotonic() + self._pause_s
        while self._asked.end is None and not self._asked.reload:
            now = time.monotonic()
            if now >= end:
                break
            systemd.notify("WATCHDOG=1")
            self._listener.ensure(now)
            self._asked.sleep(min(1.0, end - now))
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)


def is_for_an_admin(error: Exception) -> bool:
    """Whether somebody must change something before a start can do; everything else may pass by itself.

    >>> is_for_an_admin(RootError("it is in use")), is_for_an_admin(OSError(28, "full"))
    (True, False)
    """
    match error:
        case TransientError():
            return False
        case RootError():
            cause = error.__cause__
            return not isinstance(cause, OSError) or cause.errno in _ADMINS
        case _:
            return isinstance(error, CytowatchError)


def words(error: Exception) -> str:
    """What `error` says, in a line.

    >>> words(OSError(28, "No space left on device", "/srv/x"))
    '/srv/x: No space left on device'
    """
    match error:
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            said = f"{where}{error.strerror or error}"
        case TransientError():
            said = error.detail
        case CytowatchError():
            said = str(error)
        case _:
            said = f"unexpected error: {type(error).__name__}: {error}"
    return printable(said[:_LONGEST])
