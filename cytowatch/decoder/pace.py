"""The limits of a stage: its time in all, the time between two signs of progress, and the size of its messages."""

from __future__ import annotations

import time

from cytowatch.decoder.wire import ProtocolError
from cytowatch.record.errors import CytowatchError

__all__ = ["DecoderTimedOut", "Pace"]

#: Less than this is not progress. A stage that moves by this much in each `no_progress_s` of half an hour would take
#: months, so `stage_timeout_s` ends it first.
_LEAST_MOVE = 1e-4
#: A second reader, and each further pass, begins again at 0.
_MOST_RETURNS = 16
#: A stage reports its progress ten times a second, and asks for room once per scene: some 30 bytes each time.
_BYTES_AT_ONCE = 4 << 20
_BYTES_PER_S = 10_000.0
#: The cost of reading a message besides its bytes, in bytes.
_BYTES_PER_MESSAGE = 100


class DecoderTimedOut(CytowatchError):
    """The stage took longer than allowed, or showed no progress for too long.

    `reason` is ``timed_out`` or ``no_progress``, `limit_s` the limit in seconds that it passed.
    """

    def __init__(self, reason: str, limit_s: float) -> None:
        super().__init__(f"{reason}: {limit_s:g} s")
        self.reason = reason
        self.limit_s = limit_s


class Pace:
    """Guards the limits of one stage; times in seconds, `now` on the monotonic clock."""

    def __init__(self, whole_s: float, silent_s: float, *, now: float) -> None:
        self._whole_s = whole_s
        self._silent_s = silent_s
        self._began = now
        self._moved_at = now
        self._most = -_LEAST_MOVE
        self._returns = 0
        self._bytes = 0

    @property
    def left_s(self) -> float:
        """The seconds in which it must move or end."""
        end = min(self._began + self._whole_s, self._moved_at + self._silent_s)
        return end - time.monotonic()

    @property
    def whole_left_s(self) -> float:
        """The seconds that the stage may still take in all."""
        return self._began + self._whole_s - time.monotonic()

    def heard(self, size_bytes: int, now: float) -> None:
        """One more message of that size came.

        Raises
        ------
        ProtocolError
            There are more than any stage sends.
        """
        self._bytes += size_bytes + _BYTES_PER_MESSAGE
        if self._bytes > _BYTES_AT_ONCE + _BYTES_PER_S * (now - self._began):
            raise ProtocolError(f"messages of {self._bytes:,} bytes")

    def moved(self, share: float, now: float) -> None:
        """The stage reports the `share` that is done; it counts only if it is more than before."""
        if share >= self._most + _LEAST_MOVE:
            self._moved_at, self._most = now, share
        elif share < self._most - 2 * _LEAST_MOVE and self._returns < _MOST_RETURNS:
            self._returns += 1
            self._moved_at, self._most = now, share

    def passed(self) -> DecoderTimedOut:
        """The limit that was passed."""
        if time.monotonic() >= self._began + self._whole_s:
            return DecoderTimedOut("timed_out", self._whole_s)
        return DecoderTimedOut("no_progress", self._silent_s)
