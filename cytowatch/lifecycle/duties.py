"""The duties of the main loop, each behind a fence: one that fails costs neither the others nor the loop.

A fault of the machine (an OSError) is reported and tried again with the next turn. Anything else is a
defect: that part is set aside, left out for a while that grows, and tried again.

Source: docs/decisions/019-bulkheads.md
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cytowatch import aside
from cytowatch.observe import reports
from cytowatch.observe.health import Health

__all__ = ["Duties"]

T = TypeVar("T")


class Duties:
    """Guards that no exception of one part of the loop reaches another; for the main thread only."""

    def __init__(self, health: Health, log: Any, defects: Path) -> None:
        self._health = health
        self._log = log
        self._defects = defects
        self._report: str | None = None
        #: The names of its own parts, and of those of other threads that fail now.
        self._own: set[str] = set()
        self._others: set[str] = set()
        #: Whether a part has failed, or was left out, since this was set to False.
        self.ailing = False

    def do(self, name: str, part: Callable[[], T], otherwise: T) -> T:
        """What `part` returns; `otherwise` if it fails, or failed so recently that it is left out now."""
        self._own.add(name)
        if not aside.may_try("part", name):
            self.ailing = True
            return otherwise
        try:
            with aside.fence("part", name, but=(OSError,)) as fenced:
                found = self._reporting(name, part)
        except OSError as error:
            self._fault(name, f"{error.strerror or error}: {error.filename or ''}")
            return otherwise
        if fenced.failed:
            self._defect(name)
            return otherwise
        self._health.clear(name)
        return found

    def hear_others(self) -> None:
        """Report in ``/healthz`` what fails in other threads, and is tried again there."""
        found = {one.which: one.why for one in aside.all_of("part") if one.which not in self._own}
        for name in self._others - found.keys():
            self._health.clear(name)
        for name, why in found.items():
            self._health.fault(name, f"unexpected error: {why}")
        self._others = set(found)

    def _reporting(self, name: str, part: Callable[[], T]) -> T:
        """What `part` returns; the traceback of a defect is kept, for anyone who mends it."""
        self._report = None
        try:
            return part()
        except OSError:
            raise
        except Exception as error:
            # The same defect is met again and again, and one file is enough.
            if name not in self._health.reasons():
                text = "".join(traceback.format_exception(error))
                self._report = reports.keep(self._defects, name, text, now=datetime.now(UTC))
            raise

    def _defect(self, name: str) -> None:
        self.ailing = True
        why = next((one.why for one in aside.all_of("part") if one.which == name), "")
        said = f"unexpected error: {why}"
        if self._health.reasons().get(name) != said:
            self._log.error("part_failed", part=name, error=said, report=self._report)
        self._health.fault(name, said)

    def _fault(self, name: str, said: str) -> None:
        self.ailing = True
        if self._health.reasons().get(name) != said:
            self._log.warning("fault", where=name, error=said)
        self._health.fault(name, said)
