"""Reporting: gauges, ``state/live.json`` for the commands, and notes for those who see only the share."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cytowatch import __version__, durable
from cytowatch.hooks import count_dead
from cytowatch.lifecycle import clock
from cytowatch.lifecycle.parts import Parts
from cytowatch.lifecycle.presence import Presence
from cytowatch.lifecycle.work import Work
from cytowatch.observe import reports, systemd
from cytowatch.record import manifest
from cytowatch.tree.live import FILE_NAME
from cytowatch.tree.room import Amount, free, spare

__all__ = ["Teller"]

#: The least time between two reports, as a multiple of what the last one took.
_EVERY = 10.0
#: How much later when there is nothing to report.
_AT_REST_S = 2.0
#: How often the ages of the oldest are asked of the index; they are in seconds, and read every 15.
_AGES_EVERY_S = 5.0
#: How long notes are written at a time, no matter how many there are: a start may have thousands. And the least
#: time until more are written, as a multiple of that, while claims are under way: they wait for the same disk.
_NOTES_S = 0.03
_NOTES_EVERY = 10.0


class Teller:
    """Guards what was reported and when, so that nothing is written that is known; for the main thread only."""

    def __init__(self, parts: Parts, presence: Presence, work: Work) -> None:
        self._parts = parts
        self._presence = presence
        self._work = work
        self._tell_at = self._set_ages_at = self._notes_at = float("-inf")
        self._told: dict[str, Any] = {}
        #: What stages in work may still write.
        self._reserved = Amount()

    def describe(self) -> None:
        """The gauges that stay."""
        parts = self._parts
        parts.metrics.workers.set(parts.engine.count)
        for hook in parts.config.hooks:
            for outcome in ("delivered", "failed", "dead"):
                parts.metrics.hook_deliveries.labels(hook.name, outcome)
        parts.metrics.sandbox_enabled.set(parts.decoders.sandboxed)
        if not parts.decoders.sandboxed:
            parts.log.warning(
                "sandbox_off",
                detail="this kernel has no Landlock, or no filter of system calls, for decoders: "
                "`cytowatch check` names what they can do",
            )

    def tell(self, now: float, *, force: bool = False) -> None:
        """Report everything, when something is different and it is time."""
        parts = self._parts
        if parts.notes.is_behind and now >= self._notes_at and not self._presence.offline:
            self._write_notes(parts.notes.go_on)
        news = parts.engine.busy or parts.ledger.has_changed or not parts.intake.is_empty
        due_at = self._tell_at + (0.0 if news else _AT_REST_S)
        if self._presence.offline or (now < due_at and not force):
            return
        began = time.monotonic()
        self._set_gauges(now)
        self._write(now, force=force)
        # With much in the inboxes, or much that ended lately, reporting it all takes its time.
        self._tell_at = now + max(clock.TICK_S, _EVERY * (time.monotonic() - began))

    @property
    def due_at(self) -> float | None:
        """When more notes are written, on the monotonic clock; None if all are there."""
        return self._notes_at if self._parts.notes.is_behind else None

    def _write_notes(self, write: Callable[..., None], *, all_of_them: bool = False) -> None:
        """A fault on the share holds up no slide, nor do many notes."""
        began = time.monotonic()
        until = math.inf if all_of_them else began + _NOTES_S
        self._parts.duties.do("feedback", partial(write, until=until), None)
        ended = time.monotonic()
        pause = _NOTES_EVERY if self._parts.intake.is_claiming else 0.0
        self._notes_at = ended + pause * (ended - began)

    def summary(self) -> str:
        """One line for systemd."""
        counts, _, _ = self._parts.intake.waiting_counts(time.monotonic())
        return f"{self._parts.engine.busy} in work, {counts.total()} waiting in the inboxes"

    def _set_gauges(self, now: float) -> None:
        parts, metrics = self._parts, self._parts.metrics
        metrics.set_waiting(*parts.intake.waiting_counts(now))
        metrics.watcher_alive.set(parts.watcher.alive and "watches" not in parts.health.reasons())
        metrics.set_watcher_mode(parts.watcher.mode)
        metrics.workers_busy.set(parts.engine.busy)
        metrics.paused.set(bool(self._work.pauses))
        metrics.hooks_dead.set(count_dead(parts.spool))
        self._reserved = parts.room.reserved()
        kept = spare(parts.config.storage, free(parts.spool.root)) + self._reserved
        kept += parts.room.announced()
        metrics.set_reserved(kept.bytes, kept.inodes)
        if now >= self._set_ages_at:
            parts.ledger.set_ages(clock.now())
            metrics.storage_missing.set(len(parts.index.missing()))
            self._set_ages_at = now + _AGES_EVERY_S

    def _write(self, now: float, *, force: bool) -> None:
        parts = self._parts
        waiting, left = parts.intake.waiting(now), parts.intake.left(now)
        live = self._live(waiting, left)
        if parts.ledger.take_changed() or live != self._told or force:
            notes = parts.ledger.lately.notes([*waiting, *left])
            self._write_notes(partial(parts.notes.show, notes), all_of_them=force)
        if live == self._told and not force:
            return
        self._told = live
        parts.duties.do("live", partial(self._write_live, live), None)
        systemd.notify(f"STATUS={self.summary()}")

    def _live(self, waiting: list[dict[str, Any]], left: list[dict[str, Any]]) -> dict[str, Any]:
        parts = self._parts
        return {
            "pid": os.getpid(),
            "version": __version__,
            "progress": parts.ledger.lately.in_work(),
            "held_up": {
                id_: {"why": why, "detail": detail}
                for id_, (why, detail) in list(parts.engine.waiting.items())
            },
            "waiting": waiting,
            # What stays in an inbox for good; so a sender knows that nothing more will be made of it.
            "left": [row["path"] for row in left],
            "paused": {**self._work.pauses.document, "held": parts.engine.held},
            "workers": {"busy": parts.engine.busy, "of": parts.engine.count},
            "watcher": {"mode": parts.watcher.mode, "alive": parts.watcher.alive},
            "reserved": {"bytes": self._reserved.bytes, "inodes": self._reserved.inodes},
            "sandbox": parts.decoders.sandboxed,
            "health": parts.health.reasons(),
            "set_aside": reports.set_aside(),
        }

    def _write_live(self, live: dict[str, Any]) -> None:
        state = self._parts.spool.state
        text = json.dumps({"at": manifest.utc(clock.now()), **live}, ensure_ascii=False)
        durable.replace_file(state / FILE_NAME, text)
