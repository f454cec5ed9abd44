"""What the shell offers to complete: ids, users, projects, statuses, formats, reasons.

A completion never fails: where there is no tree, or no index yet, nothing is offered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType

import typer

from cytowatch.cli import known
from cytowatch.cli.app import spool_of
from cytowatch.record.names import printable
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.index.rows import Row
from cytowatch.tree.spool import Spool

__all__ = ["errors", "formats", "ids", "projects", "reason_words", "statuses", "users"]

_MOST = 50
_SPECIAL = set(" \t\"'`$\\&|;<>(){}[]*?!#~")


def _spool(context: typer.Context) -> Spool:
    root, config = context.params.get("root"), context.params.get("config")
    return spool_of(Path(root) if root else None, Path(config) if config else None)


def _quietly(offer: Callable[[Spool, str], Iterable[str]], context: typer.Context, begun: str) -> list[str]:  # fmt: skip
    try:
        found = offer(_spool(context), begun)
        return [word for word in found if word == printable(word)][:_MOST]
    except Exception:  # noqa: BLE001 - no matter what it is, the person is in the middle of a word
        return []


def _from_index(column: str) -> Callable[[Spool, str], list[str]]:
    def offer(spool: Spool, begun: str) -> list[str]:
        index = Index.read(spool)
        if index is None:
            return []
        try:
            return index.distinct(column, begun, _MOST)
        finally:
            index.close()

    return offer


#: What a command can act on, by its name; others take every uploaded file.
_ACTS_ON = MappingProxyType(
    {
        # An archive stands for what came out of it.
        "retry": (*known.GROUPS["error"], Status.EXTRACTED),
        "return": (*known.GROUPS["error"], Status.EXTRACTED),
        "link": known.GROUPS["done"],
        "unlink": known.GROUPS["done"],
        "verify": known.GROUPS["done"],
        "remove": (*known.GROUPS["error"], *known.GROUPS["done"]),
    }
)


def ids(context: typer.Context, incomplete: str) -> list[str]:
    """Ids, their four characters and names that begin so: of what the command can act on."""
    some = _ACTS_ON.get(context.info_name or "", tuple(Status))

    def offer(spool: Spool, begun: str) -> Iterable[str]:
        index = Index.read(spool)
        if index is None:
            return []
        try:
            return _offered(index.beginning(begun, some, _MOST), begun)
        finally:
            index.close()

    return _quietly(offer, context, incomplete)


def _offered(rows: Iterable[Row], begun: str) -> Iterable[str]:
    names = set()
    for row in rows:
        short = row.id.split("-")[2]
        if row.id.startswith(begun):
            yield row.id
        elif short.startswith(begun):
            # Every command takes them for the id, and a shell drops what does not begin with the word.
            yield short
        elif not set(row.name) & _SPECIAL and row.name not in names:
            # A name stands for its uploaded file; one with a space in it no shell would keep together.
            names.add(row.name)
            yield row.name


def users(context: typer.Context, incomplete: str) -> list[str]:
    """Users that have uploaded something, or have an inbox."""

    def offer(spool: Spool, begun: str) -> list[str]:
        inboxes = [path.name for path in spool.inbox.iterdir() if path.is_dir()]
        known = {*_from_index("user")(spool, begun), *inboxes}
        return sorted(user for user in known if user.startswith(begun))

    return _quietly(offer, context, incomplete)


def projects(context: typer.Context, incomplete: str) -> list[str]:
    """Projects that show something."""

    def offer(spool: Spool, begun: str) -> list[str]:
        found = (path.name for path in spool.projects.iterdir())
        return sorted(name for name in found if name.startswith(begun))

    return _quietly(offer, context, incomplete)


def statuses(incomplete: str) -> list[str]:
    """The statuses and the words for several of them, in the case that was begun with."""
    return _in_case([*known.GROUPS, known.WAITING, *_plain(Status)], incomplete)


def errors(incomplete: str) -> list[str]:
    """The statuses of errors, and the word for all of them."""
    return _in_case(["error", *_plain(one for one in Status if one.is_error)], incomplete)


def _plain(some: Iterable[Status]) -> list[str]:
    return [one.name.lower() for one in some]


def _in_case(words: list[str], incomplete: str) -> list[str]:
    shown = [word.upper() if incomplete.isupper() else word for word in words]
    return [word for word in shown if word.startswith(incomplete)]


def reason_words(context: typer.Context, incomplete: str) -> list[str]:
    """The reasons of errors; beside `--status waiting` those for which a drop waits."""
    # Imported here: only a shell asks for it, and every command would start later.
    from cytowatch.record import reasons

    waiting = str(context.params.get("wanted")).strip().lower() == known.WAITING
    words = list(reasons.WAITING) if waiting else [one.word for one in reasons.REASONS]
    return sorted(word for word in words if word.startswith(incomplete))


def formats(context: typer.Context, incomplete: str) -> list[str]:
    """The formats that something uploaded has."""
    return _quietly(_from_index("format"), context, incomplete)
