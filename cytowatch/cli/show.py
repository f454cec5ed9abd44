"""How uploaded files look on a terminal."""

from __future__ import annotations

import shutil
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from cytowatch.index import Index
from cytowatch.names import printable
from cytowatch.spool import Spool
from cytowatch.status import Status
from cytowatch.tree import Entry

__all__ = ["bytes_text", "colour", "console", "history_table", "list_table", "status_page", "tree"]

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
        "health": told.get("health", {}) if pid is not None else {},
        "disk_free_bytes": shutil.disk_usage(spool.root).free,
    }
