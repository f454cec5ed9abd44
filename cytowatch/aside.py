"""One thing of many that goes wrong is *set aside*, with a reason; it is reported and tried again, and the others go on.

Anything that goes through a loop over many (a drop, a user's folder, an uploaded file, a request, a note, a
row of the index) enters it through `fence`. An exception of any kind inside costs that one only. What
is set aside is kept here, for ``status``, ``check``, the log and the metric ``set_aside_total``; as with
a log, there is one such place in a process.

Source: docs/decisions/019-bulkheads.md
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cytowatch.durable import failpoints
from cytowatch.outside import printable

__all__ = [
    "WHERES",
    "Fenced",
    "SetAside",
    "all_of",
    "clear",
    "fence",
    "keep_only",
    "listen",
    "may_pass",
    "may_try",
    "reset",
]

#: Every loop over many by the thing that enters it: the label of the metric.
WHERES = (
    "user",  # a user's inbox folder, in a scan
    "drop",  # a file or folder in an inbox
    "claim",  # what is being claimed, or was left half-claimed by a crash
    "folder",  # a dropped folder that is open
    "uploaded_file",  # an <id>/ in a stage directory or in storage
    "row",  # a row of the index
    "request",  # a request of a command
    "note",  # a note for those who see only the share
    "hook",  # a delivery of a hook
    "event",  # an event of the watcher
    "part",  # a duty of the main loop itself
)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0
#: What has failed so often in a row needs somebody to change something.
_MANY_TRIES = 3
#: At most this many are kept with their reason; the metric counts them all.
_MOST_KEPT = 1000
_LONGEST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One thing that is set aside: where, which, why, how often it was tried, when it is tried next.

    `next_at` is on the monotonic clock.
    """

    where: str
    which: str
    why: str
    tries: int
    next_at: float


_lock = threading.Lock()
_kept: dict[tuple[str, str], SetAside] = {}
_listeners: list[Callable[[SetAside], None]] = []


@dataclass(slots=True)
class Fenced:
    """Whether what is inside a `fence` was set aside; why, and when it is tried next (monotonic)."""

    failed: bool = False
    why: str = ""
    next_at: float = 0.0


@contextmanager
def fence(
    where: str, which: str, *, but: tuple[type[Exception], ...] = (), clears: bool = True
) -> Iterator[Fenced]:
    """A context in which an exception of any kind costs only `which`: it is set aside, nothing is raised.

    Parameters
    ----------
    where
        One of `WHERES`.
    which
        Names the thing: a path in an inbox, an id, a file's name.
    but
        Exceptions that mean something to the caller, and go through.
    clears
        Whether `which` has gone on if nothing is raised; not where this is only its first step.
    """
    fenced = Fenced()
    try:
        failpoints.poisoned(where, which)
        yield fenced
    except but:
        raise
    except Exception as error:  # noqa: BLE001 - this is the one place for what nobody expected
        one = _set_aside(where, which, error)
        fenced.failed, fenced.why, fenced.next_at = True, one.why, one.next_at
    else:
        if clears and _kept:
            clear(where, which)


def may_try(where: str, which: str) -> bool:
    """Whether `which` is not set aside, or its pause is over."""
    if not _kept:
        return True
    with _lock:
        found = _kept.get((where, which))
    return found is None or time.monotonic() >= found.next_at


def may_pass(where: str, which: str) -> bool:
    """Whether `which` is not set aside, or failed so few times that the cause may pass by itself."""
    if not _kept:
        return True
    with _lock:
        found = _kept.get((where, which))
    return found is None or found.tries < _MANY_TRIES


def clear(where: str, which: str) -> None:
    """`which` has gone on, or is gone."""
    with _lock:
        _kept.pop((where, which), None)


def keep_only(where: str, present: Iterable[str]) -> None:
    """Forget what was set aside at `where` and is not `present` any more."""
    if not _kept:
        return
    there = set(present)
    with _lock:
        for key in [key for key in _kept if key[0] == where and key[1] not in there]:
            del _kept[key]


def all_of(where: str | None = None) -> list[SetAside]:
    """All that is set aside now, at `where` or anywhere."""
    with _lock:
        found = list(_kept.values())
    return sorted(
        (one for one in found if where in (None, one.where)), key=lambda one: (one.where, one.which)
    )


def listen(told: Callable[[SetAside], None]) -> None:
    """Call `told` when something is set aside for the first time, or for another reason.

    It is called from the thread in which that happened, and must not raise.
    """
    _listeners.append(told)


def reset() -> None:
    """Forget everything and everybody: for a process that begins again, and for tests."""
    with _lock:
        _kept.clear()
    _listeners.clear()


def _set_aside(where: str, which: str, error: Exception) -> SetAside:
    why = _words(error)
    key = (where, which)
    with _lock:
        before = _kept.get(key)
        tries = before.tries + 1 if before else 1
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(tries - 1, 16))
        one = SetAside(
            where=where, which=which, why=why, tries=tries, next_at=time.monotonic() + pause_s
        )
        if before is not None or len(_kept) < _MOST_KEPT:
            _kept[key] = one
        fresh = before is None or before.why != why
    if fresh:
        for told in list(_listeners):
            told(one)
    return one


def _words(error: Exception) -> str:
    """What went wrong; an exception whose own text cannot be read is named all the same."""
    kind = type(error).__name__
    try:
        if isinstance(error, OSError) and error.strerror:
            said = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        else:
            said = f"{kind}: {error}" if str(error) else kind
        return printable(said[:_LONGEST])
    except Exception:  # noqa: BLE001 - a poisoned message must not end what guards against poison
        return kind
