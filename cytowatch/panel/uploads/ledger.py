"""What all unfinished uploads may still write, and how many each user has: known without a look at the disk.

The truth is what lies in ``inbox/.uploads``. The ledger is read from there, follows what this process
does, and is read again from time to time and before an upload is refused for what it says. Where other
panels take uploads for the same tree, it is read again and again, and each panel announces what began or grew
through it; the only panel announces all that it finds at its start.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

__all__ = ["Ledger"]

#: Refusals read the disk again, but not more often than this.
_AGAIN_S = 10.0
#: Beside another panel so many times as long passes as the last reading took.
_TIMES_AS_LONG = 20


class Ledger:
    """Guards the sums; safe from any thread. The tokens of one owner begin alike.

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
        #: When each began or grew last, as far as this process has seen.
        self._moved_at: dict[str, float] = {}
        #: Those that this process announces: no other one does.
        self._mine: set[str] = set()
        self._owners: Counter[str] = Counter()
        self._sum = 0
        #: What began and what ended while the disk was read: the reading may have missed it.
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
        """What all of them may still write, and what other panels have taken on since the disk was read."""
        self._load()
        return self._sum + max(0, self._others() - self._others_then)

    def moving_bytes(self, idle_s: float) -> int:
        """What those of this process may still write that began or grew within `idle_s`; 0 before anything was read."""
        since = self._monotonic() - idle_s
        with self._lock:
            left = self._left or {}
            return sum(left[token] for token in self._mine if self._moved_at[token] >= since)

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
            if self._reading:
                self._begun.add(token)
                self._ended.discard(token)
            self._drop(token)
            self._add(token, left)
            self._mine.add(token)

    def left(self, token: str, left: int) -> None:
        """One has grown."""
        with self._lock:
            if self._left is not None and token in self._left:
                mine = token in self._mine or self._left[token] != left
                self._drop(token)
                self._add(token, left)
                if mine:
                    self._mine.add(token)

    def end(self, *tokens: str) -> None:
        """These are whole or gone."""
        with self._lock:
            if self._reading:
                self._ended.update(tokens)
            for token in tokens:
                self._drop(token)

    def load(self) -> None:
        """Read the disk, if that was never done."""
        self._load()

    def follow(self) -> None:
        """Where other panels take uploads, see what came and went through them."""
        if self._others() or self._others_then:
            self.read_again(most_often_s=max(_AGAIN_S, _TIMES_AS_LONG * self._took_s))

    def read_again(self, *, most_often_s: float = _AGAIN_S) -> bool:
        """Read the disk, unless that was done a moment ago. Gives whether it was done."""
        with self._reader:
            return self._read_now(most_often_s)

    def _read_now(self, most_often_s: float) -> bool:
        began = self._monotonic()
        if began - self._read_at < most_often_s:
            return False
        # Before the disk is: what they begin meanwhile is counted twice rather than not at all.
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
                        # This panel was started again, and its clients come back.
                        self._mine = set(self._left or ())
                    self._others_then = others
                self._begun, self._ended, self._reading = set(), set(), False
        self._read_at = self._monotonic()
        self._took_s = self._read_at - began
        return True

    def _corrected(self, found: dict[str, int]) -> dict[str, int]:
        """What was found on the disk, after what began and ended meanwhile."""
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
                # Somebody else may have been first.
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
