"""Whose claim is next: users take turns, and the huge files of one user never occupy all threads."""

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
    """Lets a few threads do what is put in, with the users taking turns.

    Parameters
    ----------
    do
        Called in a thread with each.
    failed
        Called in that thread with an item for which `do` raised an error, and the error.
    threads
        The number of items done at a time.
    of_one
        The most of them for one user, because a claim waits for the disk while it syncs a file.

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
        self._executor = pool(threads, "claim")

    def put(self, user: str, one: T) -> None:
        """Do `one` when it is the turn of `user`."""
        with self._lock:
            self._waiting.setdefault(user, deque()).append(one)
            if self._threads == self._most:
                return
            self._threads += 1
        self._executor.submit(self._serve)

    def stop(self) -> None:
        """Finish those that have started, and start no others."""
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
