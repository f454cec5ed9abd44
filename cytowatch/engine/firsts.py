"""Which uploaded file in work was the first of its content: two of them may be dropped together."""

from __future__ import annotations

import threading

__all__ = ["Contents"]


class Contents:
    """Guards who was the first of each content among those in work, for each user. Safe from any thread.

    Examples
    --------
    >>> contents = Contents()
    >>> contents.first("ann", "a hash", "1"), contents.first("ann", "a hash", "2")
    ('1', '1')
    >>> contents.release("1")
    >>> contents.first("ann", "a hash", "2")
    '2'
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: dict[tuple[str, str], str] = {}

    def first(self, user: str, key: str, id_: str) -> str:
        """Who was the first of `user` with the content `key`; `id_` itself if nobody was."""
        with self._lock:
            return self._first.setdefault((user, key), id_)

    def release(self, id_: str) -> None:
        """`id_` is finished: from now on the index knows it, if it was a good one."""
        with self._lock:
            self._first = {key: other for key, other in self._first.items() if other != id_}
