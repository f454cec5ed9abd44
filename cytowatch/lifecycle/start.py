"""Starting: what stands in the way and passes by itself is waited for inside the running daemon.

A full disk, a filesystem that takes no writes or fails for a moment, a defect that one start meets:
systemd would give up after a few starts, and then nothing would start it again when the cause is gone.
So the daemon says that it is ready, reports in ``/healthz`` what it waits for, and tries again. It ends
only for what an administrator must change.

Source: docs/decisions/020-a-start-waits.md
"""

from __future__ import annotations

import errno
import time
from typing import Any

from cytowatch.lifecycle.port import Listener
from cytowatch.lifecycle.signals import Asked
from cytowatch.observe import systemd
from cytowatch.observe.health import Health
from cytowatch.record.errors import CytowatchError, RootError, TransientError
from cytowatch.record.names import printable

__all__ = ["Waiting", "is_for_an_admin", "words"]

#: Errors that last until somebody changes something: permissions, paths that lead nowhere.
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
_LONGEST = 500


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
        """Report what `error` makes the start wait for, and let some time pass; a signal ends the wait."""
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
