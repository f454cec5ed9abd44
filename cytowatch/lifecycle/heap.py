"""Memory that is free again goes back to the machine, so that years of odd drops do not add up.

glibc keeps what threads have freed in arenas, up to eight for each core, and gives nothing back of an arena
whose end is in use (docs/performance.md has what that came to). Elsewhere (musl) there is nothing to do.

Source: mallopt(3), malloc_trim(3)
"""

from __future__ import annotations

import ctypes

__all__ = ["Heap", "share_one_arena"]

_M_ARENA_MAX = -8
_GIVE_BACK_EVERY_S = 60.0
_libc = ctypes.CDLL(None)


def share_one_arena() -> None:
    """Let all threads share one arena; to be called before there are any others.

    A thread keeps the arena of its first allocation. The interpreter lets one thread at a time allocate, so
    they do not wait for each other.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)


class Heap:
    """Guards that what is free is given back once a minute; for the main thread only."""

    def __init__(self) -> None:
        self._again_at = float("-inf")

    def give_back(self, now: float) -> None:
        """Give back what is free, if it is time; takes a few milliseconds."""
        if now >= self._again_at and hasattr(_libc, "malloc_trim"):
            self._again_at = now + _GIVE_BACK_EVERY_S
            _libc.malloc_trim(0)
