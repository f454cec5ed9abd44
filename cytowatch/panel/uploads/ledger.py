"""What all unfinished uploads may still write, and how many each user has: known without a look at the disk.

The truth is what lies in ``inbox/.uploads``. The ledger is read from there, follows what this process
does, and is read again from time to time and before an upload is refused for what it says.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

__all__ = ["Ledger"]

#: Refusals read the disk again, but not more often than this.
_AGAIN_S = 10.0


class Ledger:
    """Guards the sums; safe from any thread. The tokens of one owner begin alike."""

    def __init__(
        self,
        read: Callable[[], Iterable[tuple[str, int]]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._left: dict[str, int] | None = None
        #: When each began or grew last, as far as this process has seen.
        self._moved_at: dict[str, float] = {}
        self._owners: Counter[str] = Counter()
        self._sum = 0
        #: What ended while the disk was read, and may have been read before that.
        self._ended: set[str] = set()
        self._reading = False
        self._read_at = float("-inf")

    def count(self, owner: str) -> int:
        """How many unfinished uploads the owner with this key has."""
        self._load()
        return self._owners[owner]

    def missing_bytes(self) -> int:
        """What all of them may still write."""
        self._load()
        return self._sum

    def moving_bytes(self, idle_s: float) -> int:
        """What those may still write that began or grew within `idle_s`; 0 before anything was read."""
        since = self._monotonic() - idle_s
        with self._lock:
            left = self._left or {}
            return sum(size for token, size in left.items() if self._moved_at[token] >= since)

    def newest(self, begins: str) -> dict[str, list[str]]:
        """The unfinished tokens that begin so, by their folders: what grew last is first; none before anything was read."""
        with self._lock:
            times = [(at, one) for one, at in self._moved_at.items() if one.startswith(begins)]
        found: dict[str, list[str]] = {}
        for _, token in sorted(times, reverse=True):
            found.setdefault(token.partition(".")[0], []).append(token)
        return found

    def begin(self, token: str, left: int) -> None:
        """There is a new one."""
        self._load()
        with self._lock:
            self._drop(token)
            self._add(token, left)

    def left(self, token: str, left: int) -> None:
        """One has grown."""
        with self._lock:
            if self._left is not None and token in self._left:
                self._drop(token)
                self._add(token, left)

    def end(self, *tokens: str) -> None:
        """These are whole or gone."""
        with self._lock:
            if self._reading:
                self._ended.update(tokens)
            for token in tokens:
                self._drop(token)

    def read_again(self, *, most_often_s: float = _AGAIN_S) -> bool:
        """Read the disk, unless that was done a moment ago. Nothing may begin meanwhile. Gives whether it was done."""
        if self._monotonic() - self._read_at < most_often_s:
            return False
        with self._lock:
            self._reading = True
        found = None
        try:
            found = dict(self._read())
        finally:
            with self._lock:
                ended, self._ended, self._reading = self._ended, set(), False
                if found is not None:
                    self._replace({one: left for one, left in found.items() if one not in ended})
        self._read_at = self._monotonic()
        return True

    def _replace(self, found: dict[str, int]) -> None:
        before, moved_at = self._left or {}, self._moved_at
        self._left, self._moved_at, self._sum = {}, {}, 0
        self._owners.clear()
        for token, left in found.items():
            self._add(token, left)
            if before.get(token) == left:
                self._moved_at[token] = moved_at[token]

    def _load(self) -> None:
        if self._left is None:
            self.read_again(most_often_s=0)

    def _add(self, token: str, left: int) -> None:
        if self._left is not None:
            self._left[token] = left
            self._moved_at[token] = self._monotonic()
            self._sum += left
            self._owners[token.partition("-")[0]] += 1

    def _drop(self, token: str) -> None:
        if self._left is not None and token in self._left:
            self._sum -= self._left.pop(token)
            del self._moved_at[token]
            owner = token.partition("-")[0]
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
