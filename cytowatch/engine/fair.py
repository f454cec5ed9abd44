"""Whose uploaded file is next: the user's who has had the least time; of each, small ones before huge ones, with ageing.

Time is counted and not files, because a file whose decoder hangs takes as long as a hundred others: one of
another user for each of these would be a hundredth of the threads. An uploaded file is due when it came plus the time that its bytes may take. So a small one overtakes
a huge one that came shortly before it, and none that has waited as long as it takes itself.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from cytowatch.record.names import UploadedFileId

__all__ = ["FairQueue", "due_s"]

#: What a core reads while it converts, in bytes a second; only the order hangs on it.
_BYTES_A_SECOND = 50e6


def due_s(id: UploadedFileId, size_bytes: int) -> float:  # noqa: A002
    """When `id` is due, in seconds of the clock: when it came, and as much later as it is large.

    >>> small = due_s(UploadedFileId("20261123-141502-k3f9-a"), 4_000)
    >>> huge = due_s(UploadedFileId("20261123-141002-k3f9-b"), 40_000_000_000)
    >>> round(huge - small)
    500
    """
    try:
        came = datetime.strptime(f"{id[:15]}+0000", "%Y%m%d-%H%M%S%z").timestamp()
    except ValueError:
        came = 0.0
    return came + size_bytes / _BYTES_A_SECOND


class FairQueue:
    """Guards that one user's batch does not keep another user's slide waiting, nor size anybody.

    Users have a like share of the time of all threads while they have anything to treat. What one has not used
    before that is not saved for later, but what one has used too much stays a debt until nobody waits.

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
        #: Seconds that the files of a user have had, as far as others have not had as much.
        self._used_s: dict[str, float] = {}
        #: What is being treated: its user, and since when.
        self._running: dict[UploadedFileId, tuple[str, float]] = {}

    def __len__(self) -> int:
        return self._length

    def put(self, user: str, id: UploadedFileId, size_bytes: int = 0, *, now: float) -> None:  # noqa: A002
        """Add `id`, behind what of `user` is due before it."""
        used_s = self._with_running(now)
        if user not in used_s:
            # As much as the one who has had least: not more than anybody who was there before.
            least_s = min(used_s.values(), default=0.0)
            self._used_s[user] = max(least_s, self._used_s.get(user, 0.0))
        heapq.heappush(self._by_user.setdefault(user, []), (due_s(id, size_bytes), id))
        self._length += 1

    def waiting_for(self, held: Callable[[str], bool]) -> int:
        """How many are there of users that `held` names."""
        return sum(len(ids) for user, ids in self._by_user.items() if held(user))

    def take(
        self, held: Callable[[str], bool] = lambda _user: False, *, now: float
    ) -> tuple[str, UploadedFileId]:
        """The next one of the users that `held` does not name; its time counts until it has `ended`.

        Raises
        ------
        IndexError
            No such user has one.
        """
        used_s = self._with_running(now)
        free = [user for user in self._by_user if not held(user)]
        if not free:
            raise IndexError("the queue is empty")
        # Of those who have had as much, the one whose turn was longest ago.
        user = min(free, key=lambda user: used_s[user])
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
        if not self._running and not self._length:
            self._used_s.clear()

    def _with_running(self, now: float) -> dict[str, float]:
        """What each user who waits or is served has had, with what is being treated."""
        found = {user: self._used_s.get(user, 0.0) for user in self._by_user}
        for user, began in self._running.values():
            found[user] = found.get(user, self._used_s.get(user, 0.0)) + now - began
        return found
