"""The parts of the main loop, each behind a fence: one that fails costs neither the others nor the loop.

A fault of the machine (an OSError) is reported and tried again with the next turn. Anything else is a
defect: that part is set aside, left out for a while that grows, and tried again.

Source: docs/decisions/019-bulkheads.md
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cytowatch import aside
from cytowatch.observe import reports
from cytowatch.observe.health import Health

__all__ = ["Parts"]

T = TypeVar("T")


class Parts:
    """Guards that no exception of one part of the loop reaches another; for the main thread alone."""

    def __init__(self, health: Health, log: Any, defects: Path) -> None:
        self._health = health
        self._log = log
        self._defects = defects
        #: Whether a part has failed, or was left out, since this was set to False.
        self.ailing = False

    def do(self, name: str, part: Callable[[], T], otherwise: T) -> T:
        """What `part` gives; `otherwise` if it fails, or failed so lately that it is left out now."""
        if not aside.may_try("part", name):
            self.ailing = True
            return otherwise
        with self.fenced(name):
            return part()
        return otherwise

    @contextmanager
    def fenced(self, name: str) -> Iterator[None]:
        """A context whose exceptions are reported in the log and ``/healthz`` as those of `name`."""
        try:
            with aside.fence("part", name, but=(OSError,)) as fenced, self._reported(name):
                yield
        except OSError as error:
            self._fault(name, f"{error.strerror or error}: {error.filename or ''}")
        else:
            if not fenced.failed:
                self._health.clear(name)

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            self.ailing = True
            said = f"unexpected error: {type(error).__name__}: {error}"[:500]
            if self._health.reasons().get(name) != said:
                text = "".join(traceback.format_exception(error))
                report = reports.keep(self._defects, name, text, now=datetime.now(UTC))
                self._log.error("part_failed", part=name, error=said, report=report)
            self._health.fault(name, said)
            raise

    def _fault(self, name: str, said: str) -> None:
        self.ailing = True
        if self._health.reasons().get(name) != said:
            self._log.warning("fault", where=name, error=said)
        self._health.fault(name, said)
