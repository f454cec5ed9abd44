"""Uploaded files that the index knows and storage no longer has, until an administrator deals with them.

A row that leaves the index is moved here by SQLite itself, unless a command removes the uploaded
file. It is removed when the uploaded file is back, or by `cytowatch remove`. The tree does not know what
it has lost, so this is the only part of the index that cannot be rebuilt from the tree.

Source: docs/decisions/022-what-vanished.md
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SCHEMA", "Missing", "expect", "forget", "recall", "rows"]

_HELD = "('DEPLOYED', 'CONVERTED', 'EXTRACTED')"
SCHEMA = f"""
CREATE TABLE missing (
    id TEXT PRIMARY KEY, user TEXT, name TEXT, status TEXT, size_bytes INTEGER, received_at TEXT
) WITHOUT ROWID;
-- What a command is about to remove.
CREATE TABLE going (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TRIGGER vanished AFTER DELETE ON uploaded WHEN old.status IN {_HELD} BEGIN
    INSERT OR REPLACE INTO missing SELECT old.id, old.user, old.name, old.status, old.size_bytes,
        old.received_at WHERE old.id NOT IN (SELECT id FROM going);
    DELETE FROM going WHERE id = old.id;
END;
CREATE TRIGGER back AFTER INSERT ON uploaded BEGIN
    DELETE FROM missing WHERE id = new.id;
END;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An uploaded file that was in storage and is gone."""

    id: str
    user: str
    name: str
    status: str

    @property
    def document(self) -> dict[str, str]:
        """The same for JSON."""
        return {"id": self.id, "user": self.user, "name": self.name, "status": self.status}


def rows(database: sqlite3.Connection) -> Iterator[Missing]:
    """All missing uploaded files, by id."""
    for found in database.execute("SELECT id, user, name, status FROM missing ORDER BY id"):
        yield Missing(id=found[0], user=found[1], name=found[2], status=found[3])


def expect(database: sqlite3.Connection, id_: str) -> None:
    """Record that a command is about to remove `id_`."""
    database.execute("INSERT OR IGNORE INTO going SELECT id FROM uploaded WHERE id = ?", (id_,))


def forget(database: sqlite3.Connection, id_: str) -> bool:
    """Forget that `id_` is missing; return whether it was."""
    return database.execute("DELETE FROM missing WHERE id = ?", (id_,)).rowcount > 0


def recall(database: sqlite3.Connection, before: Path) -> None:
    """Take over the missing files from the index at `before`, which `database` replaces.

    An old version without these tables still has its rows.
    """
    database.execute("ATTACH ? AS before", (str(before),))
    try:
        tables = {row[0] for row in database.execute("SELECT name FROM before.sqlite_master")}
        columns = "id, user, name, status, size_bytes, received_at"
        there = "id NOT IN (SELECT id FROM main.uploaded)"
        meant = "AND id NOT IN (SELECT id FROM before.going)" if "going" in tables else ""
        database.execute(
            f"INSERT OR IGNORE INTO missing SELECT {columns} FROM before.uploaded "
            f"WHERE status IN {_HELD} AND {there} {meant}"
        )
        if "missing" in tables:
            database.execute(
                f"INSERT OR IGNORE INTO missing SELECT {columns} FROM before.missing WHERE {there}"
            )
    finally:
        database.execute("DETACH before")
