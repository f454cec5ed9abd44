"""Whose claim is next: users take turns, and the huge files of one do not hold all threads."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from cytowatch import aside
from cytowatch.threads import pool

__all__ = ["Turns"]

T = TypeVar("T")


class Turns(Generic[T]):
    """Guards that what is put in is done by a few threads, one of each user after the other.

    Parameters
    ----------
    do
        Called in a thread with each.
    failed
        Called in that thread with one of which `do` raised something all the same, and what.
    threads
        So many are done at a time.
    of_one
        So many of them of one user at most: a claim waits for the disk as long as it syncs a file.

    Memory bound
    ------------
    Each item that waits costs one reference, and there is one task per thread, not one per item. `put`
    upholds it: it hands a task to the pool only while a thread is free. Without it a hundred thousand drops
    would cost more memory as tasks than everything that is known of them.
    """

    def __init__(
        self,
        do: Callable[[T], None],
        *,
        failed: Callable[[T, str], None] = lambda _one, _why: None,
        threads: int,
        of_one: int,
    ) -> None:
        self._do = do
        self._failed = failed
        self._most = threads
        self._of_one = of_one
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._begun: Counter[str] = Counter()
        self._threads = 0
        # One task for each thread that has something to do, not one for each that waits: of a hundred
        # thousand drops those would take more memory than all that is known of them.
        self._executor = pool(threads, "claim")

    def put(self, user: str, one: T) -> None:
        """Let `one` be done when it is the turn of `user`."""
        with self._lock:
            self._waiting.setdefault(user, deque()).append(one)
            if self._threads == self._most:
                return
            self._threads += 1
        self._executor.submit(self._serve)

    def stop(self) -> None:
        """Finish the ones that have started; no other starts."""
        with self._lock:
            self._waiting.clear()
        self._executor.shutdown(wait=True)

    def _serve(self) -> None:
        user: str | None = None
        while True:
            with self._lock:
                if user is not None:
                    self._begun[user] -= 1
                    if not self._begun[user]:
                        del self._begun[user]
                taken = self._take()
                if taken is None:
                    # What still waits is of users whose own threads come back for it.
                    self._threads -= 1
                    return
            user, one = taken
            with aside.fence("claim", user) as fenced:
                self._do(one)
            if fenced.failed:
                # Anyone who put it in counts on its end.
                self._failed(one, fenced.why)

    def _take(self) -> tuple[str, T] | None:
        free = (user for user in self._waiting if self._begun[user] < self._of_one)
        user = next(free, None)
        if user is None:
            return None
        waiting = self._waiting[user]
        one = waiting.popleft()
        if waiting:
            self._waiting.move_to_end(user)
        else:
            del self._waiting[user]
        self._begun[user] += 1
        return user, one
