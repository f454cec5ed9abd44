"""Rows that one person may see: a page of a list, and how many there are of each status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cytowatch.panel.context import Context, Visible
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index, Row

__all__ = ["GROUPS", "counts", "few", "group", "rows"]

#: The groups that are one click away, and the statuses of each.
GROUPS: Mapping[str, tuple[Status, ...]] = {
    "deployed": tuple(one for one in Status if one.is_success),
    "in-progress": tuple(one for one in Status if not one.is_final),
    "error": tuple(one for one in Status if one.is_error),
}
_KEYS: Mapping[str, Callable[[Row], Any]] = {
    "received": lambda row: row.id,
    "name": lambda row: (row.name, row.id),
    "status": lambda row: (row.status.name, row.id),
    "size": lambda row: (row.size_bytes, row.id),
    "ended": lambda row: (row.changed_at, row.id),
}
_COUNTED_FOR_S = 2.0
#: Counting a user of a hundred thousand files takes a while: the answer is kept this many times as long.
_TIMES_AS_LONG = 100
#: Up to this many rows are read and sorted, instead of being looked for along an order.
_FEW = 20_000


def group(status: Status) -> str:
    """The group that a status belongs to."""
    return next(name for name, members in GROUPS.items() if status in members)


def rows(
    index: Index,
    seen: Visible,
    *,
    where: Mapping[str, Sequence[str]] | None = None,
    ids: Sequence[str] | None = None,
    sort: str = "received",
    ascending: bool = False,
    limit: int,
    offset: int = 0,
    **more: Any,
) -> list[Row]:
    """A page of what `seen` covers; the parameters are those of `Index.select`.

    Two questions, one for the user's own and one for what projects show: SQLite answers each from
    an index, and one with OR from none.
    """
    wanted = dict(where or {})
    if seen.everything:
        return index.select(
            where=wanted,
            ids=ids,
            sort=sort,
            ascending=ascending,
            limit=limit,
            offset=offset,
            **more,
        )
    shown = set(seen.ids) if ids is None else set(seen.ids) & set(ids)
    own = [one for one in seen.users if "user" not in wanted or one in wanted["user"]]
    found: dict[str, Row] = {}
    order = {"sort": sort, "ascending": ascending, "limit": offset + limit, **more}
    if own:
        own_rows = index.select(where={**wanted, "user": own}, ids=ids, **order)
        found |= {row.id: row for row in own_rows}
    if shown:
        found |= {row.id: row for row in index.select(where=wanted, ids=sorted(shown), **order)}
    ordered = sorted(found.values(), key=_KEYS[sort], reverse=not ascending)
    return ordered[offset : offset + limit]


def counts(context: Context, index: Index, seen: Visible) -> dict[Status, int]:
    """How many uploaded files of each status there are; a user's own ones for a user."""
    if seen.everything:
        return index.counts()

    found = context.kept(
        f"counts {seen.users}",
        _COUNTED_FOR_S,
        lambda: index.tally("status", {"user": seen.users}) if seen.users else {},
        times=_TIMES_AS_LONG,
    )
    return {status: found.get(status.name, 0) for status in Status}


def few(counts: Mapping[Status, int], name: str) -> bool:
    """Whether there are so few of a group that all of them may be read."""
    return sum(counts[one] for one in GROUPS[name]) <= _FEW
