"""The questions to the index: counts, pages of a list, the children of an archive."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cytowatch.outside import LARGEST
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.tree.index import named
from cytowatch.tree.index.rows import COLUMNS, OF_ROW, SORTS, Row, marks

__all__ = ["Questions"]


#: Formats of files that could be a part of a set.
_LONE = ("jpeg", "planar-tiff", "pyramidal-tiff")


def _id_at(moment: str, *, days: int, otherwise: str) -> str:
    """The beginning of the ids of a moment in ISO 8601, shifted by some days.

    >>> _id_at("2026-11-23T14:15:02.000Z", days=-1, otherwise="")
    '20261122-141502'
    """
    try:
        return f"{datetime.fromisoformat(moment) + timedelta(days=days):%Y%m%d-%H%M%S}"
    except (ValueError, OverflowError):
        return otherwise


class Questions(ABC):
    """All questions, each sent by `_ask`; one that cannot be answered returns nothing."""

    @abstractmethod
    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows that answer `question`."""

    def counts(self) -> dict[Status, int]:
        """The number of uploaded files in each status."""
        rows = dict(self._ask("SELECT status, files FROM count"))
        return {status: int(rows.get(status.name, 0)) for status in Status}

    def first(self, user: str, key: str) -> str | None:
        """The id of the first uploaded file of `user` in storage with the content `key`."""
        rows = self._ask(
            "SELECT id FROM uploaded WHERE content = ? AND user = ? "
            "ORDER BY duplicate_of IS NOT NULL, id LIMIT 1",
            (key, user),
        )
        found: str | None = rows[0][0] if rows else None
        return found

    def images_of(self, user: str, name: str) -> list[str]:
        """The ids of the images of `user` that were dropped under `name`, each by itself; the last one first."""
        rows = self._ask(
            "SELECT id FROM uploaded WHERE name = ? AND user = ? AND parent_id IS NULL AND status IN (?, ?) "
            f"AND format IN ({marks(_LONE)}) ORDER BY id DESC LIMIT 2",
            (name, user, Status.CONVERTED.name, Status.DEPLOYED.name, *_LONE),
        )
        return [row[0] for row in rows]

    def select(
        self,
        *,
        where: Mapping[str, str | Sequence[str]] | None = None,
        name_has: str | None = None,
        since: str | None = None,
        until: str | None = None,
        ids: Iterable[str] | None = None,
        after: str | None = None,
        final: bool = False,
        few: bool = False,
        sort: str = "received",
        ascending: bool = False,
        limit: int = 0,
        offset: int = 0,
    ) -> list[Row]:
        """A page of rows.

        Parameters
        ----------
        where
            Columns that must have a value, or one of several: `user`, `status`, `format`, `reason`, `parent_id`.
        since, until
            Limits of `received_at`, in ISO 8601, the second one excluded.
        after
            Only greater ids: a page that nothing which comes or goes can shift.
        final
            Only what is finished.
        few
            The requested statuses have few rows: only those are read, in any order.
        sort
            One of `SORTS`.
        limit
            At most so many; 0 means all.
        """
        tests: list[str] = []
        values: list[Any] = []
        for column, wanted in (where or {}).items():
            several = [wanted] if isinstance(wanted, str) else list(wanted)
            tests.append(f"{column} IN ({marks(several)})")
            values += several
        if name_has is not None:
            holds, letters = named.condition(self._ask, name_has)
            tests.append(holds)
            values += letters
        # Ids sort by time: with a day to spare they narrow the search, and received_at decides.
        if since is not None:
            tests.append("received_at >= ? AND id >= ?")
            values += [since, _id_at(since, days=-1, otherwise="")]
        if until is not None:
            tests.append("received_at < ? AND id < ?")
            values += [until, _id_at(until, days=1, otherwise="9")]
        if final:
            ended = [status.name for status in Status if status.is_final]
            # The sign keeps SQLite from reading and sorting all of them by their status.
            tests.append(f"+status IN ({marks(ended)})")
            values += ended
        if after is not None:
            tests.append("id > ?")
            values.append(after)
        if ids is not None:
            tests.append("id IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(ids)))
        way = "ASC" if ascending else "DESC"
        order = f"{SORTS[sort]} {way}" + ("" if sort == "received" else f", id {way}")
        condition = f"WHERE {' AND '.join(tests)}" if tests else ""
        # SQLite would otherwise walk a million rows in order to find a few.
        by = "INDEXED BY by_status " if few else ""
        return self._rows(
            f"{by}{condition} ORDER BY {order} LIMIT ? OFFSET ?",
            [*values, min(limit, LARGEST) or -1, min(offset, LARGEST)],
        )

    def _rows(self, rest: str, values: Sequence[Any]) -> list[Row]:
        question = f"SELECT {OF_ROW} FROM uploaded {rest}"
        return [
            Row(
                id=UploadedFileId(row[0]),
                parent_id=row[1],
                user=row[2],
                name=row[3],
                status=Status[row[4]],
                received_at=row[5],
                changed_at=row[6],
                reason=row[7],
                format=row[8],
                size_bytes=row[9] or 0,
            )
            for row in self._ask(question, values)
            if row[4] in Status.__members__
        ]

    def find(self, wanted: str) -> list[Row]:
        """What `wanted` may mean: an id, its beginning, its four random characters, or a name."""
        if exact := self._rows("WHERE id = ?", (wanted,)):
            return exact
        return self._rows(
            "WHERE id IN (SELECT id FROM uploaded WHERE id >= ? AND id < ? || char(1114111) "
            "UNION SELECT id FROM uploaded WHERE short = ? "
            "UNION SELECT id FROM uploaded WHERE name = ?) ORDER BY id",
            (wanted, wanted, wanted, wanted),
        )

    def below(self, id_: str) -> list[Row]:
        """The uploaded file `id_` and everything that came out of it, by id."""
        return self._rows(
            "WHERE id IN (WITH RECURSIVE inside (id) AS (SELECT ? UNION SELECT uploaded.id "
            "FROM uploaded JOIN inside ON uploaded.parent_id = inside.id) SELECT id FROM inside) "
            "ORDER BY id",
            (id_,),
        )

    def linked_to(self, id_: str) -> list[Row]:
        """The duplicates of `id_`, some of which may be shown by links to it."""
        return self._rows("WHERE duplicate_of = ? ORDER BY id", (id_,))

    def ended_since(self, at: str) -> list[Row]:
        """The uploaded files that finished since `at`, in ISO 8601."""
        rows = self._rows("WHERE changed_at >= ? ORDER BY changed_at", (at,))
        return [row for row in rows if row.status.is_final]

    def tally(self, column: str, where: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """The number of rows for each value of `column`, among those that `where` describes."""
        tests = [f"{one} IN ({marks(values)})" for one, values in where.items()]
        condition = f"WHERE {' AND '.join(tests)}" if tests else ""
        wanted = [value for values in where.values() for value in values]
        rows = self._ask(
            f"SELECT {column}, COUNT(*) FROM uploaded {condition} GROUP BY {column}", wanted
        )
        return {row[0]: int(row[1]) for row in rows if row[0] is not None}

    def oldest(self, *, folders: bool = True) -> dict[Status, str]:
        """When the oldest uploaded file in each stage was received, in ISO 8601.

        Without `folders`, uploaded files that stand for a dropped folder are left out: they stay as long as it grows.
        """
        found = {}
        but = "" if folders else "AND format IS NOT 'directory' "
        for status in STAGE_STATUSES:
            # Ids sort by time, so this is one look into an index, however many there are.
            rows = self._ask(
                f"SELECT received_at FROM uploaded WHERE status = ? {but}ORDER BY id LIMIT 1",
                (status.name,),
            )
            if rows:
                found[status] = str(rows[0][0])
        return found

    def size_bytes(self, id: str) -> int:  # noqa: A002
        """The size of an uploaded file in bytes; 0 if it is unknown."""
        rows = self._ask("SELECT size_bytes FROM uploaded WHERE id = ?", (id,))
        return int(rows[0][0] or 0) if rows else 0

    def beginning(self, begun: str, statuses: Sequence[Status], limit: int) -> list[Row]:
        """Uploaded files whose id, four random characters or name begins so, the newest first."""
        end = "? || char(1114111)"
        wanted = [status.name for status in statuses]
        return self._rows(
            f"WHERE ((id >= ? AND id < {end}) OR (short >= ? AND short < {end}) "
            f"OR (name >= ? AND name < {end})) AND +status IN ({marks(wanted)}) "
            "ORDER BY id DESC LIMIT ?",
            [*([begun] * 6), *wanted, limit],
        )

    def distinct(self, column: str, beginning: str, limit: int) -> list[str]:
        """Values of `column` that begin with `beginning`, for the completion of a command line."""
        rows = self._ask(
            f"SELECT DISTINCT {column} FROM uploaded WHERE {column} >= ? "
            f"AND {column} < ? || char(1114111) ORDER BY {column} LIMIT ?",
            (beginning, beginning, limit),
        )
        return [row[0] for row in rows]

    def every(self) -> Iterator[tuple[Any, ...]]:
        """Everything in it, to be compared with another index."""
        yield from self._ask(f"SELECT {', '.join(COLUMNS)} FROM uploaded ORDER BY id")
        yield from self._ask("SELECT status, files FROM count WHERE files <> 0 ORDER BY status")
