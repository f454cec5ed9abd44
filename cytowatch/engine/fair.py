"""Whose uploaded file is next: that of the user who has had the least time; within one user, small before huge.

Time counts, not the number of files. A file whose decoder hangs can take as long as a hundred others, so if users
simply took turns, its user would get nearly all of the time.

An uploaded file is due when it arrived plus the time that its bytes may take. So a small one overtakes a huge one
that arrived shortly before it, but a huge one that has waited as long as it takes itself is no longer overtaken.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from cytowatch.record.names import UploadedFileId

__all__ = ["FairQueue", "due_s"]

#: What a core reads while it converts, in bytes per second; only the order depends on it.
_BYTES_A_SECOND = 50e6


def due_s(id: UploadedFileId, size_bytes: int) -> float:  # noqa: A002
    """When `id` is due, in seconds of the clock: when it arrived, and the later the larger it is.

    >>> small = due_s(UploadedFileId("20261123-141502-k3f9-a"), 4_000)
    >>> huge = due_s(UploadedFileId("20261123-141002-k3f9-b"), 40_000_000_000)
    >>> round(huge - small)
    500
    """
    try:
        # Not strptime, which takes twenty times as long, and each claim comes by here.
        came = datetime.fromisoformat(f"{id[:8]}T{id[9:15]}+00:00").timestamp()
    except ValueError:
        came = 0.0
    return came + size_bytes / _BYTES_A_SECOND


class FairQueue:
    """Guards that one user's batch does not keep another user's slide waiting, and a huge file not the small ones.

    While users wait, each of them gets the same share of the time of all threads. Only that time counts: time that
    a user takes while nobody waits is not held against that user, and time that a user does not take is not saved.

    Examples
    --------
    >>> queue = FairQueue()
    >>> for user, id in [("ann", "1"), ("ann", "2"), ("bob", "3"), ("bob", "4")]:
    ...     queue.put(user, UploadedFileId(id), now=0)
    >>> [queue.take(now=0) for _ in range(2)]
    [('ann', '1'), ('bob', '3')]
    >>> queue.ended(UploadedFileId("1"), now=3)
    >>> queue.ended(UploadedFileId("3"), now=1)
    >>> queue.take(now=3)
    ('bob', '4')
    """

    def __init__(self) -> None:
        self._by_user: OrderedDict[str, list[tuple[float, UploadedFileId]]] = OrderedDict()
        self._length = 0
        #: Seconds that the finished files of a user have had since somebody began to wait.
        self._used_s: dict[str, float] = {}
        #: The files in work: the user of each, and the time (s, monotonic) from which it counts.
        self._running: dict[UploadedFileId, tuple[str, float]] = {}

    def __len__(self) -> int:
        return self._length

    def put(self, user: str, id: UploadedFileId, size_bytes: int = 0, *, now: float) -> None:  # noqa: A002
        """Add `id`, behind the files of `user` that are due before it; `now` in seconds of the monotonic clock."""
        if user not in self._by_user:
            self._join(user, now)
        heapq.heappush(self._by_user.setdefault(user, []), (due_s(id, size_bytes), id))
        self._length += 1

    def _join(self, user: str, now: float) -> None:
        """Let `user`, who begins to wait, start with at least as much time as the least of those who wait already."""
        if not self._by_user:
            self._used_s.clear()
            self._running = {id_: (whose, now) for id_, (whose, _) in self._running.items()}
            return
        least_s = min(self._had_s(one, now) for one in self._by_user)
        lacks_s = least_s - self._had_s(user, now)
        if lacks_s > 0:
            self._used_s[user] = self._used_s.get(user, 0.0) + lacks_s

    def waiting_for(self, held: Callable[[str], bool]) -> int:
        """How many files are waiting of the users for whom `held` is true."""
        return sum(len(ids) for user, ids in self._by_user.items() if held(user))

    def take(
        self, held: Callable[[str], bool] = lambda _user: False, *, now: float
    ) -> tuple[str, UploadedFileId]:
        """The next file, of a user for whom `held` is false; its time counts until it has `ended`.

        Raises
        ------
        IndexError
            No file of such a user waits.
        """
        free = [user for user in self._by_user if not held(user)]
        if not free:
            raise IndexError("the queue is empty")
        # Among users with the same time, the one whose turn was longest ago.
        user = min(free, key=lambda one: self._had_s(one, now))
        waiting = self._by_user[user]
        _, id_ = heapq.heappop(waiting)
        self._length -= 1
        if waiting:
            self._by_user.move_to_end(user)
        else:
            del self._by_user[user]
        self.began(user, id_, now=now)
        return user, id_

    def began(self, user: str, id: UploadedFileId, *, now: float) -> None:  # noqa: A002
        """The time of `id` counts from now on."""
        self._running[id] = user, now

    def ended(self, id: UploadedFileId, *, now: float) -> None:  # noqa: A002
        """The time of `id` counts no longer."""
        user, began = self._running.pop(id)
        self._used_s[user] = self._used_s.get(user, 0.0) + now - began

    def _had_s(self, user: str, now: float) -> float:
        """The time (s) that counts for `user`, including that of the files in work."""
        running_s = sum(now - began for whose, began in self._running.values() if whose == user)
        return self._used_s.get(user, 0.0) + running_s
