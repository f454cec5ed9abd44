"""The daemon's clock, and how long its loop may rest."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["TICK_AT_REST_S", "TICK_S", "now"]

#: The longest the loop sleeps; it then looks after watcher, zygote and watchdog.
TICK_S = 0.5
#: The longest the loop sleeps with nothing in the inboxes and nothing in work: what comes wakes the loop.
TICK_AT_REST_S = 2.0


def now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)
