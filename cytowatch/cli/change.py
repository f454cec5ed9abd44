"""The commands that change something: what became of uploaded files, links, pauses, the index."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cytowatch.cli import known
from cytowatch.cli.app import (
    ConfigOption,
    RootOption,
    app,
    one,
    spool_of,
)
from cytowatch.cli.export import _inside
from cytowatch.cli.options import (
    IdArguments,
    IdsOrNone,
    ReasonOption,
    StatusOption,
)
from cytowatch.cli.page import bytes_text
from cytowatch.cli.show import safe, say
from cytowatch.record.errors import CytowatchError, RootError, SeveralErrors
from cytowatch.record.status import Status
from cytowatch.tree import find
from cytowatch.tree.spool import Spool

__all__: list[str] = []

#: At most this many are named before the question.
_MOST_ASKED = 20


def asked(spool: Spool, what: str, id_: str | None = None, **more: Any) -> str:
    # Imported here: only the commands that change something need it.
    from cytowatch.admin import requests

    request = {"do": what, **({"id": id_} if id_ is not None else {}), **more}
    return str(requests.ask(spool, request, now=lambda: datetime.now(UTC))["said"])


def ask_each(spool: Spool, what: str, entries: list[find.Entry], says: str, **more: Any) -> None:
    """Ask it for each, once however often it was named; one that is refused costs no other.

    Raises
    ------
    SeveralErrors
        Some were refused: it names each, with its reason.
    """
    refused: list[CytowatchError] = []
    for entry in {entry.manifest["id"]: entry for entry in entries}.values():
        name = safe(entry.manifest["name"])
        try:
            said = asked(spool, what, entry.manifest["id"], **more)
        except RootError as error:
            refused.append(error)
            continue
        say(f"{name} {says} {safe(said)}".rstrip())
    if refused:
        raise SeveralErrors(refused)


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

    For an archive or a folder: everything that came out of it and failed.

    An incomplete part of an archive or a folder does not go back by itself: send it again.
    """
    spool = spool_of(root, config)
    entries = [entry for name in wanted or [] for entry in _failed(spool, name)]
    if status_ or reason:
        entries += _in_error(spool, status_, reason)
    if not entries:
        given = " and ".join(
            said
            for said in (status_ and f"status {status_}", reason and f"reason {reason}")
            if said
        )
        raise RootError(
            f"nothing to retry: {f'no error has the {given}' if given else 'give an ID, --status or --reason'}"
        )
    ask_each(spool, "retry", entries, "goes back to")


@app.command("return")
def return_(wanted: IdArguments, root: RootOption = None, config: ConfigOption = None) -> None:
    """Hand the original of an error back to its user, into inbox/<user>/_returned/.

    For an archive or a folder: everything that came out of it and failed.
    """
    spool = spool_of(root, config)
    entries = [entry for name in wanted for entry in _failed(spool, name)]
    ask_each(spool, "return", entries, "is in")


@app.command()
def remove(
    wanted: IdArguments,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Remove it even if a project shows it.")
    ] = False,
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
        asked(spool, "remove", id_)
        say(f"{safe(vanished.name)}, which vanished from storage, is forgotten")
    ask_each(spool, "remove", there, "is", anyway=anyway)


def _ask_before_removing(entries: list[find.Entry]) -> None:
    """Say what is about to go and ask for a yes.

    Raises
    ------
    RootError
        There is nobody to ask: the input or the output is not a terminal.
    typer.Exit
        The answer is no.
    """
    if not sys.stdin.isatty():
        raise RootError("nothing was removed: there is nobody to ask, so give --yes")
    for entry in entries[:_MOST_ASKED]:
        about = entry.manifest
        say(
            f"{safe(about['name'])}  {entry.status.label}  {bytes_text(about['size_bytes'])}  "
            f"of {safe(about['user'])}, received {safe(about['received_at'][:10])}  ({safe(about['id'])})"
        )
    if len(entries) > _MOST_ASKED:
        say(f"and {len(entries) - _MOST_ASKED:,} more")
    what = "this uploaded file" if len(entries) == 1 else f"these {len(entries):,} uploaded files"
    if not typer.confirm(f"Remove {what} with the original for good?"):
        say("nothing was removed")
        raise typer.Exit(1)


@app.command()
def reindex(root: RootOption = None, config: ConfigOption = None) -> None:
    """Rebuild the index from the tree; while a daemon runs, in the background."""
    said = asked(spool_of(root, config), "reindex")
    words = {"done": "the index is made again", "begun": "the daemon is making the index again"}
    say(words[said])
