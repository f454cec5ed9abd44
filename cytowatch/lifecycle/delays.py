"""When the last byte of each drop came, so that the time from there to its deployment can be measured."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from cytowatch.record.entries import Manifest
from cytowatch.record.status import Status

__all__ = ["Delays"]


class Delays:
    """Guards the times of the last bytes, for the latest drops only. Safe from any thread."""

    def __init__(self, *, most: int = 10_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._last_byte_at: dict[str, datetime] = {}

    def claimed(self, id_: str, at: datetime, quiet_s: float) -> None:
        """`id_` was claimed at `at`, `quiet_s` after the last change of the drop."""
        with self._lock:
            self._last_byte_at[id_] = at - timedelta(seconds=max(0.0, quiet_s))
            while len(self._last_byte_at) > self._most:
                # The oldest one: a dict keeps the order in which it was filled.
                del self._last_byte_at[next(iter(self._last_byte_at))]

    def after_s(self, found: Manifest, at: datetime) -> float | None:
        """Seconds from the last byte to `at`, when `found` was deployed.

        None for what was in error before: its sender or an admin took that time. What came out of an
        archive counts from the archive's last byte. After a restart a drop counts from its claim.
        """
        if any(
            row["status"] in Status.__members__ and Status[row["status"]].is_error
            for row in found["history"]
        ):
            return None
        with self._lock:
            known = self._last_byte_at.get(found["id"]) or self._last_byte_at.get(found["root_id"])
        try:
            since = known or datetime.fromisoformat(found["received_at"])
            return max(0.0, (at - since).total_seconds())
        except (ValueError, TypeError, OverflowError):
            return None
