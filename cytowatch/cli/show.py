"""How uploaded files look on a terminal."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from cytowatch import pauses
from cytowatch.hooks.pending import dead
from cytowatch.index import Index
from cytowatch.manifest import utc
from cytowatch.names import printable
from cytowatch.spool import Spool
from cytowatch.status import Status
from cytowatch.tree import Entry

__all__ = [
    "bytes_text",
    "colour",
    "console",
    "history_table",
    "list_table",
    "safe",
    "status_lines",
    "status_page",
    "tree",
]

console = Console(highlight=False)


def colour(status: Status) -> str:
    """The colour that a status is shown in."""
    if status.is_error:
        return "red"
    return "green" if status.is_success else "cyan"


def _status(status: Status) -> str:
    return f"[{colour(status)}]{status.label}[/]"


def safe(text: str) -> str:
    """`text` without anything that a terminal or the markup would act on."""
    return escape(printable(text))


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


def list_table(found: list[Entry]) -> Table:
    """One row an uploaded file."""
    table = Table(box=None, pad_edge=False)
    for name in ("ID", "USER", "STATUS", "FORMAT"):
        table.add_column(name, overflow="fold" if name == "ID" else "ellipsis")
    table.add_column("SIZE", justify="right", no_wrap=True)
    for entry in found:
        about = entry.manifest
        table.add_row(
            safe(about["id"]),
            safe(about["user"]),
            _status(entry.status),
            about["format"]["id"] if about["format"] else "–",
            bytes_text(about["size_bytes"]),
        )
    return table


def _label(entry: Entry) -> str:
    about = entry.manifest
    parts = [f"[bold]{safe(about['name'])}[/]", _status(entry.status)]
    if about["format"]:
        parts.append(f"[dim]{about['format']['name']}[/]")
    return "  ".join(parts)


def _grow(branch: Tree, entry: Entry, children: dict[str, list[Entry]]) -> None:
    about = entry.manifest
    for file in about["files"]:
        if file["role"] == "pyramid":
            branch.add(
                f"{safe(file['path'])}  {_status(Status[file['status']])}  "
                f"[dim]{bytes_text(file['size_bytes'])}[/]"
            )
    for image in about["images"]:
        mpp = f"{image['mpp_x']:.4g} µm/px" if image["mpp_x"] else "pixel size unknown"
        power = f", {image['objective_power']:g}x" if image["objective_power"] else ""
        branch.add(
            f"[dim]{image['width']:,} x {image['height']:,} px, "
            f"{len(image['levels'])} level(s), {mpp}{power}[/]"
        )
    for child in sorted(children.get(about["id"], []), key=lambda one: one.manifest["id"]):
        _grow(branch.add(_label(child)), child, children)


def tree(entry: Entry, everything: list[Entry]) -> Tree:
    """`entry` with all that came out of it: zip, slide, pyramid."""
    children: dict[str, list[Entry]] = {}
    for one in everything:
        if parent := one.manifest["parent_id"]:
            children.setdefault(parent, []).append(one)
    root = Tree(_label(entry))
    _grow(root, entry, children)
    return root


def history_table(entry: Entry) -> Table:
    """Which status it entered when, and how long it stayed."""
    table = Table(box=None, pad_edge=False)
    for name in ("STATUS", "ENTERED", "SECONDS"):
        table.add_column(name, justify="right" if name == "SECONDS" else "left")
    for row in entry.manifest["history"]:
        seconds = row["seconds"]
        table.add_row(
            _status(Status[row["status"]]),
            row["at"],
            "" if seconds is None or Status[row["status"]].is_final else f"{seconds:.3f}",
        )
    return table


def _ended(index: Index, *, hours: float) -> dict[str, int]:
    """How many came to each end in the last `hours`."""
    since = datetime.now(UTC) - timedelta(hours=hours)
    found = Counter(row.status.name for row in index.ended_since(utc(since)))
    return {status.name: found[status.name] for status in Status if status.is_final}


def status_page(
    spool: Spool, index: Index, pid: int | None, live: dict[str, Any] | None
) -> dict[str, Any]:
    """All that ``status`` tells, ready for JSON."""
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
        "disk_free_bytes": shutil.disk_usage(spool.root).free,
    }


#: So many that wait or are in work are shown one by one.
_MOST_SHOWN = 20


def status_lines(page: dict[str, Any]) -> Iterator[str]:
    """`status_page` for people."""
    running = page["daemon"]["running"]
    told = f"running, process {page['daemon']['pid']}" if running else "[yellow]not running[/]"
    yield f"daemon   {told}"
    yield f"disk     {bytes_text(page['disk_free_bytes'])} free"
    if page["paused"]["everyone"]:
        yield "[yellow]paused[/]   everyone"
    elif page["paused"]["users"]:
        yield f"[yellow]paused[/]   {safe(', '.join(page['paused']['users']))}"
    for name, reason in page["health"].items():
        yield f"[red]{name}[/]  {safe(reason)}"
    for one in page["dead_letters"][:_MOST_SHOWN]:
        yield f"[red]untold[/]   {one['hook']} of {safe(one['id'])} {one['status']}: {safe(one['said'])}"
    hour = [f"{n} {Status[name].label}" for name, n in page["last_hour"].items() if n]
    yield f"1 hour   {', '.join(hour) or 'nothing came to its end'}"
    for status in Status:
        if count := page["files"][status.name]:
            oldest = page["oldest"].get(status.name)
            since = f"  [dim]the oldest received {oldest}[/]" if oldest else ""
            yield f"[{colour(status)}]{status.label:<18}[/] {count:>9,}{since}"
    rows = [
        f"in work  {safe(id_)}  {Status[at['status']].label} {at['share']:.0%}"
        for id_, at in page["in_work"].items()
    ]
    held = [
        f"held up  {safe(id_)}  {why['why']}: {safe(why['detail'])}"
        for id_, why in page["held_up"].items()
    ]
    waiting = [
        f"waiting  {safe(drop['path'])}  {drop['why']}: {safe(drop['detail'])}"
        for drop in page["waiting"]
    ]
    for lines in (rows, held, waiting):
        yield from lines[:_MOST_SHOWN]
        if len(lines) > _MOST_SHOWN:
            yield f"         [dim]and {len(lines) - _MOST_SHOWN:,} more[/]"
