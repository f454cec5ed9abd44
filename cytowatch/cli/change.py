"""The commands that change something: what became of uploaded files, links, pauses, the index."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from cytowatch import aside, durable, outside
from cytowatch.admin import projects
from cytowatch.cli import known
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
    IdArgument,
    IdArguments,
    IdsOrNone,
    IdToExport,
    ProjectOption,
    ReasonOption,
    StatusOption,
    UserOption,
)
from cytowatch.cli.page import bytes_text
from cytowatch.cli.show import console, safe
from cytowatch.outside import OutsideError
from cytowatch.record import names
from cytowatch.record.errors import RootError
from cytowatch.record.originals import originals as originals_of
from cytowatch.record.status import Status
from cytowatch.tree import find, pauses
from cytowatch.tree.spool import Spool

__all__: list[str] = []

#: So many are named before the question.
_MOST_ASKED = 20


def _asked(spool: Spool, what: str, id_: str | None = None, **more: Any) -> str:
    # Imported here: only the commands that change something need it.
    from cytowatch.admin import requests

    request = {"do": what, **({"id": id_} if id_ is not None else {}), **more}
    return str(requests.ask(spool, request, now=lambda: datetime.now(UTC))["said"])


def _ask_each(spool: Spool, what: str, entries: list[find.Entry], says: str, **more: Any) -> None:
    """Ask it for each; one that is refused costs no other.

    Raises
    ------
    RootError
        Some were refused: it names each, with its reason.
    """
    refused = []
    for entry in entries:
        name = safe(entry.manifest["name"])
        try:
            said = _asked(spool, what, entry.manifest["id"], **more)
        except RootError as error:
            refused.append(str(error))
            continue
        console.print(f"{name} {says} {safe(said)}".rstrip())
    if refused:
        raise RootError("\n".join(refused))


def _in_error(spool: Spool, status: str | None, reason: str | None) -> list[find.Entry]:
    where: dict[str, list[str]] = {}
    if status:
        where["status"] = [one.name for one in known.statuses(status)]
    if reason:
        where["reason"] = [known.reason(spool, reason)]
    with find.indexed(spool) as index:
        rows = index.select(where=where, ascending=True)
    found = [entry for row in rows if row.status.is_error and (entry := find.entry(spool, row))]
    return [entry for entry in found if entry.status.is_error]


def _failed(spool: Spool, wanted: str) -> list[find.Entry]:
    """What `wanted` means: one uploaded file, or of an archive or a folder all in it that failed."""
    entry = one(spool, wanted)
    if entry.status is not Status.EXTRACTED:
        return [entry]
    below = [other for other in _inside(spool, entry) if other.status.is_error]
    if not below:
        raise RootError(f"nothing that came out of {entry.manifest['name']} is in error")
    return below


@app.command()
def retry(
    wanted: IdsOrNone = None,
    status_: StatusOption = None,
    reason: ReasonOption = None,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Send what ended in an error back to the stage that failed, or an incomplete drop to its inbox.

    Of an archive or a folder, all that came out of it and failed. An incomplete part of an archive or a
    folder does not go back by itself: that must be sent again.
    """
    spool = spool_of(root, config)
    entries = [entry for name in wanted or [] for entry in _failed(spool, name)]
    if status_ or reason:
        entries += _in_error(spool, status_, reason)
    if not entries:
        raise RootError("nothing to retry: give an ID, --status or --reason")
    _ask_each(spool, "retry", entries, "goes back to")


@app.command("return")
def return_(wanted: IdArguments, root: RootOption = None, config: ConfigOption = None) -> None:
    """Hand the original of an error back to its user, into inbox/<user>/_returned/.

    Of an archive or a folder, all that came out of it and failed.
    """
    spool = spool_of(root, config)
    entries = [entry for name in wanted for entry in _failed(spool, name)]
    _ask_each(spool, "return", entries, "is in")


@app.command()
def remove(
    wanted: IdArguments,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if a project shows it.")] = False,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove uploaded files that are finished, with their originals, for good. It asks first."""
    spool = spool_of(root, config)
    with find.indexed(spool) as index:
        gone = {one.id: one for one in index.missing() if one.id in wanted}
    there = [one(spool, name) for name in wanted if name not in gone]
    if not yes and there:
        _ask_before_removing(there)
    for id_, vanished in gone.items():
        _asked(spool, "remove", id_)
        console.print(f"{safe(vanished.name)}, which vanished from storage, is forgotten")
    _ask_each(spool, "remove", there, "is", anyway=anyway)


def _ask_before_removing(entries: list[find.Entry]) -> None:
    """Say what is about to go and ask for a yes.

    Raises
    ------
    RootError
        Nobody can be asked: neither the input nor the answer is a terminal's.
    typer.Exit
        The answer is no.
    """
    if not sys.stdin.isatty():
        raise RootError("nothing was removed: there is nobody to ask, so give --yes")
    for entry in entries[:_MOST_ASKED]:
        about = entry.manifest
        console.print(
            f"{safe(about['name'])}  {entry.status.label}  {bytes_text(about['size_bytes'])}  "
            f"of {safe(about['user'])}, received {safe(about['received_at'][:10])}  ({safe(about['id'])})"
        )
    if len(entries) > _MOST_ASKED:
        console.print(f"and {len(entries) - _MOST_ASKED:,} more")
    what = "this uploaded file" if len(entries) == 1 else f"these {len(entries):,} uploaded files"
    if not typer.confirm(f"Remove {what} with the original for good?"):
        console.print("nothing was removed")
        raise typer.Exit(1)


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
        console.print(f"{safe(str(table))}, {count:,} rows")
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
        with _original(entry.path / row["path"]) as source, open(target, "xb") as copy:
            shutil.copyfileobj(source, copy, 4 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        if row["sha256"] is not None:
            with open(target, "rb") as copy:
                if hashlib.file_digest(copy, "sha256").hexdigest() != row["sha256"]:
                    raise RootError(f"{target} has other bytes than the original had")
        console.print(f"{safe(str(target))}, {bytes_text(row['size_bytes'])}")
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


def _deployed(spool: Spool, wanted: str) -> list[find.Entry]:
    """What `wanted` means: one uploaded file, or of an archive or a folder all that came out of it."""
    entry = one(spool, wanted)
    if entry.status is not Status.EXTRACTED:
        return [entry]
    good = (Status.DEPLOYED, Status.CONVERTED)
    return [other for other in _inside(spool, entry) if other.status in good]


@app.command()
def link(
    wanted: IdArgument,
    project: ProjectOption,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Show a deployed image in a project; for an archive or a folder, everything in it."""
    spool = spool_of(root, config)
    for entry in _deployed(spool, wanted):
        name = projects.link(spool, entry.path, project)
        console.print(f"{safe(entry.manifest['name'])} is in the project {safe(name)}")


@app.command()
def unlink(
    wanted: IdArgument,
    project: ProjectOption,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Take an image out of a project; the image stays in storage."""
    spool = spool_of(root, config)
    for entry in _deployed(spool, wanted):
        name = projects.unlink(spool, entry.path, project)
        console.print(f"{safe(entry.manifest['name'])} is no longer in the project {safe(name)}")


def _tell_pauses(held: pauses.Pauses) -> None:
    if held.everyone:
        console.print(
            "paused: everyone. Work in progress will be finished; nothing new is started."
        )
    elif held.users:
        console.print(f"paused: {safe(', '.join(sorted(held.users)))}. All others go on.")
    else:
        console.print("nobody is paused")


@app.command()
def pause(
    user: UserOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until everything in progress is finished.")
    ] = False,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Hold back everyone or one user: nothing new is claimed or started until `resume`."""
    spool = spool_of(root, config)
    if user is not None:
        known.user(spool, user)
    _tell_pauses(pauses.pause(spool, user))
    if wait:
        while _is_in_work(spool, user):
            time.sleep(0.2)
        console.print("nothing is in work")


def _is_in_work(spool: Spool, user: str | None) -> bool:
    """Whether the daemon treats anything, of `user` or at all, or has not seen the pause yet."""
    live = find.live(spool)
    if find.daemon_pid(spool) is None or live is None or "paused" not in live:
        return False
    users = frozenset(live["paused"].get("users", ()))
    held = pauses.Pauses(everyone=live["paused"].get("everyone", False), users=users)
    if not (held.everyone if user is None else held.covers(user)):
        return True
    if user is None:
        return bool(live.get("workers", {}).get("busy"))
    with find.indexed(spool) as index:
        # What is held up is not being treated, and may be so for long.
        rows = index.select(
            ids=list(live.get("progress", {}).keys() - live.get("held_up", {}).keys())
        )
    return bool(names.alike((row.user for row in rows), user))


@app.command()
def resume(user: UserOption = None, root: RootOption = None, config: ConfigOption = None) -> None:
    """Let everyone or one user continue."""
    spool = spool_of(root, config)
    # A user who is paused may continue, even if the inbox is gone.
    if user is not None and not names.alike(pauses.read(spool).users, user):
        known.user(spool, user)
    _tell_pauses(pauses.resume(spool, user))


@app.command()
def reindex(root: RootOption = None, config: ConfigOption = None) -> None:
    """Rebuild the index from the tree; while a daemon runs, in the background."""
    said = _asked(spool_of(root, config), "reindex")
    words = {"done": "the index is made again", "begun": "the daemon is making the index again"}
    console.print(words[said])
