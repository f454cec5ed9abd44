"""Uploaded files that wait for the machine: why, and when each is tried again."""

from __future__ import annotations

import heapq

from cytowatch.record.errors import TransientError
from cytowatch.record.names import UploadedFileId

__all__ = ["HeldUp"]

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0


class HeldUp:
    """Guards that each of them is tried again, less often each time; under the lock of the engine only."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, str, UploadedFileId]] = []
        self._pauses: dict[UploadedFileId, float] = {}
        #: id -> (why, detail).
        self.reasons: dict[UploadedFileId, tuple[str, str]] = {}

    def put(self, user: str, id_: UploadedFileId, fault: TransientError, now: float) -> None:
        """Let `id_` be tried again after a pause, twice as long as its last one."""
        seconds = min(_LONGEST_PAUSE_S, self._pauses.get(id_, _FIRST_PAUSE_S / 2) * 2)
        self._pauses[id_] = seconds
        self.reasons[id_] = (fault.why, fault.detail)
        heapq.heappush(self._waiting, (now + seconds, user, id_))

    def forget(self, id_: UploadedFileId) -> None:
        """It has gone on."""
        self._pauses.pop(id_, None)
        self.reasons.pop(id_, None)

    def hurry(self, reasons: tuple[str, ...], now: float) -> None:
        """One is done: what waits for that may go on now."""
        self._waiting = [
            (min(due, now) if self.reasons.get(id_, ("", ""))[0] in reasons else due, user, id_)
            for due, user, id_ in self._waiting
        ]
        heapq.heapify(self._waiting)

    def due(self, now: float) -> list[tuple[str, UploadedFileId]]:
        """(user, id) of each whose pause is over, which waits here no longer."""
        found = []
        while self._waiting and self._waiting[0][0] <= now:
            _, user, id_ = heapq.heappop(self._waiting)
            found.append((user, id_))
        return found

    def next_at(self) -> float | None:
        """When the pause of one is over next, on the monotonic clock."""
        return self._waiting[0][0] if self._waiting else None
