"""The live view: `cytowatch watch`."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cytowatch.cli.app import ConfigOption, JsonOption, RootOption, app, print_json, spool_of
from cytowatch.cli.lists import today, where_dropped
from cytowatch.cli.picture import draw
from cytowatch.cli.show import console, safe
from cytowatch.lifecycle.summary import Estimates, Rates, status_page
from cytowatch.record.manifest import utc
from cytowatch.tree import find
from cytowatch.tree.index.rows import Row
from cytowatch.tree.spool import Spool

__all__ = ["Looks", "frame"]

_EVERY_S = 0.5
#: How many finished ones are read: as many as fit any terminal; for JSON a few.
_ENDED, _ENDED_JSON = 100, 8


@dataclass(slots=True)
class Looks:
    """What successive looks know: how much time is left, how fast drops grow, and where each was dropped."""

    estimates: Estimates = field(default_factory=Estimates)
    rates: Rates = field(default_factory=Rates)
    #: By id, what was shown last: a manifest is read once for it.
    drop_paths: dict[str, str] = field(default_factory=dict)


def frame(spool: Spool, looks: Looks, now: float, *, ended: int = _ENDED) -> dict[str, Any]:
    """All that one picture shows, ready for JSON; the status page, what is in work, what has ended."""
    with find.indexed(spool) as index:
        live = find.live(spool)
        page = status_page(spool, index, find.daemon_pid(spool), live)
        finished = index.select(final=True, sort="ended", limit=ended)
        working = index.select(ids=list(page["in_work"]), ascending=True)
    paths: dict[str, str] = {
        row.id: looks.drop_paths.get(row.id) or _drop_path(spool, row)
        for row in (*working, *finished)
    }
    looks.drop_paths = paths
    in_work = []
    for row in working:
        at = page["in_work"][row.id]
        left_s = looks.estimates.left_s(row.id, at["status"], at["share"], now)
        in_work.append(
            {"id": row.id, "name": row.name, "drop_path": paths[row.id], "user": row.user, **at, "left_s": left_s}
        )  # fmt: skip
    looks.estimates.forget_all_but({row.id for row in working})
    waiting = [
        {**drop, "bytes_per_s": looks.rates.bytes_per_s(drop["path"], drop["size_bytes"], now)}
        for drop in page["waiting"]
    ]
    looks.rates.forget_all_but({drop["path"] for drop in waiting})
    return {
        **page,
        "in_work": in_work,
        "waiting": waiting,
        "workers": (live or {}).get("workers", {}),
        "watcher": (live or {}).get("watcher", {}),
        "ended": [
            {
                "id": row.id, "name": row.name, "drop_path": paths[row.id], "user": row.user,
                "status": row.status.name, "at": row.changed_at, "reason": row.reason,
            }
            for row in finished
        ],
    }  # fmt: skip


def _drop_path(spool: Spool, row: Row) -> str:
    """Where it was dropped, below ``inbox/``: two slides of one name differ by it."""
    entry = find.entry(spool, row)
    if entry is None or entry.damaged is not None:
        return f"{row.user}/{row.name}"
    return entry.manifest["drop_path"]


@app.command()
def watch(
    once: Annotated[bool, typer.Option("--once", help="Print one picture, then exit.")] = False,
    root: RootOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Watch live what is in progress, what waits and what has finished. Press q or Ctrl-C to end."""
    spool = spool_of(root, config)
    looks = Looks()
    if as_json:
        print_json(frame(spool, looks, time.monotonic(), ended=_ENDED_JSON))
    elif once or not console.is_terminal:
        page = frame(spool, looks, time.monotonic())
        height = console.height if console.is_terminal else 60
        console.print(draw(page, console.width, height, today()))
        if not once:
            _lines(spool)
    else:
        _live(spool, looks)


def _live(spool: Spool, looks: Looks) -> None:
    # Imported here, as below: the other commands start sooner without.
    from rich.live import Live

    with (
        _keys() as pressed,
        suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            began = time.monotonic()
            page = frame(spool, looks, began)
            live.update(draw(page, console.width, console.height, today()), refresh=True)
            # With a large index a picture takes longer, and then comes less often.
            pause_s = max(_EVERY_S, 10 * (time.monotonic() - began))
            if pressed(pause_s) in ("q", "Q", "\x1b"):
                return


def _lines(spool: Spool) -> None:
    """Where no terminal is: a line for each one that is finished, until it is interrupted."""
    since = utc(datetime.now(UTC))
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(_EVERY_S)
            with find.indexed(spool) as index:
                rows = index.ended_since(since)
            for row in rows:
                if row.changed_at > since:
                    path = safe(where_dropped(_drop_path(spool, row)))
                    print(row.changed_at, row.status.name, row.user, path, row.reason or "", flush=True)  # fmt: skip
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
