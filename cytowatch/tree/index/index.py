"""A row per uploaded file, in one SQLite file beside the tree: a cache that is made again from it.

The tree is the truth. The index answers what would mean reading every manifest: how many there are
in each status, a page of a list, the children of an archive, whether some content is there already.
It may be deleted at any time.

Source: docs/decisions/013-the-index.md
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

from cytowatch import aside
from cytowatch.record.entries import Manifest
from cytowatch.record.status import Status
from cytowatch.tree.index import missing
from cytowatch.tree.index.ask import Questions
from cytowatch.tree.index.missing import Missing
from cytowatch.tree.index.reconcile import HELD, TICK_EVERY, Reconciling
from cytowatch.tree.index.rows import SORTS, Row, content_key
from cytowatch.tree.spool import Spool

__all__ = ["SORTS", "Index", "Row", "content_key"]


class Index(Reconciling, Questions):
    """The index as others see it: questions, and what they let it take note of. Safe from any thread."""

    @classmethod
    def read(cls, spool: Spool) -> Index | None:
        """The index of a tree for reading, beside a daemon or without one; None if there is none."""
        if not os.path.lexists(spool.state / "index.sqlite3"):
            return None
        found = cls(spool, readonly=True)
        return found if found.fault is None else None

    def put(self, found: Manifest, status: Status) -> None:
        """Take note of an uploaded file as it is now; of one in storage, of its folder as well."""
        with self._guarded():
            if self._database is None:
                return
            with self._transaction():
                with aside.fence("row", found["id"], but=(sqlite3.Error,)):
                    self._write(found, status)
                if status.is_success:
                    self._note_folder(found["user"])

    def missing(self) -> list[Missing]:
        """What was in storage and is not there, though no command removed it."""
        with self._guarded():
            return list(missing.rows(self._database)) if self._database is not None else []
        return []

    def held(self) -> Iterator[Row]:
        """Every row of what is in storage, by id, a page at a time."""
        after: str | None = None
        while page := self.select(
            where={"status": HELD}, after=after, ascending=True, limit=TICK_EVERY
        ):
            yield from page
            after = page[-1].id

    def expect_removal(self, id_: str) -> None:
        """A command is about to remove `id_`, so its absence is meant."""
        with self._guarded():
            if self._database is not None:
                missing.expect(self._database, id_)

    def forget(self, id_: str) -> bool:
        """Miss `id_` no longer; gives whether it was missing."""
        with self._guarded():
            return self._database is not None and missing.forget(self._database, id_)
        return False
