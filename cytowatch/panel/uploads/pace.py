"""How fast one user may add bytes: all uploads of a user share one rate."""

from __future__ import annotations

import asyncio
import time

__all__ = ["Pace"]

_MOST_KEPT = 1000


class Pace:
    """Guards when each user may send the next byte; in one event loop.

    While a body has to wait, it is not read, so its client has to wait as well.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    async def passed(self, user: str, size: int, bytes_per_s: int) -> None:
        """Wait for as long as `size` bytes of `user` take at this rate."""
        now = time.monotonic()
        due = max(now, self._due.get(user, now)) + size / bytes_per_s
        if len(self._due) >= _MOST_KEPT:
            self._due = {one: end for one, end in self._due.items() if end > now}
        self._due[user] = due
        await asyncio.sleep(due - now)
