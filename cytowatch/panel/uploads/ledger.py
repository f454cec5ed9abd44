"""What all unfinished uploads may still write, and how many each user has, without reading the disk each time.

``inbox/.uploads`` is the truth. The ledger is read from it at first, then follows what this process
does. It is read again from time to time, and before an upload is refused because of it. If other
panels take uploads for the same tree, it is read more often, and each panel announces the uploads that began or grew
through it. A panel without another one announces all uploads that it finds at its start.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

__all__ = ["Ledger"]

#: A refusal reads the disk again, but at most this often.
_AGAIN_S = 10.0
#: Beside another panel, the time between two readings, as a multiple of what the last one took.
_TIMES_AS_LONG = 20


class Ledger:
    """Guards the sums; safe from any thread. All tokens of one owner begin with the same key.

    Parameters
    ----------
    read
        Each unfinished upload on disk and what it may still write.
    others
        What the other panels of this tree announce.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[tuple[str, int]]],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        others: Callable[[], int] = lambda: 0,
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._others = others
        #: What they announced when the disk was read.
        self._others_then = 0
        self._lock = threading.Lock()
        #: Held by the one that reads the disk.
        self._reader = threading.Lock()
        self._left: dict[str, int] | None = None
        #: When this process last saw each of them begin or grow.
        self._moved_at: dict[str, float] = {}
        #: Those that this process announces, and no other one.
        self._mine: set[str] = set()
        self._owners: Counter[str] = Counter()
        self._sum = 0
        #: Tokens that began or ended while the disk was being read: the reading may have missed them.
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._reading = False
        self._read_at = float("-inf")
        self._took_s = 0.0

    def count(self, owner: str) -> int:
        """How many unfinished uploads the owner with this key has."""
        self._load()
        return self._owners[owner]

    def missing_bytes(self) -> int:
        """What all of them may still write, with what other panels have accepted since the disk was read."""
        self._load()
        return self._sum + max(0, self._others() - self._others_then)

    def moving_bytes(self, idle_s: float) -> int:
        """What this process's uploads that began or grew within `idle_s` may still write; 0 before the first reading."""
        since = self._monotonic() - idle_s
        with self._lock:
            left = self._left or {}
            return sum(left[token] for token in self._mine if self._moved_at[token] >= since)

    def newest(self, begins: str) -> dict[str, list[str]]:
        """By folder, the unfinished tokens that begin so, the latest to grow first; none before the first reading."""
        with self._lock:
            times = [(at, one) for one, at in self._moved_at.items() if one.startswith(begins)]
        found: dict[str, list[str]] = {}
        for _, token in sorted(times, reverse=True):
            found.setdefault(token.partition(".")[0], []).append(token)
        return found

    def begin(self, token: str, left: int) -> None:
        """Add a new upload."""
        self._load()
        with self._lock:
            if self._reading:
                self._begun.add(token)
                self._ended.discard(token)
            self._drop(token)
            self._add(token, left)
            self._mine.add(token)

    def left(self, token: str, left: int) -> None:
        """Note that an upload has grown, and may still write `left` bytes."""
        with self._lock:
            if self._left is not None and token in self._left:
                mine = token in self._mine or self._left[token] != left
                self._drop(token)
                self._add(token, left)
                if mine:
                    self._mine.add(token)

    def end(self, *tokens: str) -> None:
        """Forget uploads that are whole or gone."""
        with self._lock:
            if self._reading:
                self._ended.update(tokens)
            for token in tokens:
                self._drop(token)

    def load(self) -> None:
        """Read the disk, unless it was read before."""
        self._load()

    def follow(self) -> None:
        """If other panels take uploads, read the disk for what came and went through them."""
        if self._others() or self._others_then:
            self.read_again(most_often_s=max(_AGAIN_S, _TIMES_AS_LONG * self._took_s))

    def read_again(self, *, most_often_s: float = _AGAIN_S) -> bool:
        """Read the disk, unless it was read a moment ago; gives whether it was read now."""
        with self._reader:
            return self._read_now(most_often_s)

    def _read_now(self, most_often_s: float) -> bool:
        began = self._monotonic()
        if began - self._read_at < most_often_s:
            return False
        # Asked before the disk is read, so that what they begin meanwhile counts twice rather than not at all.
        others = self._others()
        with self._lock:
            self._reading = True
        found = None
        try:
            found = dict(self._read())
        finally:
            with self._lock:
                first = self._left is None
                if found is not None:
                    self._replace(self._corrected(found))
                    if first and not others:
                        # This panel was restarted, and its clients will come back.
                        self._mine = set(self._left or ())
                    self._others_then = others
                self._begun, self._ended, self._reading = set(), set(), False
        self._read_at = self._monotonic()
        self._took_s = self._read_at - began
        return True

    def _corrected(self, found: dict[str, int]) -> dict[str, int]:
        """What was found on the disk, corrected by what began and ended meanwhile."""
        begun = (
            {one: self._left[one] for one in self._begun if one in self._left} if self._left else {}
        )
        return {one: left for one, left in {**found, **begun}.items() if one not in self._ended}

    def _replace(self, found: dict[str, int]) -> None:
        before, moved_at, mine = self._left or {}, self._moved_at, self._mine
        self._left, self._moved_at, self._mine, self._sum = {}, {}, set(), 0
        self._owners.clear()
        for token, left in found.items():
            self._add(token, left)
            if before.get(token) == left:
                self._moved_at[token] = moved_at[token]
                if token in mine:
                    self._mine.add(token)

    def _load(self) -> None:
        if self._left is None:
            with self._reader:
                # Another thread may have been first.
                if self._left is None:
                    self._read_now(0)

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
            self._mine.discard(token)
            owner = token.partition("-")[0]
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
