"""Logs: one line per event; JSON unless a person reads along on a terminal."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any, TextIO, cast

import structlog

from cytowatch.observe.steady import Steady
from cytowatch.record.entries import Manifest
from cytowatch.record.names import printable
from cytowatch.record.skipped import losses

__all__ = ["configure", "ended_line", "get", "stage_line"]

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def configure(level: str, format: str, stream: TextIO | None = None) -> None:  # noqa: A002
    """Set up logging for this process; libraries' own warnings come out the same way.

    Parameters
    ----------
    format
        ``json``, ``console``, or ``auto``: JSON unless `stream` is a terminal.
    """
    steady = Steady(stream or sys.stdout)
    out = cast("TextIO", steady)
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
    if as_json and _is_journal(out):
        json_line = last

        def last(logger: Any, name: str, event: Any) -> str:
            priority = _PRIORITIES.get(event.get("level", "info"), 6)
            return f"<{priority}>{json_line(logger, name, event)}"

    def lost(lines: int) -> str:
        line = io.StringIO()
        log = structlog.wrap_logger(structlog.PrintLogger(line), processors=[*shared, last])
        log.warning("log_lost", lines=lines)
        return line.getvalue()

    steady.lost_line = lost
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


def _is_journal(out: TextIO) -> bool:
    """Whether what is written to `out` goes to systemd's journal.

    Source: systemd.exec(5), ``$JOURNAL_STREAM``; sd-daemon(3) for the priorities.
    """
    try:
        found = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def get() -> Any:
    """The logger, as it is configured now; structlog's own puts itself together again for each line."""
    return structlog.get_logger().bind()


def stage_line(log: Any, *, from_: str, to: str, **known: Any) -> None:
    """The one line for a change of status."""
    tell = log.warning if to.startswith("ERROR") else log.info
    tell("stage", **{"from": from_, "to": to, **known})


def ended_line(log: Any, found: Manifest) -> None:
    """The one line for a finished upload, with all that support needs.

    No pixels, no label's text, no property of a header: those can name a patient.
    """
    seconds: dict[str, float] = {}
    for entry in found["history"]:
        seconds[entry["status"]] = seconds.get(entry["status"], 0.0) + (entry["seconds"] or 0.0)
    error, conversion, lost = found["error"], found["conversion"], losses(found)
    tell = log.warning if error or lost else log.info
    tell(
        "ended",
        id=found["id"],
        status=found["status"],
        user=found["user"],
        name=printable(found["name"]),
        dropped=printable(found["drop_path"]),
        parent_id=found["parent_id"],
        format=found["format"]["id"] if found["format"] else None,
        bytes=found["size_bytes"],
        output_bytes=sum(row["size_bytes"] for row in found["files"] if row["role"] == "pyramid"),
        pixels=[[image["width"], image["height"]] for image in found["images"]],
        reader=conversion["reader"] if conversion else None,
        seconds=round(sum(seconds.values()), 3),
        seconds_by_stage={name: value for name, value in seconds.items() if value},
        attempts=max((entry["attempt"] for entry in found["history"]), default=0),
        warnings=len(found["warnings"]),
        skipped=len(found["skipped"]),
        lost=lost,
        children=len(found["children"]),
        reason=error["reason"] if error else None,
        detail=error["detail"] if error else None,
    )
