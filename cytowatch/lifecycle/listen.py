"""Listening: the watcher is started, tested, and replaced when nothing comes through it any more."""

from __future__ import annotations

from collections.abc import Callable

from cytowatch.lifecycle.parts import Parts
from cytowatch.observe import systemd
from cytowatch.record import names

__all__ = ["Listening"]

#: The least time between two checks whether every folder is watched, as a multiple of what one takes.
_UNWATCHED_EVERY = 3000.0
#: How often the watcher is tested from end to end with a file of our own.
_POKE_EVERY_S = 10.0
#: A watcher through which nothing has come for this long is replaced.
_DEAF_S = 30.0
_MOST_NAMED = 3


class Listening:
    """Guards the watcher's timers; for the main thread only."""

    def __init__(self, parts: Parts, *, scan: Callable[[float], None]) -> None:
        self._parts = parts
        self._scan = scan
        self._again_at = self._since = self._poked_at = self._look_at = float("-inf")
        self._unwatched = 0

    def start(self, now: float) -> None:
        """Watch; a watcher that cannot be started is reported and tried again."""
        parts = self._parts
        self._again_at, self._since = float("-inf"), now
        rescan_s = parts.config.inbox.rescan_s
        try:
            parts.watcher.start()
        except OSError as error:
            # This is not a reason for systemd to end the daemon.
            parts.pulse.beat("watcher", now)
            self._again_at = now + min(_DEAF_S, rescan_s)
            parts.health.fault(
                "watcher",
                f"no events ({error.strerror or error}): drops are found by the scan every "
                f"{rescan_s:g} s",
            )
        else:
            parts.health.clear("watcher")

    def supervise(self, now: float) -> None:
        """Replace a watcher that receives nothing, and test it with a file of our own."""
        parts = self._parts
        if now >= self._again_at and not self._hears(now):
            parts.log.warning("watcher_replaced")
            parts.watcher.stop()
            self.start(now)
            self._scan(now)
        if now - self._poked_at >= _POKE_EVERY_S:
            self._poked_at = now
            try:
                parts.watcher.poke()
            except OSError:
                # On a read-only disk it cannot be tested.
                parts.pulse.beat("watcher", now)

    def feel_pulse(self, now: float) -> None:
        """Let systemd know that all goes on, as long as it does."""
        parts = self._parts
        parts.duties.hear_others()
        still = parts.pulse.still(now)
        if not still:
            systemd.notify("WATCHDOG=1")
            parts.health.clear("pulse")
        for part, age_s in still.items():
            parts.health.fault("pulse", f"the {part} has not moved for {age_s:.0f} s")

    def look_for_unwatched(self, now: float, clock: Callable[[], float]) -> None:
        """Say so if folders are found only by the scan; one that is just made may not be watched yet."""
        if now < self._look_at:
            return
        began = clock()
        self._parts.duties.do("unwatched", self._tell_of_unwatched, None)
        # A fault is checked with every scan until it is gone.
        self._look_at = now + (0.0 if self._unwatched else _UNWATCHED_EVERY * (clock() - began))

    def _tell_of_unwatched(self) -> None:
        parts, before = self._parts, self._unwatched
        self._unwatched, crowded = parts.watcher.unwatched()
        if not (before and self._unwatched):
            parts.health.clear("watches")
            return
        cause = (
            f"{names.printable(', '.join(crowded[:_MOST_NAMED]))} has more of them than one user may"
            if crowded
            else "the kernel has no watches left"
        )
        parts.health.fault(
            "watches",
            f"of {self._unwatched} folders no events come, {cause} "
            "(fs.inotify.max_user_watches): drops there are found by the scan every "
            f"{parts.config.inbox.rescan_s:g} s",
        )

    def _hears(self, now: float) -> bool:
        """Whether the watcher is there, and reported what was done to a file of our own."""
        parts = self._parts
        deaf = parts.pulse.age_s("watcher", now) > _DEAF_S and now - self._since > _DEAF_S
        return parts.watcher.alive and not deaf
