"""The commands that tell of formats and need no tree: detect, formats."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.table import Table

from cytowatch import formats
from cytowatch.cli.app import JsonOption, app, print_json
from cytowatch.cli.show import console, safe
from cytowatch.errors import FormatError
from cytowatch.formats import Probe, companions
from cytowatch.formats.completeness import missing

__all__: list[str] = []

T = TypeVar("T")


@app.command()
def detect(files: list[Path], as_json: JsonOption = False) -> None:
    """What FILES are, and what would be done with them; nothing is moved and no pixel decoded."""
    told = [_told(path) for path in files]
    if as_json:
        print_json(told)
    else:
        for one in told:
            good = one["format"] is not None and one["missing"] is None
            mark = "green" if good else "red"
            console.print(f"{safe(one['file'])}: [{mark}]{safe(one['says'])}[/]")
    wrong = any(one["format"] is None or one["missing"] is not None for one in told)
    raise typer.Exit(1 if wrong else 0)


def _told(path: Path) -> dict[str, Any]:
    from cytowatch.stages.detect import identify

    answer: dict[str, Any] = {
        "file": str(path), "format": None, "evidence": None, "treated": None, "missing": None,
        "reason": None,
    }  # fmt: skip
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return {**answer, "reason": "unreadable", "says": f"{error.strerror}"}
    try:
        if not path.is_file():
            said = "no regular file"
            return {**answer, "reason": "not_a_regular_file", "says": said}
        beside = _beside(path)
        probe = Probe(descriptor, name=path.name, beside=beside, path=str(path))
        lacking = missing(descriptor, probe.size_bytes) or _set_lacks(path, beside)
        found, evidence = identify(probe)
    except FormatError as error:
        return {**answer, "reason": error.reason, "says": error.detail}
    finally:
        os.close(descriptor)
    says = f"{found.name} ({evidence}): {found.treated}"
    if lacking is not None:
        says = f"{found.name} ({evidence}), but not whole: missing {lacking}"
    return {
        **answer,
        "format": found.id,
        "evidence": evidence,
        "treated": found.treated,
        "missing": lacking,
        "says": says,
    }


def _beside(path: Path) -> frozenset[str]:
    """The files of its folder, and those in the folders that bear its name."""
    folder = path.absolute().parent
    found = {entry.name for entry in os.scandir(folder) if entry.is_file()}
    for name in (path.stem, f"_{path.stem}_"):
        for top, _, files in os.walk(folder / name):
            found |= {os.path.relpath(os.path.join(top, file), folder) for file in files}
    return frozenset(found)


def _set_lacks(head: Path, beside: frozenset[str]) -> str | None:
    """What the set that the file belongs to still lacks, if it is one."""
    folder = head.absolute().parent

    def look(path: str, function: Callable[[Probe], T]) -> T:
        with open(folder / path, "rb") as file:
            return function(Probe(file.fileno(), name=os.path.basename(path)))

    sizes = {name: (folder / name).stat().st_size for name in beside}
    for group in companions.groups(sizes, look):
        if head.name in group.members:
            return group.missing
    return None


@app.command("formats")
def formats_(as_json: JsonOption = False) -> None:
    """The table of supported formats."""
    rows = [
        {
            "id": one.id,
            "format": one.name,
            "samples": one.samples,
            "marker": one.marker,
            "treated": one.treated,
            "read by": one.reader,
        }
        for one in formats.FORMATS
    ]
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.upper(), overflow="fold", no_wrap=name == "id")
    for row in rows:
        table.add_row(*(safe(value) for value in row.values()))
    console.print(table)
