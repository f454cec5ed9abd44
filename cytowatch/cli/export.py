"""Copies out of the storage: an original, or one table of all manifests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from cytowatch import aside, durable, outside
from cytowatch.cli.app import (
    ConfigOption,
    RootOption,
    app,
    become_caller_again,
    one,
    readable,
    spool_of,
)
from cytowatch.cli.options import (
    IdToExport,
)
from cytowatch.cli.page import bytes_text
from cytowatch.cli.part import until_whole
from cytowatch.cli.show import safe, say
from cytowatch.outside import OutsideError
from cytowatch.record.errors import RootError
from cytowatch.record.originals import originals as originals_of
from cytowatch.tree import find
from cytowatch.tree.spool import Spool

__all__ = []


@app.command()
def export(
    wanted: IdToExport = None,
    directory: Annotated[Path | None, typer.Argument(metavar="[DIRECTORY]")] = None,
    root: RootOption = None,
    config: ConfigOption = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            metavar="FILE",
            help="Write one table of all uploaded files, as .csv or .parquet; - prints CSV.",
        ),
    ] = None,
) -> None:
    """Copy an original, byte for byte and with its dropped name, into DIRECTORY; or write a table of everything.

    With --table, FILE has one row per pyramid, with the facts of its manifest.
    """
    if table is not None:
        if wanted is not None:
            raise typer.BadParameter("--table exports everything: give no ID and no DIRECTORY")
        return _export_table(spool_of(root, config), table)
    if wanted is None or directory is None:
        raise typer.BadParameter("give an ID and a DIRECTORY, or --table FILE")
    return _export_original(spool_of(root, config), wanted, directory)


def _export_table(spool: Spool, table: Path) -> None:
    from cytowatch.cli import table as tables

    with find.indexed(spool) as index:
        found = index.select(ascending=True)
    become_caller_again()
    entries = (entry for row in found if (entry := find.entry(spool, row)) is not None)
    count = tables.write(table, tables.rows(entries))
    if str(table) != "-":
        say(f"{safe(str(table))}, {count:,} rows")
    if aside.all_of():
        raise typer.Exit(1)


def _export_original(spool: Spool, wanted: str, directory: Path) -> None:
    entry = readable(one(spool, wanted))
    originals = list(originals_of(entry.manifest))
    if not originals:
        raise RootError(f"{entry.manifest['id']} has no original of its own: {_why_none(entry)}")
    become_caller_again()
    directory.mkdir(parents=True, exist_ok=True)
    folders = {directory.absolute().parent}
    for row, name in originals:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        folders |= {directory / folder for folder in Path(name).parents}
        if target.exists():
            raise RootError(f"{target} is there already; nothing is replaced")
        with until_whole(target) as part:
            with _original(entry.path / row["path"]) as source, open(part, "xb") as copy:
                shutil.copyfileobj(source, copy, 4 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            if row["sha256"] is not None:
                with open(part, "rb") as copy:
                    if durable.sha256(copy.read) != row["sha256"]:
                        raise RootError(f"{target} would have other bytes than the original had")
        say(f"{safe(str(target))}, {bytes_text(row['size_bytes'])}")
    for folder in folders:
        # So that a disk that is pulled out now has their names; not every filesystem can promise that.
        with suppress(OSError):
            durable.fsync_directory(folder)


@contextmanager
def _original(path: Path) -> Iterator[BinaryIO]:
    try:
        with outside.regular_file(path) as file:
            yield file
    except OutsideError as error:
        raise RootError(f"{path} cannot be copied: {error}") from error


def _why_none(entry: find.Entry) -> str:
    if entry.manifest["children"]:
        return f"export what came out of it (cytowatch list --parent {entry.manifest['id']})"
    return "the configuration does not keep it"


def _inside(spool: Spool, entry: find.Entry) -> list[find.Entry]:
    """`entry` and all that came out of it, by their ids."""
    with find.indexed(spool) as index:
        rows = index.below(entry.manifest["id"])
    return [found for row in rows if (found := find.entry(spool, row))]
