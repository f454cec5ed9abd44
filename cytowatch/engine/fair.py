"""Whose uploaded file is next: round robin over users, the oldest of each first."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable

from cytowatch.model import UploadedFileId

__all__ = ["FairQueue"]


class FairQueue:
    """Guards that one user's batch does not keep another user's slide waiting.

    Examples
    --------
    >>> queue = FairQueue()
    >>> for user, id in [("ann", "1"), ("ann", "2"), ("bob", "3")]:
    ...     queue.put(user, UploadedFileId(id))
    >>> [queue.take() for _ in range(3)]
    [('ann', '1'), ('bob', '3'), ('ann', '2')]
    """

    def __init__(self) -> None:
        self._by_user: OrderedDict[str, list[UploadedFileId]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, user: str, id: UploadedFileId) -> None:  # noqa: A002
        """Add `id`, behind what `user` dropped before it."""
        heapq.heappush(self._by_user.setdefault(user, []), id)
        self._length += 1

    def waiting_for(self, held: Callable[[str], bool]) -> int:
        """How many are there of users that `held` names."""
        return sum(len(ids) for user, ids in self._by_user.items() if held(user))

    def take(self, held: Callable[[str], bool] = lambda _user: False) -> tuple[str, UploadedFileId]:
        """The next one of the users that `held` does not name.

        Raises
        ------
        IndexError
            There is none.
        """
        free = next((user for user in self._by_user if not held(user)), None)
        if free is None:
            raise IndexError("the queue is empty")
        user, waiting = free, self._by_user[free]
        id_ = heapq.heappop(waiting)
        self._length -= 1
        if waiting:
            self._by_user.move_to_end(user)
        else:
            del self._by_user[user]
        return user, id_
