"""What ``list`` prints: a table that fits the terminal, a whole one for a pipe, and CSV.

`list` is typed all day and asked by scripts, so it starts without rich, which takes longer to load than a
million rows take to search.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cytowatch.cli.columns import Column, cut, fitted, lines
from cytowatch.cli.page import colour, no_formula, status_text, styled
from cytowatch.lifecycle.summary import bytes_text
from cytowatch.record.names import printable
from cytowatch.tree.find import Entry

__all__ = ["list_lines", "today", "waiting_lines", "where_dropped", "write_csv"]

_CSV = (
    "id",
    "name",
    "user",
    "status",
    "time",
    "reason",
    "format",
    "size_bytes",
    "drop_path",
    "lost",
)
_CSV_WAITING = ("user", "drop_path", "why", "detail", "size_bytes", "since")


def where_dropped(drop_path: str) -> str:
    """A path of an inbox as its user knows it.

    >>> where_dropped("ann/case-101/HE.svs"), where_dropped("a.svs")
    ('case-101/HE.svs', 'a.svs')
    """
    return drop_path.partition("/")[2] or drop_path


def list_lines(found: Sequence[Entry], width: int | None, now: datetime) -> Iterator[str]:
    """One line per uploaded file, with a heading.

    Parameters
    ----------
    width
        Of the terminal. No line is longer: ids shrink to their four characters, which every command
        takes, columns are left out, and last the reason goes to a line of its own. None means that
        the output is not a terminal: nothing is cut, and times are UTC.
    now
        The year, or the day, of a time is left out where it is this one and there is little room.
    """
    whole, *layouts = _layouts(found, now)
    if width is None:
        layout, widths = whole, [column.widest for column in whole]
    else:
        number, widths = fitted(layouts, width)
        layout = layouts[number]
    folded = all(column.title != "REASON" for column in layout)
    status_at = next(at for at, column in enumerate(layout) if column.title == "STATUS")
    for at, row in enumerate(lines(layout, widths), -1):
        entry = found[at] if at >= 0 else None
        if entry is not None:
            row[status_at] = styled(row[status_at], colour(entry.status))
        yield "  ".join(row).rstrip()
        if entry is not None and folded and (reason := _reason(entry)):
            indent = " " * (widths[0] + 2)
            yield indent + styled(cut(reason, (width or 80) - len(indent)), "red")


def _layouts(found: Sequence[Entry], now: datetime) -> list[list[Column]]:
    """What there may be room for, the richest first; the very first is for a pipe."""
    about = [entry.manifest for entry in found]
    names = [printable(one["name"]) for one in about]
    paths = [printable(where_dropped(one["drop_path"])) for one in about]
    ids = Column(title="ID", texts=[one["id"] for one in about])
    short = Column(
        title="ID", texts=[(one["id"].split("-") + [""] * 3)[2] or one["id"] for one in about]
    )
    name = Column(title="NAME", texts=names, least=24)
    path = Column(title="DROPPED AS", texts=paths, least=28)
    user = Column(title="USER", texts=[printable(one["user"]) for one in about], least=10)
    status = Column(title="STATUS", texts=[status_text(entry) for entry in found])
    reason = Column(title="REASON", texts=[_reason(entry) for entry in found])
    form = Column(
        title="FORMAT", texts=[one["format"]["id"] if one["format"] else "–" for one in about]
    )
    size = Column(title="SIZE", texts=[bytes_text(one["size_bytes"]) for one in about], right=True)
    utc = Column(title="TIME", texts=[_second(one["received_at"]) for one in about])
    minute, brief = (
        Column(title="TIME", texts=[_when(one["received_at"], now, brief=brief) for one in about])
        for brief in (False, True)
    )
    # Where nothing lay in a folder or an archive the path says no more than the name.
    where = [] if paths == names else [path]
    called = Column(title="NAME", texts=paths if where else names, least=20)
    return [
        [ids, name, user, status, utc, reason, form, size, path],
        [ids, name, *where, user, status, minute, reason, form, size],
        [short, name, *where, user, status, minute, reason, form, size],
        [short, called, user, status, minute, reason, form, size],
        [short, called, user, status, minute, reason, size],
        [short, called, user, status, brief, reason, size],
        [short, called, user, status, brief, reason],
        [short, called, status, brief, reason],
        [short, replace(called, least=14), status, brief],
        [short, replace(called, least=8), status],
    ]


def _reason(entry: Entry) -> str:
    error = entry.manifest["error"]
    return printable(error["reason"]) if error else ""


def _second(text: str) -> str:
    """A time of a manifest in UTC, to the second.

    >>> _second("2026-11-29T23:15:45.422Z"), _second("2026-11-29T23:15:45Z")
    ('2026-11-29T23:15:45Z', '2026-11-29T23:15:45Z')
    """
    return re.sub(r"\.\d+(?=Z$)", "", printable(text))


def _when(text: str, now: datetime, *, brief: bool) -> str:
    """A time of a manifest on the clock of anyone who looks."""
    try:
        at = datetime.fromisoformat(text).astimezone(now.tzinfo)
    except (ValueError, OverflowError):
        return printable(text)[:16]
    if not brief:
        return f"{at:%Y-%m-%d %H:%M}"
    if at.date() == now.date():
        return f"{at:%H:%M}"
    return f"{at:%m-%d}" if at.year == now.year else f"{at:%Y-%m-%d}"


def waiting_lines(
    drops: Sequence[dict[str, Any]], width: int | None, now: datetime
) -> Iterator[str]:
    """One line per drop that waits in an inbox, with a heading."""
    said = [printable(one["detail"] or "") for one in drops]
    whole = width is None
    name = Column(
        title="DROPPED AS", texts=[printable(where_dropped(one["path"])) for one in drops], least=20
    )
    user = Column(title="USER", texts=[printable(one["user"]) or "–" for one in drops], least=10)
    why = Column(title="WHY", texts=[printable(one["why"]) for one in drops])
    size = Column(title="SIZE", texts=[bytes_text(one["size_bytes"]) for one in drops], right=True)
    since = Column(title="SINCE", texts=[
        _second(one["since"]) if whole else _when(one["since"], now, brief=True) for one in drops
    ])  # fmt: skip
    detail = Column(title="DETAIL", texts=said, least=40, prose=True)
    layouts = [
        [name, user, why, since, size, detail],
        [name, user, why, since, size],
        [name, why, since, size],
        [name, user, why],
        [name, why],
    ]
    number, widths = (
        (0, [c.widest for c in layouts[0]]) if width is None else fitted(layouts, width)
    )
    folded = number > 0
    for at, row in enumerate(lines(layouts[number], widths), -1):
        yield "  ".join(row).rstrip()
        if folded and at >= 0 and said[at] and width is not None:
            yield "  " + styled(cut(said[at], width - 2, prose=True), dim=True)


def write_csv(found: Sequence[Entry] | Sequence[dict[str, Any]], *, waiting: bool) -> None:
    """Print all of it for a spreadsheet: nothing is cut, times are UTC, sizes are bytes.

    A text that a spreadsheet would run as a formula has an apostrophe before it.
    """
    # Imported here: a list for people does not need it.
    import csv

    to = csv.writer(sys.stdout)
    to.writerow(_CSV_WAITING if waiting else _CSV)
    for one in found:
        values = _of_entry(one) if isinstance(one, Entry) else _of_drop(one)
        to.writerow([_harmless(value) if isinstance(value, str) else value for value in values])


def _of_entry(entry: Entry) -> tuple[Any, ...]:
    about = entry.document
    return (
        about["id"], about["name"], about["user"], entry.status.name, about["received_at"],
        about["error"]["reason"] if about["error"] else "",
        about["format"]["id"] if about["format"] else "", about["size_bytes"], about["drop_path"],
        about["lost"],
    )  # fmt: skip


def _of_drop(drop: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(drop[key] for key in ("user", "path", "why", "detail", "size_bytes", "since"))


def _harmless(text: str) -> str:
    return no_formula(printable(text), begins=text)


def today() -> datetime:
    """The time on the clock of anyone who looks."""
    return datetime.now(UTC).astimezone()
