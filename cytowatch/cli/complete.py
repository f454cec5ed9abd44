"""What the shell offers to complete: ids, users, projects, statuses, formats, reasons.

A completion never fails: where there is no tree, or no index yet, nothing is offered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from cytowatch.cli.app import spool_of
from cytowatch.record.names import printable
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["formats", "ids", "projects", "reason_words", "statuses", "users"]

_MOST = 50
_SPECIAL = set(" \t\"'`$\\&|;<>(){}[]*?!#~")


def _spool(context: typer.Context) -> Spool:
    root, config = context.params.get("root"), context.params.get("config")
    return spool_of(Path(root) if root else None, Path(config) if config else None)


def _quietly(offer: Callable[[Spool, str], Iterable[str]], context: typer.Context, begun: str) -> list[str]:  # fmt: skip
    try:
        found = offer(_spool(context), begun)
        return [word for word in found if word == printable(word)][:_MOST]
    except Exception:  # noqa: BLE001 - whatever it is, the person is in the middle of a word
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


def _ids(spool: Spool, begun: str) -> Iterable[str]:
    index = Index.read(spool)
    if index is None:
        return []
    try:
        # A name stands for its uploaded file; one with a space in it no shell would keep together.
        named = (name for name in index.distinct("name", begun, _MOST) if not set(name) & _SPECIAL)
        return [*index.distinct("id", begun, _MOST), *(named if begun else ())]
    finally:
        index.close()


def ids(context: typer.Context, incomplete: str) -> list[str]:
    """Ids and names that begin so."""
    return _quietly(_ids, context, incomplete)


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
    """The statuses, in the case that was begun with."""
    names = [name if incomplete.isupper() else name.lower() for name in Status.__members__]
    return [name for name in names if name.startswith(incomplete)]


def reason_words(incomplete: str) -> list[str]:
    """The reasons of errors."""
    # Imported here: only a shell asks for it, and every command would start later.
    from cytowatch.record import reasons

    return sorted(one.word for one in reasons.REASONS if one.word.startswith(incomplete))


def formats(context: typer.Context, incomplete: str) -> list[str]:
    """The formats that something uploaded has."""
    return _quietly(_from_index("format"), context, incomplete)
