"""The commands that tell of uploaded files: status, list, show."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from cytowatch import tree
from cytowatch.cli import show as display
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
from cytowatch.cli.show import console, safe
from cytowatch.status import Status

__all__: list[str] = []


@app.command()
def status(
    root: RootOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """What is in work, what waits and why."""
    spool = spool_of(root, config)
    page = display.status_page(
        spool, list(tree.entries(spool)), tree.daemon_pid(spool), tree.live(spool)
    )
    if as_json:
        print_json(page)
        return
    running = page["daemon"]["running"]
    told = f"running, process {page['daemon']['pid']}" if running else "[yellow]not running[/]"
    console.print(f"daemon   {told}")
    console.print(f"disk     {display.bytes_text(page['disk_free_bytes'])} free")
    for name, reason in page["health"].items():
        console.print(f"[red]{name}[/]  {safe(reason)}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for state in Status:
        if count := page["files"][state.name]:
            table.add_row(f"[{display.colour(state)}]{state.label}[/]", str(count))
    console.print(table)
    for id_, at in page["in_work"].items():
        console.print(f"in work  {safe(id_)}  {at['status']} {at['share']:.0%}")
    for id_, why in page["held_up"].items():
        console.print(f"held up  {safe(id_)}  {why['why']}: {safe(why['detail'])}")
    for drop in page["waiting"]:
        console.print(f"waiting  {safe(drop['path'])}  {drop['why']}: {safe(drop['detail'])}")


@app.command("list")
def list_(
    root: RootOption = None,
    config: ConfigOption = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    wanted: Annotated[
        str | None, typer.Option("--status", help="Only those in this status.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first; 0: all.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """The uploaded files: in work, in storage and in error alike, newest first."""
    in_status = status_named(wanted) if wanted is not None else None
    found = [
        entry
        for entry in tree.entries(spool_of(root, config))
        if (user is None or entry.manifest["user"] == user)
        and (in_status is None or entry.status is in_status)
        and (project is None or project in entry.manifest["projects"])
    ]
    found.sort(key=lambda entry: entry.manifest["id"], reverse=True)
    found = found[:limit] if limit else found
    if as_json:
        print_json([entry.document for entry in found])
    else:
        console.print(display.list_table(found))


@app.command()
def show(
    wanted: Annotated[str, typer.Argument(metavar="ID")],
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
    about = entry.manifest
    console.print(display.tree(entry, list(tree.entries(spool))))
    console.print(f"\nid        {safe(about['id'])}\nuser      {safe(about['user'])}")
    console.print(
        f"dropped   {safe(about['drop_path'])}, {display.bytes_text(about['size_bytes'])}"
    )
    console.print(f"lies in   {safe(str(entry.path))}")
    for warning in about["warnings"]:
        console.print(f"[yellow]note[/]      {safe(warning)}")
    for skipped in about["skipped"]:
        console.print(f"[yellow]skipped[/]   {safe(skipped['name'])}: {safe(skipped['reason'])}")
    if about["error"]:
        console.print(f"[red]reason[/]    {about['error']['reason']}")
        console.print(f"          {safe(about['error']['detail'])}")
        for file in about["files"]:
            console.print(f"original  {safe(str(entry.path / file['path']))}, untouched")
    console.print()
    console.print(display.history_table(entry))
