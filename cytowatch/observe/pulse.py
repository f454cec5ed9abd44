"""Whether each part of the daemon has moved of late: only then may systemd's watchdog be fed."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Pulse"]


class Pulse:
    """Guards that no part which stands still goes unnoticed. Times in seconds, monotonic.

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
        For each part, how long it may stand still.
    now
        When all of them are taken to have moved first.
    """

    def __init__(self, longest_s: Mapping[str, float], *, now: float) -> None:
        self._longest_s = dict(longest_s)
        self._last = dict.fromkeys(longest_s, now)

    def beat(self, part: str, now: float) -> None:
        """`part` has moved at `now`. Safe from any thread."""
        self._last[part] = now

    def age_s(self, part: str, now: float) -> float:
        """How long ago `part` moved last."""
        return now - self._last[part]

    def still(self, now: float) -> dict[str, float]:
        """The parts that have stood still for longer than they may, and for how long."""
        ages = {part: now - at for part, at in self._last.items()}
        return {part: age for part, age in ages.items() if age > self._longest_s[part]}
