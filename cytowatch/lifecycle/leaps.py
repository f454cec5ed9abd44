"""How old a thing is by the days that the daemon has lived through, no matter what the clock has done.

A clock that leaps ahead makes everything old at once, and a machine that starts with a clock at zero dates what ends
then years back. What is removed because of its age would be removed without anybody having had the time to see it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cytowatch import durable, outside
from cytowatch.outside import OutsideError

__all__ = ["Leaps"]

FILE_NAME = "clock.json"
#: A clock is set right by so much every day.
_LEAST_S = 600.0
#: A daemon that was down for less was restarted; of a longer time the clock may have made up any part.
_LONGEST_REST_S = 86_400.0
#: The longest time from one look to the next.
_LOOKS_EVERY_S = 120.0
_MOST = 100
#: The kernel's own latest time.
_LATEST_S = 1e10


class Leaps:
    """Guards which times no daemon has lived through, also over a restart; for the main thread only."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE_NAME
        #: From when to when, in seconds since 1970.
        self._leaps: list[tuple[float, float]] = []
        #: Of what was before that nothing is known.
        self._known_from = 0.0
        self._seen: tuple[float, float] | None = None

    def look(self, now: datetime, monotonic: float) -> None:
        """Take note of the time, and of a leap since the last look."""
        wall = now.timestamp()
        if self._seen is None:
            before, longest = self._read(wall), _LONGEST_REST_S
            # It lived on for a while after that.
            before = before + _LOOKS_EVERY_S if before is not None else None
        else:
            (seen, at), longest = self._seen, _LEAST_S
            before = seen + monotonic - at
        if before is not None and wall - before > longest:
            self._leaps.append((before, wall))
        # A clock that was set back had leapt by mistake.
        self._leaps = [leap for leap in self._leaps if leap[1] <= wall + _LEAST_S][-_MOST:]
        self._seen = wall, monotonic
        with suppress(OSError):
            noted = {"at": wall, "leaps": self._leaps, "known_from": self._known_from}
            durable.replace_file(self._path, json.dumps(noted))

    def age_s(self, at: datetime, now: datetime) -> float:
        """The age of what is dated `at`, without the leaps since then."""
        since = at.timestamp()
        leapt = sum(after - before for before, after in self._leaps if before >= since)
        return min(now.timestamp() - since - leapt, now.timestamp() - self._known_from)

    def _read(self, wall: float) -> float | None:
        """When the last daemon looked, if that is known; its leaps are taken over.

        A file that is damaged, as a power cut may leave it, had leaps that are not known any more.
        """
        try:
            found = outside.read_json(self._path)
            self._leaps = [(_time(before), _time(after)) for before, after in found["leaps"]]
            self._known_from = _time(found["known_from"])
            return _time(found["at"])
        except FileNotFoundError:
            return None
        except (OSError, OutsideError, KeyError, TypeError, ValueError):
            self._leaps, self._known_from = [], wall
            return None


def _time(found: object) -> float:
    return float(outside.number(found, least=0, most=_LATEST_S))
