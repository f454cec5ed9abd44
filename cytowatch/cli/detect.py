"""The commands that show formats and need no tree: detect, formats."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from cytowatch.cli.app import JsonOption, app, print_json
from cytowatch.cli.show import console, safe, say

__all__: list[str] = []


@app.command()
def detect(files: list[Path], as_json: JsonOption = False) -> None:
    """Show what FILES are and what would be done with them. Moves nothing and decodes no pixels."""
    # Imported here, as below: only these two commands need to know the formats.
    from cytowatch.cli.told import told

    found = [told(path) for path in files]
    if as_json:
        print_json(found)
    else:
        for one in found:
            good = one["format"] is not None and one["missing"] is None
            mark = "green" if good else "red"
            say(f"{safe(one['file'])}: [{mark}]{safe(one['says'])}[/]")
    wrong = any(one["format"] is None or one["missing"] is not None for one in found)
    raise typer.Exit(1 if wrong else 0)


@app.command("formats")
def formats_(as_json: JsonOption = False) -> None:
    """Print the table of supported formats."""
    from cytowatch import formats

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
