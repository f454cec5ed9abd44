"""The commands that tell of uploaded files: status, list, show."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from cytowatch.cli.app import (
    ConfigOption,
    JsonOption,
    RootOption,
    app,
    one,
    print_json,
    spool_of,
    status_named,
)
from cytowatch.cli.options import (
    FormatOption,
    IdArgument,
    ProjectFilter,
    ReasonOption,
    StatusOption,
    UserOption,
)
from cytowatch.cli.page import bytes_text, list_lines, status_lines, styled
from cytowatch.lifecycle.summary import status_page
from cytowatch.tree import find

__all__: list[str] = []


@app.command()
def status(
    root: RootOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """What is in work, what waits and why."""
    spool = spool_of(root, config)
    with find.indexed(spool) as index:
        page = status_page(spool, index, find.daemon_pid(spool), find.live(spool))
    if as_json:
        print_json(page)
        return
    for line in status_lines(page):
        print(line)


class Sort(StrEnum):
    """What a list is sorted by."""

    received = "received"
    name = "name"
    size = "size"
    status = "status"
    ended = "ended"


@app.command("list")
def list_(
    root: RootOption = None,
    config: ConfigOption = None,
    user: UserOption = None,
    wanted: StatusOption = None,
    project: ProjectFilter = None,
    form: FormatOption = None,
    reason: ReasonOption = None,
    name: Annotated[str | None, typer.Option(help="Only those with this in their name.")] = None,
    parent: Annotated[
        str | None, typer.Option(help="Only what came out of this archive or folder.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only those received since then (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Only those received before then (UTC).")
    ] = None,
    sort: Annotated[Sort, typer.Option(help="By what it is sorted, the largest first.")] = (
        Sort.received
    ),
    reverse: Annotated[bool, typer.Option("--reverse", help="The smallest first.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many; 0: all.", min=0)] = 0,
    offset: Annotated[int, typer.Option(help="Leave out so many before.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """The uploaded files: in work, in storage and in error alike, newest first."""
    spool = spool_of(root, config)
    where = {
        "user": find.spellings(spool, user) if user else None,
        "status": status_named(wanted).name if wanted else None,
        "format": form,
        "reason": reason,
        "parent_id": one(spool, parent).manifest["id"] if parent else None,
    }
    with find.indexed(spool) as index:
        rows = index.select(
            where={column: value for column, value in where.items() if value is not None},
            ids=find.project_ids(spool, project) if project else None,
            name_has=name,
            since=since.isoformat() if since else None,
            until=until.isoformat() if until else None,
            sort=sort.value,
            ascending=reverse,
            limit=limit,
            offset=offset,
        )
        found = [entry for row in rows if (entry := find.entry(spool, row))]
    if as_json:
        print_json([entry.document for entry in found])
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in list_lines(found, columns):
        print(line)
    if limit and len(rows) == limit:
        print(styled(f"the next page: --offset {offset + limit}", dim=True))


@app.command()
def show(
    wanted: IdArgument,
    root: RootOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One uploaded file: its tree, its history, and if it is in error why."""
    spool = spool_of(root, config)
    entry = one(spool, wanted)
    if as_json:
        print_json(entry.document)
        return
    # Imported here: status and list shall start without rich.
    from cytowatch.cli import show as display
    from cytowatch.cli.show import console, safe

    about = entry.manifest
    if entry.damaged is not None:
        console.print(f"[red]damaged[/]   its manifest cannot be read: {safe(entry.damaged)}")
        console.print("          restore its manifest.json from a backup; what follows is all else")
        console.print("          that is known\n")
    with find.indexed(spool) as index:
        inside = [e for row in index.below(entry.manifest["id"]) if (e := find.entry(spool, row))]
    console.print(display.tree(entry, inside))
    console.print(f"\nid        {safe(about['id'])}\nuser      {safe(about['user'])}")
    console.print(f"dropped   {safe(about['drop_path'])}, {bytes_text(about['size_bytes'])}")
    console.print(f"lies in   {safe(str(entry.path))}")
    for warning in about["warnings"]:
        console.print(f"[yellow]note[/]      {safe(warning)}")
    for skipped in about["skipped"]:
        console.print(f"[yellow]skipped[/]   {safe(skipped['name'])}: {safe(skipped['reason'])}")
    if about["error"]:
        console.print(f"[red]reason[/]    {safe(about['error']['reason'])}")
        console.print(f"          {safe(about['error']['detail'])}")
        for file in about["files"]:
            console.print(f"original  {safe(str(entry.path / file['path']))}, untouched")
    console.print()
    console.print(display.history_table(entry))
