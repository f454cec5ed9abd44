"""How uploaded files look on a terminal: their tree and their history."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from cytowatch.cli.page import bytes_text, colour
from cytowatch.record.names import printable
from cytowatch.record.status import Status
from cytowatch.tree.find import Entry

__all__ = ["console", "history_table", "safe", "tree"]

console = Console(highlight=False)


def _status(status: Status) -> str:
    return f"[{colour(status)}]{status.label}[/]"


def safe(text: str) -> str:
    """`text` without anything that a terminal or the markup would act on."""
    return escape(printable(text))


def _label(entry: Entry) -> str:
    about = entry.manifest
    parts = [f"[bold]{safe(about['name'])}[/]", _status(entry.status)]
    if about["format"]:
        parts.append(f"[dim]{safe(about['format']['name'])}[/]")
    return "  ".join(parts)


def _describe(branch: Tree, entry: Entry) -> None:
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


def tree(entry: Entry, everything: list[Entry]) -> Tree:
    """`entry` with all that came out of it: zip, slide, pyramid."""
    children: dict[str, list[Entry]] = {}
    for one in sorted(everything, key=lambda one: one.manifest["id"]):
        if parent := one.manifest["parent_id"]:
            children.setdefault(parent, []).append(one)
    root = Tree(_label(entry))
    # Not by recursion, and each once: how deep it is, and that it is a tree, manifests only say.
    left = [(root, entry)]
    while left:
        branch, one = left.pop()
        _describe(branch, one)
        for child in children.pop(one.manifest["id"], []):
            if child.manifest["id"] != entry.manifest["id"]:
                left.append((branch.add(_label(child)), child))
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
            safe(row["at"]),
            "" if seconds is None or Status[row["status"]].is_final else f"{seconds:.3f}",
        )
    return table
