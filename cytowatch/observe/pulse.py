"""Whether each part of the daemon has moved recently: only then may systemd's watchdog be fed."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Pulse"]


class Pulse:
    """Guards that a part which hangs is noticed. Times in seconds, monotonic.

    >>> pulse = Pulse({"scanner": 90.0}, now=0.0)
    >>> pulse.still(80.0)
    {}
    >>> pulse.still(100.0)
    {'scanner': 100.0}
    >>> pulse.beat("scanner", 100.0)
    >>> pulse.still(110.0)
    {}

    Parameters
    ----------
    longest_s
        For each part, how long it may stay without a move.
    now
        When all of them count as having moved first.
    """

    def __init__(self, longest_s: Mapping[str, float], *, now: float) -> None:
        self._longest_s = dict(longest_s)
        self._last = dict.fromkeys(longest_s, now)

    def beat(self, part: str, now: float) -> None:
        """`part` has moved at `now`. Safe from any thread."""
        self._last[part] = now

    def age_s(self, part: str, now: float) -> float:
        """How long ago `part` last moved."""
        return now - self._last[part]

    def still(self, now: float) -> dict[str, float]:
        """The parts that have not moved for longer than they may, and for how long."""
        ages = {part: now - at for part, at in self._last.items()}
        return {part: age for part, age in ages.items() if age > self._longest_s[part]}
