"""The live view: `cytowatch watch`."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cytowatch.cli.app import ConfigOption, JsonOption, RootOption, app, print_json, spool_of
from cytowatch.cli.page import bytes_text, colour, free_text
from cytowatch.cli.show import console, safe
from cytowatch.lifecycle.summary import Estimates, status_page, time_text
from cytowatch.record.manifest import utc
from cytowatch.record.status import Status
from cytowatch.tree import find
from cytowatch.tree.spool import Spool

__all__ = ["draw", "frame"]

_EVERY_S = 0.5
_ENDED = 8


def frame(spool: Spool, estimates: Estimates, now: float) -> dict[str, Any]:
    """All that one picture shows, ready for JSON; the status page, what is in work, what has ended."""
    with find.indexed(spool) as index:
        live = find.live(spool)
        page = status_page(spool, index, find.daemon_pid(spool), live)
        ended = index.select(final=True, sort="ended", limit=_ENDED)
        working = index.select(ids=list(page["in_work"]), ascending=True)
    in_work = []
    for row in working:
        at = page["in_work"][row.id]
        left_s = estimates.left_s(row.id, at["status"], at["share"], now)
        in_work.append(
            {"id": row.id, "name": row.name, "user": row.user, **at, "left_s": left_s}
        )  # fmt: skip
    estimates.forget_all_but({row.id for row in working})
    return {
        **page,
        "in_work": in_work,
        "workers": (live or {}).get("workers", {}),
        "watcher": (live or {}).get("watcher", {}),
        "ended": [
            {
                "id": row.id, "name": row.name, "user": row.user, "status": row.status.name,
                "at": row.changed_at, "reason": row.reason,
            }
            for row in ended
        ],
    }  # fmt: skip


def draw(page: dict[str, Any], width: int, height: int) -> RenderableType:
    """`frame` as a picture of `width` columns and `height` lines."""
    parts: list[RenderableType] = [_head(page), *_faults(page), _counts(page), Text()]
    # Head, counts, the headings and the free lines between them take eleven lines.
    room = max(6, height - 11 - len(page["health"]) - bool(page["set_aside"]))
    working = page["in_work"][: max(2, room // 2)]
    waiting = page["waiting"][: max(2, room // 4)]
    ended = page["ended"][: max(2, room - len(working) - len(waiting) - 2)]
    parts += [_working(working, len(page["in_work"]) - len(working), width), Text()]
    parts += [_waiting(waiting, len(page["waiting"]) - len(waiting), width), Text()]
    parts.append(_ended(ended, width))
    return Group(*parts)


def _head(page: dict[str, Any]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("cytowatch", style="bold")
    if page["daemon"]["running"]:
        workers, watcher = page["workers"], page["watcher"]
        line.append("  running", style="green")
        line.append(f" ({page['daemon']['pid']})", style="dim")
        if workers:
            line.append(f"  {workers['busy']} of {workers['of']} workers")
        if watcher:
            line.append(f"  {watcher['mode']}", style="" if watcher["alive"] else "red")
    else:
        line.append("  no daemon runs", style="bold yellow")
    line.append(f"  {free_text(page)} free")
    paused = page["paused"]
    if paused["everyone"] or paused["users"]:
        who = "everyone" if paused["everyone"] else ", ".join(paused["users"])
        line.append(f"  paused: {who}", style="bold yellow")
    return line


def _faults(page: dict[str, Any]) -> Iterator[Text]:
    for name, reason in page["health"].items():
        yield Text(f"{name}: {reason}", style="red", overflow="ellipsis", no_wrap=True)
    if count := len(page["set_aside"]):
        yield Text(f"{count:,} set aside: `cytowatch status` says why", style="yellow")


def _counts(page: dict[str, Any]) -> Text:
    line = Text()
    for status in Status:
        if count := page["files"][status.name]:
            line.append(f"{count:,} ", style="bold " + colour(status))
            line.append(f"{status.label}   ", style=colour(status))
    hour = sum(page["last_hour"].values())
    line.append(f"{hour:,} ended in the last hour", style="dim")
    return line


def _table(*columns: tuple[str, int | None, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=True)
    for name, columns_wide, justify in columns:
        table.add_column(
            name, width=columns_wide, no_wrap=True, overflow="ellipsis", header_style="bold dim",
            justify="right" if justify == "right" else "left",
        )  # fmt: skip
    return table


def _more(table: Table, more: int) -> RenderableType:
    return Group(table, Text(f"and {more:,} more", style="dim")) if more > 0 else table


def _working(rows: list[dict[str, Any]], more: int, width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar

    bar = max(12, min(40, width - 62))
    table = _table(
        ("IN WORK", width - bar - 36, ""), ("USER", 8, ""), ("", 16, ""), ("", bar, ""),
        ("LEFT", 7, "right"),
    )  # fmt: skip
    if not rows:
        table.add_row("[dim]nothing[/]")
    for row in rows:
        status = Status[row["status"]]
        table.add_row(
            safe(row["name"]),
            safe(row["user"]),
            f"[{colour(status)}]{status.label}[/]",
            ProgressBar(total=1.0, completed=row["share"], width=bar),
            time_text(row["left_s"]),
        )
    return _more(table, more)


def _waiting(rows: list[dict[str, Any]], more: int, width: int) -> RenderableType:
    name = (width - 14) * 2 // 5
    table = _table(
        ("IN THE INBOXES", name, ""), ("SIZE", 9, "right"), ("WHY", width - name - 14, "")
    )
    if not rows:
        table.add_row("[dim]nothing waits[/]")
    for row in rows:
        table.add_row(
            safe(row["path"]), bytes_text(row["size_bytes"]), safe(row["detail"] or row["why"])
        )  # fmt: skip
    return _more(table, more)


def _ended(rows: list[dict[str, Any]], width: int) -> RenderableType:
    table = _table(
        ("LAST", 8, ""), ("", width - 58, ""), ("USER", 8, ""), ("", 16, ""), ("", 19, "")
    )
    if not rows:
        table.add_row("[dim]nothing[/]")
    for row in rows:
        status = Status[row["status"]]
        at = datetime.fromisoformat(row["at"]).astimezone()
        shown = f"{at:%H:%M:%S}" if (datetime.now(UTC) - at).days < 1 else f"{at:%d %b}"
        table.add_row(
            f"[dim]{shown}[/]",
            safe(row["name"]),
            safe(row["user"]),
            f"[{colour(status)}]{status.label}[/]",
            f"[red]{safe(row['reason'] or '')}[/]",
        )
    return table


@app.command()
def watch(
    once: Annotated[bool, typer.Option("--once", help="One picture, then end.")] = False,
    root: RootOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at it live: what is in work, what waits, what has ended. Ends with q or Ctrl-C."""
    spool = spool_of(root, config)
    estimates = Estimates()
    if as_json:
        print_json(frame(spool, estimates, time.monotonic()))
    elif once or not console.is_terminal:
        page = frame(spool, estimates, time.monotonic())
        console.print(draw(page, console.width, console.height if console.is_terminal else 60))
        if not once:
            _lines(spool)
    else:
        _live(spool, estimates)


def _live(spool: Spool, estimates: Estimates) -> None:
    # Imported here, as below: the other commands start sooner without.
    from rich.live import Live

    with (
        _keys() as pressed,
        suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            began = time.monotonic()
            page = frame(spool, estimates, began)
            live.update(draw(page, console.width, console.height), refresh=True)
            # With a large index a picture takes longer, and then comes less often.
            pause_s = max(_EVERY_S, 10 * (time.monotonic() - began))
            if pressed(pause_s) in ("q", "Q", "\x1b"):
                return


def _lines(spool: Spool) -> None:
    """Where no terminal is: a line for each one that comes to its end, until it is interrupted."""
    since = utc(datetime.now(UTC))
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(_EVERY_S)
            with find.indexed(spool) as index:
                rows = index.ended_since(since)
            for row in rows:
                if row.changed_at > since:
                    print(row.changed_at, row.status.name, row.user, safe(row.name), row.reason or "", flush=True)  # fmt: skip
                    since = row.changed_at


@contextmanager
def _keys() -> Iterator[Any]:
    """Gives a function that waits for a key, or for so many seconds."""
    # Imported here: no other command reads keys.
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        yield time.sleep
        return
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def pressed(pause_s: float) -> str:
        ready = select.select([descriptor], [], [], pause_s)[0]
        return os.read(descriptor, 1).decode("ascii", "replace") if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
