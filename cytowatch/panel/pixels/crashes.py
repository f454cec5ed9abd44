"""Which slides' decoders crashed lately, so that one slide does not crash one decoder after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Crashes"]

#: After this many crashes in this many seconds the slide is not opened for as long.
_MOST_CRASHES, _CRASHES_S = 5, 30.0
_MOST_CRASHED = 1000


class Crashes:
    """Guards how often the decoders of each slide crashed lately; with very many slides it starts again from none."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        #: How many crashes there were in all.
        self.count = 0

    def note(self, key: str) -> None:
        """The decoder of the slide `key` crashed, hung or sent an invalid answer."""
        self.count += 1
        if len(self._times) > _MOST_CRASHED:
            self._times.clear()
        self._times.setdefault(key, deque(maxlen=_MOST_CRASHES)).append(self._clock())

    def many(self, key: str) -> bool:
        """Whether the decoders of the slide `key` crashed so often lately that it is not opened."""
        times = self._times.get(key)
        if not times or len(times) < _MOST_CRASHES:
            return False
        return self._clock() - times[0] < _CRASHES_S
