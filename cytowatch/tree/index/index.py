"""A row per uploaded file, in one SQLite file beside the tree: a cache that can be rebuilt from it.

The tree is the truth. The index answers questions that would mean reading every manifest: the number
in each status, a page of a list, the children of an archive, whether some content is already there.
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
from cytowatch.tree.index.rows import SORTS, Row
from cytowatch.tree.spool import Spool

__all__ = ["SORTS", "Index", "Row"]


class Index(Reconciling, Questions):
    """The index as others use it: questions, and updates. Safe from any thread."""

    @classmethod
    def read(cls, spool: Spool) -> Index | None:
        """The index of a tree for reading, beside a daemon or without one; None if there is none."""
        if not os.path.lexists(spool.state / "index.sqlite3"):
            return None
        found = cls(spool, readonly=True)
        return found if found.fault is None else None

    def put(self, found: Manifest, status: Status) -> None:
        """Record an uploaded file as it is now; for one in storage, record its folder as well."""
        with self._guarded():
            if self._database is None:
                return
            with self._transaction():
                with aside.fence("row", found["id"], but=(sqlite3.Error,)):
                    self._write(found, status)
                if status.is_success:
                    self._note_folder(found["user"])

    def missing(self) -> list[Missing]:
        """Uploaded files that were in storage and are gone, although no command removed them."""
        with self._guarded():
            return list(missing.rows(self._database)) if self._database is not None else []
        return []

    def held(self) -> Iterator[Row]:
        """Every row of a file in storage, by id, a page at a time."""
        after: str | None = None
        while page := self.select(
            where={"status": HELD}, after=after, ascending=True, limit=TICK_EVERY
        ):
            yield from page
            after = page[-1].id

    def expect_removal(self, id_: str) -> None:
        """Record that a command is about to remove `id_`, so that it does not count as missing."""
        with self._guarded():
            if self._database is not None:
                missing.expect(self._database, id_)

    def forget(self, id_: str) -> bool:
        """Forget the missing `id_`; return whether it was missing."""
        with self._guarded():
            return self._database is not None and missing.forget(self._database, id_)
        return False
