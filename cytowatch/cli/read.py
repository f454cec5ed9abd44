"""The commands that show uploaded files: status, list, show."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from cytowatch.cli import known, lists
from cytowatch.cli.app import (
    ConfigOption,
    JsonOption,
    RootOption,
    app,
    one,
    print_json,
    spool_of,
)
from cytowatch.cli.options import (
    FormatOption,
    IdArgument,
    ProjectFilter,
    ReasonOption,
    StatusFilter,
    UserOption,
)
from cytowatch.cli.page import status_lines, styled
from cytowatch.lifecycle.summary import status_page
from cytowatch.record import reasons
from cytowatch.record.errors import RootError
from cytowatch.tree import find
from cytowatch.tree.spool import Spool

__all__: list[str] = []


@app.command()
def status(
    root: RootOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show what is in progress, and what waits and why."""
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


#: The columns of the words in `show`.
_WORD = 11
#: Words go from A to Z, times and sizes from the newest and the largest down.
_A_TO_Z = frozenset({Sort.name, Sort.status})


@app.command("list")
def list_(
    root: RootOption = None,
    config: ConfigOption = None,
    user: UserOption = None,
    wanted: StatusFilter = None,
    project: ProjectFilter = None,
    form: FormatOption = None,
    reason: ReasonOption = None,
    name: Annotated[str | None, typer.Option(help="Only those with this in their name.")] = None,
    parent: Annotated[
        str | None, typer.Option(help="Only what came out of this archive or folder.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="<date>",
            help="Only those received since then, such as 2026-11-29 or 2026-11-29T14:44:00 (UTC).",
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(metavar="<date>", help="Only those received before then (UTC)."),
    ] = None,
    sort: Annotated[
        Sort,
        typer.Option(
            help="Sort by this: name and status from A to Z, the others from the newest or largest."
        ),
    ] = Sort.received,
    reverse: Annotated[bool, typer.Option("--reverse", help="Reverse the order.")] = False,
    limit: Annotated[int, typer.Option(help="Show at most this many; 0: all.", min=0)] = 0,
    offset: Annotated[int, typer.Option(help="Skip this many first.", min=0)] = 0,
    as_csv: Annotated[
        bool,
        typer.Option("--csv", help="Print CSV: one header line, times in UTC, sizes in bytes."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List all uploaded files, in progress, in storage or in error, newest first.

    On a terminal the table fits its width, and times are local. In a pipe nothing is cut, and times are UTC.
    """
    if as_csv and as_json:
        raise RootError("give --csv or --json, not both")
    spool = spool_of(root, config)
    users = known.user(spool, user) if user else None
    if wanted is not None and wanted.strip().lower() == known.WAITING:
        if project or form or parent or since or until:
            raise RootError(
                "a drop that waits has no project, format, parent or time of receipt yet: "
                "use --user, --name and --reason"
            )
        drops = _waiting(spool, users, name, reason)
        _print_waiting(drops[offset:][: limit or None], as_csv=as_csv, as_json=as_json)
        return
    where = {
        "user": users,
        "status": [status.name for status in known.statuses(wanted)] if wanted else None,
        "format": [known.format_id(spool, form)] if form else None,
        "reason": [known.reason(spool, reason)] if reason else None,
        "parent_id": [one(spool, parent).manifest["id"]] if parent else None,
    }
    ids = known.project(spool, project) if project else None
    with find.indexed(spool) as index:
        rows = index.select(
            where={column: values for column, values in where.items() if values is not None},
            ids=ids,
            name_has=name,
            since=since.isoformat() if since else None,
            until=until.isoformat() if until else None,
            sort=sort.value,
            ascending=reverse != (sort in _A_TO_Z),
            limit=limit,
            offset=offset,
        )
        found = [entry for row in rows if (entry := find.entry(spool, row))]
    _print_list(found, as_csv=as_csv, as_json=as_json)
    if limit and len(rows) == limit and not (as_json or as_csv):
        print(styled(f"the next page: --offset {offset + limit}", dim=True))


def _print_list(found: list[find.Entry], *, as_csv: bool, as_json: bool) -> None:
    if as_json:
        print_json([entry.document for entry in found])
    elif as_csv:
        lists.write_csv(found, waiting=False)
    else:
        for line in lists.list_lines(found, _width(), lists.today()):
            print(line)


def _width() -> int | None:
    """How wide the terminal is; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _waiting(
    spool: Spool, users: list[str] | None, name: str | None, why: str | None
) -> list[dict[str, Any]]:
    """The drops in the inboxes as the daemon last saw them; where none runs it says so."""
    told = find.live(spool) or {}
    drops = told.get("waiting", [])
    if find.daemon_pid(spool) is None:
        at = f"this is what one saw at {told['at']}" if told.get("at") else "nothing is known"
        print(f"cytowatch: no daemon runs: {at}", file=sys.stderr)
    if why is not None:
        words = {*reasons.WAITING, *(drop["why"] for drop in drops)}
        if why not in words:
            raise known.unknown("reason to wait", why, words)
    return [
        drop
        for drop in drops
        if (users is None or drop["user"] in users)
        and (name is None or name.lower() in drop["path"].lower())
        and why in (None, drop["why"])
    ]


def _print_waiting(drops: list[dict[str, Any]], *, as_csv: bool, as_json: bool) -> None:
    if as_json:
        print_json(drops)
    elif as_csv:
        lists.write_csv(drops, waiting=True)
    else:
        for line in lists.waiting_lines(drops, _width(), lists.today()):
            print(line)


@app.command()
def show(
    wanted: IdArgument,
    root: RootOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one uploaded file: its files, its history, and, if it is in error, why and what to do."""
    spool = spool_of(root, config)
    entry = one(spool, wanted)
    if as_json:
        print_json(entry.document)
        return
    # Imported here: status and list start without rich.
    from cytowatch.cli import show as display
    from cytowatch.cli.show import console

    about = entry.manifest
    width = console.width if console.is_terminal else None
    with find.indexed(spool) as index:
        inside = [e for row in index.below(about["id"]) if (e := find.entry(spool, row))]
        same = [e for row in index.linked_to(about["id"]) if (e := find.entry(spool, row))]
        known_by = index.select(ids=[about["duplicate_of"]]) if about["duplicate_of"] else []
        first = next((e for row in known_by if (e := find.entry(spool, row))), None)
        dropped = index.select(ids=[about["root_id"]]) if about["parent_id"] else []
    in_archive = any(not row.is_folder for row in dropped)
    if entry.damaged is not None:
        _fact("damaged", "red", f"its manifest cannot be read: {entry.damaged}", width)
        said = "restore its manifest.json from a backup; the rest of this page is all else that is known"
        _fact("", "", f"{said}\n", width)
    console.print(display.tree(entry, inside, width), soft_wrap=width is None)
    console.print()
    for word, shade, text in display.facts(entry, first, same, in_archive=in_archive):
        _fact(word, shade, text, width)
    console.print()
    console.print(display.history(entry, console.width), soft_wrap=width is None)


def _fact(word: str, shade: str, text: str, width: int | None) -> None:
    """One line, or on a terminal several below each other: nothing of it is left out.

    A path is never broken, so that it can be copied.
    """
    from rich.padding import Padding
    from rich.text import Text

    from cytowatch.cli.show import PLACES, console
    from cytowatch.outside import printable

    label = f"{word:<{_WORD}}"
    if width is None or word in PLACES:
        print(f"{label}{printable(text)}".rstrip())
        return
    lines = Text(printable(text), overflow="fold").wrap(console, max(width - _WORD, 20))
    for number, line in enumerate(lines):
        line.rstrip()
        head = Text(label if number == 0 else " " * _WORD, style=shade)
        console.print(Padding(head + line, 0), no_wrap=True, crop=False, overflow="ignore")
