"""How the live view looks: one picture of what `watch` knows, in the room that the terminal has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cytowatch.cli.columns import cut
from cytowatch.cli.lists import where_dropped
from cytowatch.cli.page import bytes_text, colour, free_text
from cytowatch.cli.show import safe
from cytowatch.lifecycle.summary import time_text
from cytowatch.outside import printable
from cytowatch.record.status import Status

__all__ = ["draw"]

#: Below these widths columns are left out, so that names stay readable.
_NARROW, _MIDDLE = 66, 100
#: With fewer inodes left than this, they run out before the bytes do.
_FEW_INODES = 100_000
#: The words of drops that are only being received.
_RECEIVING = frozenset({"settling", "open_for_writing", "no_lease"})


def draw(page: dict[str, Any], width: int, height: int, now: datetime) -> RenderableType:
    """`frame` as a picture of `width` columns and `height` lines, all of which it may use."""
    head = [_head(page, width), *_faults(page), *_counts(page, width), Text()]
    # Three headings, and two free lines between the three tables.
    room = max(6, height - len(head) - 5)
    # What is being received comes first, and of that the fastest.
    waiting = sorted(page["waiting"], key=lambda one: -(one["bytes_per_s"] or 0.0))
    needs = [max(1, len(one)) for one in (page["in_work"], waiting, page["ended"])]
    working_room, waiting_room, ended_room = _rooms(needs, room)
    return Group(
        *head,
        _shown(page["in_work"], working_room, partial(_working, width=width)),
        Text(),
        _shown(waiting, waiting_room, partial(_waiting, width=width, now=now)),
        Text(),
        _ended(page["ended"][:ended_room], width, now),
    )


def _rooms(needs: Sequence[int], room: int) -> list[int]:
    """How many lines each part gets of `room`: an equal share, and what others leave.

    >>> _rooms([2, 50, 100], 32), _rooms([50, 50, 100], 30), _rooms([1, 1, 5], 30)
    ([2, 15, 15], [10, 10, 10], [1, 1, 5])
    """
    given = [0] * len(needs)
    for _ in needs:
        open_ = [at for at, need in enumerate(needs) if given[at] < need]
        share = (room - sum(given)) // max(1, len(open_))
        for at in open_:
            given[at] = min(needs[at], given[at] + share)
    return given


def _shown(
    rows: Sequence[dict[str, Any]],
    room: int,
    table: Callable[[Sequence[dict[str, Any]]], RenderableType],
) -> RenderableType:
    """As many of `rows` as there is room for, and in the last line how many more there are."""
    if len(rows) <= room:
        return table(rows)
    kept = max(1, room - 1)
    return Group(table(rows[:kept]), Text(f"and {len(rows) - kept:,} more", style="dim"))


def _head(page: dict[str, Any], width: int) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("cytowatch", style="bold")
    if page["daemon"]["running"]:
        line.append("  running", style="green")
        if width >= _NARROW:
            line.append(f" ({page['daemon']['pid']})", style="dim")
    else:
        line.append("  no daemon runs", style="bold yellow")
    paused = page["paused"]
    if paused["everyone"] or paused["users"]:
        who = "everyone" if paused["everyone"] else printable(", ".join(paused["users"]))
        line.append(f"  paused: {who}", style="bold yellow")
    workers, watcher = page["workers"], page["watcher"]
    if page["daemon"]["running"] and workers:
        # A file that gives way to another user's waits in the same worker.
        busy = min(workers["busy"], workers["of"])
        line.append(f"  {busy} of {workers['of']} workers")
    if page["daemon"]["running"] and watcher:
        line.append(f"  {watcher['mode']}", style="" if watcher["alive"] else "red")
    few = page["inodes_free"] is not None and page["inodes_free"] < _FEW_INODES
    free = free_text(page) if few else bytes_text(page["disk_free_bytes"])
    line.append(f"  {free} free")
    return line


def _faults(page: dict[str, Any]) -> Iterator[Text]:
    for name, reason in page["health"].items():
        yield Text(f"{name}: {reason}", style="red", overflow="ellipsis", no_wrap=True)
    if count := len(page["set_aside"]):
        yield Text(f"{count:,} set aside: `cytowatch status` says why", style="yellow")


def _counts(page: dict[str, Any], width: int) -> list[Text]:
    """How many there are in each status; a count and its status stay on one line."""
    hour = sum(page["last_hour"].values())
    shown = [
        Text.assemble((f"{count:,} ", f"bold {colour(status)}"), (status.label, colour(status)))
        for status in Status
        if (count := page["files"][status.name])
    ]
    shown.append(Text(f"{hour:,} ended in the last hour", style="dim"))
    lines = [Text(no_wrap=True, overflow="ellipsis")]
    for one in shown:
        if lines[-1] and lines[-1].cell_len + 3 + one.cell_len > width:
            lines.append(Text(no_wrap=True, overflow="ellipsis"))
        lines[-1].append("   " if lines[-1] else "").append_text(one)
    return lines


def _table(*columns: tuple[str, int, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=True)
    for name, columns_wide, justify in columns:
        table.add_column(
            name, width=columns_wide, no_wrap=True, overflow="ellipsis", header_style="bold dim",
            justify="right" if justify == "right" else "left",
        )  # fmt: skip
    return table


def _name(text: str, width: int) -> str:
    """A name in the room that it has; the middle of a long one is left out."""
    return escape(cut(printable(text), width))


def _user(width: int) -> int:
    """The columns of a user's name: "scanner-12" fits into 80 columns, "pathology-scanner" into 100."""
    return 0 if width < _NARROW else 10 if width < _MIDDLE else 18


def _working(rows: Sequence[dict[str, Any]], width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar

    user, left = _user(width), 0 if width < _NARROW else 8
    bar = max(12, min(60, width // 4))
    name = width - bar - 16 - user - left - 2 - 2 * bool(user)
    columns = [
        ("IN WORK", name, ""),
        ("USER", user, ""),
        ("", 16, ""),
        ("", bar, ""),
        ("LEFT", left, "right"),
    ]
    table = _table(*(column for column in columns if column[1]))
    if not rows:
        table.add_row("[dim]nothing[/]")
    for row in rows:
        status = Status[row["status"]]
        shown: list[RenderableType] = [_name(where_dropped(row["drop_path"]), name)]
        shown += [safe(row["user"])] if user else []
        shown += [f"[{colour(status)}]{status.label}[/]"]
        shown += [ProgressBar(total=1.0, completed=row["share"], width=bar)]
        shown += [time_text(row["left_s"])] if left else []
        table.add_row(*shown)
    return table


def _waiting(rows: Sequence[dict[str, Any]], width: int, now: datetime) -> RenderableType:
    narrow = width < _NARROW
    # A column in which no row has anything would cut the sentences beside it.
    rate = 11 if not narrow and any(row["bytes_per_s"] for row in rows) else 0
    rest = width - 9 - rate - 2 - bool(rate)
    # A sentence needs more room than a name, and both all that there is.
    name = max(20, rest * 2 // 5)
    columns = [
        ("IN THE INBOXES", name, ""),
        ("SIZE", 9, "right"),
        ("RATE", rate, "right"),
        ("", rest - name, ""),
    ]
    table = _table(*(column for column in columns if column[1]))
    if not rows:
        table.add_row("[dim]nothing waits[/]")
    for row in rows:
        grows = row["bytes_per_s"]
        shown = [_name(row["path"], name), bytes_text(row["size_bytes"])]
        shown += [f"{bytes_text(grows)}/s" if grows else ""] if rate else []
        style = "green" if grows else ("dim" if row["why"] in _RECEIVING else "")
        said = escape(printable(_why(row, now, brief=narrow)))
        table.add_row(*shown, f"[{style}]{said}[/]" if style else said)
    return table


def _why(row: dict[str, Any], now: datetime, *, brief: bool) -> str:
    """What a drop waits for, and for how long."""
    due_s = _seconds_until(row.get("due_at"), now)
    if grows := row["bytes_per_s"]:
        return f"{bytes_text(grows)}/s" if brief else "is being received"
    if row["why"] == "settling":
        said = "settles" if due_s is None else f"taken in {due_s:.0f} s"
        return said if brief or due_s is None else f"{said}, if it stays as it is"
    said = row["detail"] or row["why"]
    left_s = _seconds_until(row.get("until"), now)
    return f"{time_text(left_s)} left: {said}" if left_s is not None else str(said)


def _seconds_until(text: str | None, now: datetime) -> float | None:
    if text is None:
        return None
    try:
        return max(0.0, (datetime.fromisoformat(text) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _ended(rows: Sequence[dict[str, Any]], width: int, now: datetime) -> RenderableType:
    user = _user(width)
    reason = 0 if width < _NARROW else 19
    name = width - 8 - 16 - user - reason - 2 - 2 * bool(user)
    columns = [("LAST", 8, ""), ("", name, ""), ("USER", user, ""), ("", 16, ""), ("", reason, "")]
    table = _table(*(column for column in columns if column[1]))
    if not rows:
        table.add_row("[dim]nothing[/]")
    for row in rows:
        status = Status[row["status"]]
        shown = [f"[dim]{_clock(row['at'], now)}[/]", _name(where_dropped(row["drop_path"]), name)]
        shown += [safe(row["user"])] if user else []
        shown += [f"[{colour(status)}]{status.label}[/]"]
        shown += [f"[red]{safe(row['reason'] or '')}[/]"] if reason else []
        table.add_row(*shown)
    return table


def _clock(text: str, now: datetime) -> str:
    """When it was, on the clock of anyone who looks: today the time, else the day."""
    try:
        at = datetime.fromisoformat(text).astimezone(now.tzinfo)
    except (ValueError, OverflowError):
        return ""
    return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%m-%d}"
