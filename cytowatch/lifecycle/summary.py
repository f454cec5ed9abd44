"""The state of a whole tree, ready for JSON: what `status`, `watch` and the panel show."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cytowatch.hooks.pending import dead
from cytowatch.record.manifest import utc
from cytowatch.record.status import Status
from cytowatch.tree import pauses, room
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["Estimates", "Rates", "bytes_text", "status_page", "time_text"]

#: A share that has not grown by this much says nothing about the time that is left.
_LEAST_SHARE = 0.02
_LEAST_S = 2.0
#: A rate is that of the last seconds, so that a pause is seen soon.
_RATE_OVER_S = 6.0
_LEAST_RATE_S = 0.4


def bytes_text(count: float) -> str:
    """A size for people.

    >>> bytes_text(999), bytes_text(1_938_955)
    ('999 B', '1.9 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def time_text(seconds: float | None) -> str:
    """A time that is left, for people; nothing where it is unknown.

    >>> time_text(None), time_text(7.2), time_text(185), time_text(7300)
    ('', '7 s', '3 min', '2.0 h')
    """
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@dataclass(slots=True)
class Estimates:
    """How much time is left of each stage, estimated from how its share has grown since it was first seen."""

    _first: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def left_s(self, id_: str, stage: str, share: float, now: float) -> float | None:
        """Seconds until the stage is done; None while it is unknown.

        Examples
        --------
        >>> estimates = Estimates()
        >>> estimates.left_s("a", "CONVERTING", 0.1, 0.0) is None
        True
        >>> estimates.left_s("a", "CONVERTING", 0.3, 10.0)
        35.0
        """
        began, first = self._first.setdefault((id_, stage), (now, share))
        if share - first < _LEAST_SHARE or now - began < _LEAST_S:
            return None
        return round((1.0 - share) * (now - began) / (share - first), 3)

    def forget_all_but(self, ids: set[str]) -> None:
        """Only `ids` are still in work."""
        self._first = {key: seen for key, seen in self._first.items() if key[0] in ids}


@dataclass(slots=True)
class Rates:
    """How fast the drops grow that are being received, from successive looks at them."""

    _seen: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def bytes_per_s(self, path: str, size_bytes: float, now: float) -> float | None:
        """Bytes per second of the last seconds; None while it does not grow, or at the first look.

        Examples
        --------
        >>> rates = Rates()
        >>> rates.bytes_per_s("a", 1000, 0.0), rates.bytes_per_s("a", 3000, 2.0), rates.bytes_per_s("a", 3000, 10.0)
        (None, 1000.0, None)
        """
        looks = self._seen.setdefault(path, [])
        looks.append((now, size_bytes))
        while now - looks[0][0] > _RATE_OVER_S:
            looks.pop(0)
        (began, first), more = looks[0], size_bytes - looks[0][1]
        if now - began < _LEAST_RATE_S or more <= 0 or first < 0:
            return None
        return round(more / (now - began), 1)

    def forget_all_but(self, paths: set[str]) -> None:
        """Only `paths` still lie in an inbox."""
        self._seen = {path: looks for path, looks in self._seen.items() if path in paths}


def _ended(index: Index, *, hours: float) -> dict[str, int]:
    """How many came to each end in the last `hours`."""
    since = datetime.now(UTC) - timedelta(hours=hours)
    found = Counter(row.status.name for row in index.ended_since(utc(since)))
    return {status.name: found[status.name] for status in Status if status.is_final}


def status_page(
    spool: Spool, index: Index, pid: int | None, live: dict[str, Any] | None
) -> dict[str, Any]:
    """All that ``status`` shows, ready for JSON."""
    there = room.free(spool.root)
    counts = index.counts()
    told = live if live is not None else {}
    return {
        "daemon": {"running": pid is not None, "pid": pid, "version": told.get("version")},
        "root": str(spool.root),
        "files": {status.name: counts[status] for status in Status},
        "oldest": {status.name: at for status, at in index.oldest().items()},
        "in_work": told.get("progress", {}) if pid is not None else {},
        "held_up": told.get("held_up", {}) if pid is not None else {},
        "waiting": told.get("waiting", []),
        "waiting_as_of": told.get("at"),
        "paused": pauses.read(spool).document,
        "dead_letters": [asdict(one) for one in dead(spool)],
        "last_hour": _ended(index, hours=1),
        "health": told.get("health", {}) if pid is not None else {},
        "set_aside": told.get("set_aside", []) if pid is not None else [],
        "missing": len(index.missing()),
        "disk_free_bytes": there.bytes,
        "inodes_free": there.inodes,
    }
