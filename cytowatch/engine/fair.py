"""Whose uploaded file is next: round robin over users; of each, small ones before huge ones, with ageing.

An uploaded file is due when it came plus the time that its bytes may take. So a small one overtakes
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

    Examples
    --------
    >>> queue = FairQueue()
    >>> for user, id in [("ann", "1"), ("ann", "2"), ("bob", "3")]:
    ...     queue.put(user, UploadedFileId(id))
    >>> [queue.take() for _ in range(3)]
    [('ann', '1'), ('bob', '3'), ('ann', '2')]
    """

    def __init__(self) -> None:
        self._by_user: OrderedDict[str, list[tuple[float, UploadedFileId]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, user: str, id: UploadedFileId, size_bytes: int = 0) -> None:  # noqa: A002
        """Add `id`, behind what of `user` is due before it."""
        heapq.heappush(self._by_user.setdefault(user, []), (due_s(id, size_bytes), id))
        self._length += 1

    def waiting_for(self, held: Callable[[str], bool]) -> int:
        """How many are there of users that `held` names."""
        return sum(len(ids) for user, ids in self._by_user.items() if held(user))

    def take(self, held: Callable[[str], bool] = lambda _user: False) -> tuple[str, UploadedFileId]:
        """The next one of the users that `held` does not name.

        Raises
        ------
        IndexError
            No such user has one.
        """
        free = next((user for user in self._by_user if not held(user)), None)
        if free is None:
            raise IndexError("the queue is empty")
        user, waiting = free, self._by_user[free]
        _, id_ = heapq.heappop(waiting)
        self._length -= 1
        if waiting:
            self._by_user.move_to_end(user)
        else:
            del self._by_user[user]
        return user, id_
