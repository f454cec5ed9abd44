"""The one SQLite file: opening it, making it, locking it, and its faults."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytowatch import durable
from cytowatch.tree.index import missing, named
from cytowatch.tree.spool import Spool

__all__ = ["Database"]

#: An index of another version is deleted and made again.
_VERSION = 5
_SCHEMA = """
CREATE TABLE uploaded (
    id TEXT PRIMARY KEY, parent_id TEXT, user TEXT, name TEXT, status TEXT, format TEXT,
    size_bytes INTEGER, received_at TEXT, changed_at TEXT, reason TEXT, content TEXT,
    duplicate_of TEXT, short TEXT
);
CREATE INDEX by_status ON uploaded (status, id);
CREATE INDEX by_user ON uploaded (user, id);
CREATE INDEX by_parent ON uploaded (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX by_duplicate ON uploaded (duplicate_of) WHERE duplicate_of IS NOT NULL;
CREATE INDEX by_content ON uploaded (content, user) WHERE content IS NOT NULL;
CREATE INDEX by_changed ON uploaded (changed_at);
CREATE INDEX by_name ON uploaded (name);
CREATE INDEX by_short ON uploaded (short);
CREATE TABLE count (status TEXT PRIMARY KEY, files INTEGER) WITHOUT ROWID;
CREATE TRIGGER more AFTER INSERT ON uploaded BEGIN
    INSERT INTO count VALUES (new.status, 1)
        ON CONFLICT (status) DO UPDATE SET files = files + 1;
END;
CREATE TRIGGER fewer AFTER DELETE ON uploaded BEGIN
    UPDATE count SET files = files - 1 WHERE status = old.status;
END;
CREATE TRIGGER other AFTER UPDATE OF status ON uploaded WHEN old.status <> new.status BEGIN
    UPDATE count SET files = files - 1 WHERE status = old.status;
    INSERT INTO count VALUES (new.status, 1)
        ON CONFLICT (status) DO UPDATE SET files = files + 1;
END;
-- The directories of storage/, as they were when each of their rows was right.
CREATE TABLE folder (user TEXT PRIMARY KEY, inode INTEGER, mtime_ns INTEGER) WITHOUT ROWID;
-- Of these no manifest could be read: their rows say what else is known, and are looked at again.
CREATE TABLE unread (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
#: SQLite's own names for what belongs to a database in WAL mode.
_ENDINGS = ("", "-wal", "-shm")


class Database:
    """Guards the one SQLite file; safe from any thread.

    A fault of it affects nothing else: it is noted in `fault`, and questions are answered as if the
    index were empty.
    """

    def __init__(self, spool: Spool, *, readonly: bool = False, memory: bool = False) -> None:
        self._spool = spool
        self._path = None if memory else spool.state / "index.sqlite3"
        self._readonly = readonly
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        #: Why it cannot be relied on now, in words.
        self.fault: str | None = None
        #: Whether rows may be missing without a change in the time of a folder.
        self._doubted = True
        #: Whether the file itself is no longer usable and must be made again.
        self.damaged = False
        #: Which file it is, by device and inode.
        self._file: tuple[int, int] | None = None
        with self._guarded():
            self._open()

    def _open(self) -> None:
        if self._path is None:
            self._make()
            return
        if odd := self._odd():
            raise sqlite3.DatabaseError(f"{odd.name} is not a regular file")
        if self._readonly:
            self._database = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5.0)
            if self._version() != _VERSION:
                raise sqlite3.DatabaseError("it has another version")
            return
        fresh = not self._path.exists()
        if not fresh:
            self._database = self._connected()
            try:
                fresh = self._version() != _VERSION
            except sqlite3.DatabaseError:
                fresh = True
            # What it noted of the folders holds: it was noted with the rows.
            self._doubted = fresh
        if fresh:
            self._make()

    def _connected(self) -> sqlite3.Connection:
        place = self._path or ":memory:"
        database = sqlite3.connect(
            place, check_same_thread=False, isolation_level=None, timeout=5.0
        )
        # A power cut may take the last rows: the folders' times that came with them go as well.
        # WAL maps a file; where a page is copied before it is written, a full disk or quota would end
        # the process by SIGBUS (seen on btrfs), so there each row costs an fsync instead.
        copies = self._path is not None and durable.copies_on_write(self._path.parent)
        database.execute(f"PRAGMA journal_mode = {'TRUNCATE' if copies else 'WAL'}")
        database.execute("PRAGMA synchronous = NORMAL")
        self._file = self._there()
        return database

    def look_at_file(self) -> None:
        """Note it if somebody deleted or replaced the file: its rows would go where nobody finds them."""
        if self._file is not None and self._there() != self._file and self.fault is None:
            self.fault = "somebody deleted or replaced it"
            self.damaged = True

    def _there(self) -> tuple[int, int] | None:
        """Which file is there now; None if none is."""
        if self._path is None:
            return None
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _version(self) -> int:
        assert self._database is not None
        return int(self._database.execute("PRAGMA user_version").fetchone()[0])

    def _make(self) -> None:
        """An empty one in the place of anything that is there."""
        if self._database is not None:
            self._database.close()
        self._keep_what_was()
        for path in self._files():
            if path.is_dir() and not path.is_symlink():
                self._spool.discard(path)
            else:
                path.unlink(missing_ok=True)
        self._database = self._connected()
        with self._transaction():
            for statement in [*_statements(_SCHEMA), *_statements(missing.SCHEMA)]:
                self._database.execute(statement)
            named.create(self._database)
            self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def _keep_what_was(self) -> None:
        """Keep the old index beside the new one, which takes over the list of missing files."""
        usable = self._path is not None and self._path.is_file() and not self._path.is_symlink()
        if usable and self._path is not None and not os.path.lexists(self._before):
            self._path.rename(self._before)

    @property
    def _before(self) -> Path:
        return self._spool.state / "index.before.sqlite3"

    def _files(self) -> list[Path]:
        return [Path(f"{self._path}{ending}") for ending in _ENDINGS] if self._path else []

    def _odd(self) -> Path | None:
        """Anything in the place of one of its files that is not a file: SQLite would wait at a FIFO for ever."""
        for path in self._files():
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    return path
        return None

    def _guarded(self) -> _Guard:
        return _Guard(self)

    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._guarded():
            if self._database is not None:
                try:
                    return self._database.execute(question, values).fetchall()
                except UnicodeEncodeError:
                    # A word of a command line that is not text: nothing is called so.
                    return []
        return []

    def _transaction(self) -> _Transaction:
        assert self._database is not None
        return _Transaction(self._database)

    def close(self) -> None:
        """Close the file."""
        with self._guarded():
            if self._database is not None:
                self._database.close()
        self._database = None


def _statements(script: str) -> Iterator[str]:
    """The statements of `script` one by one, because `executescript` ends the transaction first."""
    begun = ""
    for line in script.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            yield begun
            begun = ""


class _Guard:
    """Turns errors of SQLite or the disk into `Database.fault`."""

    def __init__(self, database: Database) -> None:
        self._of = database

    def __enter__(self) -> None:
        self._of._lock.acquire()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._of._lock.release()
        if isinstance(error, sqlite3.Error | OSError):
            self._of.fault = f"{error}"
            self._of._doubted = True
            # A full or a faulty disk leaves what is there as it was.
            passing = isinstance(error, sqlite3.OperationalError | OSError)
            self._of.damaged = self._of.damaged or not passing
            return True
        return False


class _Transaction:
    """One transaction: all of it or nothing."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        if self._database.in_transaction:
            # The last one could not be ended, on a full disk.
            self._database.execute("ROLLBACK")
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._database.execute("COMMIT")
        elif self._database.in_transaction:
            self._database.execute("ROLLBACK")
