"""Logs: one line an event; JSON unless a person reads along on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

__all__ = ["configure", "get", "stage_line"]


def configure(level: str, format: str, stream: TextIO | None = None) -> None:  # noqa: A002
    """Set up logging for this process; libraries' own warnings come out the same way.

    Parameters
    ----------
    format
        ``json``, ``console``, or ``auto``: JSON unless `stream` is a terminal.
    """
    out = stream or sys.stdout
    as_json = format == "json" or (format == "auto" and not out.isatty())
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
    ]
    last: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=True)
        if as_json
        else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def get() -> Any:
    """The logger."""
    return structlog.get_logger()


def stage_line(log: Any, *, from_: str, to: str, **known: Any) -> None:
    """The one line that a change of status is told in."""
    tell = log.warning if to.startswith("ERROR") else log.info
    tell("stage", **{"from": from_, "to": to, **known})
