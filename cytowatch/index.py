"""A row an uploaded file, in one SQLite file beside the tree: a cache that is made anew from it.

The tree is the truth. The index answers what would mean reading every manifest: how many there are
in each status, a page of a list, the children of an archive, whether some content is there already.
It may be deleted at any time.

Source: docs/decisions/013-the-index.md
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytowatch import aside, durable, manifest
from cytowatch.manifest import FileEntry, Manifest, ManifestError
from cytowatch.names import ID_PATTERN, UploadedFileId
from cytowatch.outside import LARGEST
from cytowatch.spool import Spool
from cytowatch.status import STAGE_STATUSES, Status

__all__ = ["SORTS", "Index", "Row", "content_key"]

#: Another version is deleted and made anew.
_VERSION = 3
_SCHEMA = """
CREATE TABLE uploaded (
    id TEXT PRIMARY KEY, parent_id TEXT, user TEXT, name TEXT, status TEXT, format TEXT,
    size_bytes INTEGER, received_at TEXT, changed_at TEXT, reason TEXT, content TEXT,
    duplicate_of TEXT, short TEXT
) WITHOUT ROWID;
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
-- The folders of storage/, as they were when every row of theirs was right.
CREATE TABLE folder (user TEXT PRIMARY KEY, inode INTEGER, mtime_ns INTEGER) WITHOUT ROWID;
-- Of these no manifest could be read: their rows say what else is known, and are looked at again.
CREATE TABLE unread (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_COLUMNS = (
    "id", "parent_id", "user", "name", "status", "format", "size_bytes", "received_at",
    "changed_at", "reason", "content", "duplicate_of", "short",
)  # fmt: skip
_OF_ROW = "id, parent_id, user, name, status, received_at, changed_at, reason"
_PUT = (
    f"INSERT INTO uploaded VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
)
#: What a list may be sorted by, and the column that it means.
SORTS: Mapping[str, str] = {
    "received": "id",
    "name": "name",
    "size": "size_bytes",
    "status": "status",
    "ended": "changed_at",
}
_HELD = (Status.DEPLOYED.name, Status.CONVERTED.name, Status.EXTRACTED.name)
_TICK_EVERY = 500
#: SQLite's own names for what belongs to a database in WAL mode.
_ENDINGS = ("", "-wal", "-shm")
#: What SQLite says of a value that it cannot hold; with the text or the number made so that it can, it does.
_UNFIT = (UnicodeEncodeError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the index knows of one uploaded file; `changed_at` is when it entered its status."""

    id: UploadedFileId
    parent_id: str | None
    user: str
    name: str
    status: Status
    received_at: str
    changed_at: str
    reason: str | None


def content_key(files: Iterable[FileEntry]) -> str | None:
    """What is equal for equal sources: the hash of one file, or of all the hashes of a set.

    None while a hash is not known.
    """
    hashes = [file["sha256"] for file in files if file["role"] == "source"]
    if not hashes or None in hashes:
        return None
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(sorted(h for h in hashes if h)).encode()).hexdigest()


def _values(found: Manifest, status: Status) -> tuple[Any, ...]:
    history = found["history"]
    # Only what is in storage counts as content that is there already.
    content = content_key(found["files"]) or found["sha256"] if status.is_success else None
    return (
        found["id"],
        found["parent_id"],
        found["user"],
        found["name"],
        status.name,
        found["format"]["id"] if found["format"] else None,
        found["size_bytes"],
        found["received_at"],
        history[-1]["at"] if history else found["received_at"],
        found["error"]["reason"] if found["error"] else None,
        content,
        found["duplicate_of"],
        found["id"].split("-")[2],
    )


def _fitting(value: object) -> str | int | None:
    """`value` as SQLite can hold it.

    >>> _fitting("a\\udce4"), _fitting(1 << 70)
    ('a?', 9223372036854775807)
    """
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case int():
            return max(-LARGEST, min(value, LARGEST))
        case _:
            return None


class Index:
    """Guards the one SQLite file; safe from any thread.

    What goes wrong with it goes wrong for nobody else: it is noted in `fault`, questions are
    answered as if nothing were there, and `reconcile` makes it right again.
    """

    def __init__(self, spool: Spool, *, readonly: bool = False, memory: bool = False) -> None:
        self._spool = spool
        self._path = None if memory else spool.state / "index.sqlite3"
        self._readonly = readonly
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        #: Why it cannot be relied on at the moment, in words.
        self.fault: str | None = None
        #: Whether rows may be missing that no folder's time tells of.
        self._doubted = True
        #: Whether the file itself is of no use any more, so that it must be made anew.
        self.damaged = False
        with self._guarded():
            self._open()

    @classmethod
    def read(cls, spool: Spool) -> Index | None:
        """The index of a tree for reading, beside a daemon or without one; None if there is none."""
        if not os.path.lexists(spool.state / "index.sqlite3"):
            return None
        found = cls(spool, readonly=True)
        return found if found.fault is None else None

    def _open(self) -> None:
        if self._path is None:
            self._make()
            return
        if odd := self._odd():
            raise sqlite3.DatabaseError(f"{odd.name} is not a regular file")
        if self._readonly:
            self._database = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5.0)
            if self._version() != _VERSION:
                raise sqlite3.DatabaseError("it is of another version")
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
        return database

    def _version(self) -> int:
        assert self._database is not None
        return int(self._database.execute("PRAGMA user_version").fetchone()[0])

    def _make(self) -> None:
        """An empty one in the place of whatever is there."""
        if self._database is not None:
            self._database.close()
        for path in self._files():
            if path.is_dir() and not path.is_symlink():
                self._spool.discard(path)
            else:
                path.unlink(missing_ok=True)
        self._database = self._connected()
        self._database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")

    def _files(self) -> list[Path]:
        return [Path(f"{self._path}{ending}") for ending in _ENDINGS] if self._path else []

    def _odd(self) -> Path | None:
        """What lies in the place of one of its files and is none: SQLite would wait at a FIFO for ever."""
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

    # Writing

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

    def look(self, ids: Iterable[str]) -> None:
        """Take note of `ids` as the tree has them now, wherever they are or if they are gone."""
        with self._guarded():
            if self._database is not None:
                self._look_at([UploadedFileId(id_) for id_ in ids], lambda _: None)

    def _transaction(self) -> _Transaction:
        assert self._database is not None
        return _Transaction(self._database)

    def _note_folder(self, user: str) -> None:
        if self._doubted:
            # A row of it may be missing: only `reconcile` can say that the folder is right.
            return
        with suppress(FileNotFoundError):
            self._remember_folder(user, self._folder(user))

    def _folder(self, user: str) -> tuple[int, int]:
        found = os.stat(self._spool.storage / user)
        # Numbers of 64 bits without a sign, or of a clock far ahead, SQLite does not take.
        return found.st_ino & LARGEST, found.st_mtime_ns & LARGEST

    def _remember_folder(self, user: str, seen: tuple[int, int]) -> None:
        assert self._database is not None
        self._database.execute("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", (user, *seen))

    def reconcile(self, *, anew: bool = False, tick: Callable[[int], None] = lambda _: None) -> int:
        """Make it agree with the tree; tells how many rows were not as they had to be.

        Only what may differ is read: what is in work, and of the folders of ``storage/`` those
        that have changed since every row of theirs was right.

        Parameters
        ----------
        anew
            Whatever it says is thrown away first.
        tick
            Told now and then how many uploaded files were looked at.
        """
        wrong = 0
        # Not one lock for all of it: rows are written meanwhile by those who move uploaded files.
        with self._guarded():
            self._doubted = self._doubted or anew or self.fault is not None
            self.fault, self.damaged = None, False
            if anew or self._database is None:
                self._make()
        try:
            for look in (self._unread, self._stages, self._storages, self._gone):
                if self.fault is None:
                    wrong += look(tick)
        except OSError as error:
            # The tree itself cannot be looked through now.
            self.fault = f"{error}"
        if self.fault is None:
            self._doubted = False
        return wrong

    def due(self) -> list[str]:
        """What could not be read or written and may be tried again: ids, and folders of ``storage/``."""
        ids = [row[0] for row in self._ask("SELECT id FROM unread LIMIT ?", (_TICK_EVERY,))]
        known = {*ids, *(one.which for one in aside.all_of("row"))}
        return sorted(one for one in known if aside.may_try("row", one))

    def again(self, due: Sequence[str]) -> None:
        """Look once more at what is `due`."""
        self.look([one for one in due if "/" not in one])
        if any("/" in one for one in due):
            # Of the folders only those are looked at whose rows were not found to be right.
            self.reconcile()

    def _unread(self, tick: Callable[[int], None]) -> int:
        """A manifest may have been mended in its place, which no folder's time tells of."""
        ids = [UploadedFileId(row[0]) for row in self._ask("SELECT id FROM unread")]
        return self._look_at(ids, tick)

    def _stages(self, tick: Callable[[int], None]) -> int:
        """Every row of what is in a stage directory, and of what was."""
        names = [status.name for status in STAGE_STATUSES]
        known = dict(
            self._ask(f"SELECT id, status FROM uploaded WHERE status IN ({_marks(names)})", names)
        )
        doubtful: list[UploadedFileId] = []
        for status in STAGE_STATUSES:
            for id_ in self._spool.in_status(status):
                # One in work is written anew at each step: its row may be that of the step before.
                if known.pop(id_, None) != status.name:
                    doubtful.append(id_)
        doubtful += [UploadedFileId(id_) for id_ in known]
        return self._look_at(doubtful, tick)

    def _storages(self, tick: Callable[[int], None]) -> int:
        wrong = 0
        for folder in sorted(self._spool.storage.iterdir()):
            with aside.fence("row", f"storage/{folder.name}", but=(sqlite3.Error,)):
                if folder.is_dir():
                    wrong += self._storage(folder, tick)
        return wrong

    def _storage(self, folder: Path, tick: Callable[[int], None]) -> int:
        """Every row of one user's storage, if its folder has changed."""
        # Before its names are read: what comes later makes it differ again.
        seen = self._folder(folder.name)
        noted = self._ask("SELECT inode, mtime_ns FROM folder WHERE user = ?", (folder.name,))
        if noted == [seen] and not self._doubted:
            return 0
        rows = self._ask(
            f"SELECT id FROM uploaded WHERE user = ? AND status IN ({_marks(_HELD)})",
            (folder.name, *_HELD),
        )
        known = {row[0] for row in rows}
        there = {name for name in os.listdir(folder) if ID_PATTERN.fullmatch(name)}
        doubtful = [UploadedFileId(id_) for id_ in sorted(there ^ known)]
        wrong = self._look_at(doubtful, tick, folder)
        with self._guarded():
            if self.fault is None:
                self._remember_folder(folder.name, seen)
        return wrong

    def _gone(self, _tick: Callable[[int], None]) -> int:
        """The rows of users whose whole folder is gone."""
        wrong = 0
        for (user,) in self._ask("SELECT user FROM folder"):
            if (self._spool.storage / user).is_dir():
                continue
            rows = self._ask(
                f"DELETE FROM uploaded WHERE user = ? AND status IN ({_marks(_HELD)}) RETURNING id",
                (user, *_HELD),
            )
            wrong += len(rows)
            self._ask("DELETE FROM folder WHERE user = ?", (user,))
        return wrong

    def _look_at(
        self,
        doubtful: list[UploadedFileId],
        tick: Callable[[int], None],
        folder: Path | None = None,
    ) -> int:
        """Write the rows of `doubtful` as the tree says, some hundreds in one transaction.

        Most of them are in `folder`, if one is given.
        """
        for start in range(0, len(doubtful), _TICK_EVERY):
            with self._guarded(), self._transaction():
                for id_ in doubtful[start : start + _TICK_EVERY]:
                    self._look_at_one(id_, folder)
            if self.fault is not None:
                break
            tick(start)
        return len(doubtful)

    def _look_at_one(self, id_: UploadedFileId, folder: Path | None) -> None:
        assert self._database is not None
        if not ID_PATTERN.fullmatch(id_):
            return
        lost: tuple[Status | None, Path] | None = None
        for place in self._places(id_, folder):
            status, path = place
            try:
                with aside.fence("row", id_, but=(sqlite3.Error, FileNotFoundError)) as fenced:
                    found = manifest.read(path)
                    if found["id"] != id_:
                        raise ManifestError(f"{path} holds the manifest of {found['id']}")
                    self._write(found, status or manifest.status_of(found))
            except FileNotFoundError:
                # It moves on at this moment, and who moves it writes its row; or it has no manifest.
                lost = place if path.is_dir() else None
                continue
            if fenced.failed:
                self._write_unread(id_, status, path, fenced.why)
            return
        if lost is None:
            self._database.execute("DELETE FROM uploaded WHERE id = ?", (id_,))
            self._database.execute("DELETE FROM unread WHERE id = ?", (id_,))
            aside.clear("row", id_)
        else:
            with aside.fence("row", id_):
                raise ManifestError(f"{lost[1]} has no manifest")
            self._write_unread(id_, *lost, "it has no manifest")

    def _write(self, found: Manifest, status: Status) -> None:
        assert self._database is not None
        values = _values(found, status)
        try:
            self._database.execute(_PUT, values)
        except _UNFIT:
            self._database.execute(_PUT, [_fitting(value) for value in values])
        self._database.execute("DELETE FROM unread WHERE id = ?", (found["id"],))

    def _write_unread(self, id_: str, status: Status | None, path: Path, why: str) -> None:
        """A row for what cannot be read: its id, where it is, and that it is damaged."""
        assert self._database is not None
        user = path.parent.name if status is None else "unknown"
        # In storage the manifest alone would say more; that it was published is sure.
        known = manifest.unreadable(id_, user=user, status=status or Status.DEPLOYED, why=why)
        self._database.execute(
            _PUT, [_fitting(value) for value in _values(known, status or Status.DEPLOYED)]
        )
        self._database.execute("INSERT OR IGNORE INTO unread VALUES (?)", (id_,))

    def _places(
        self, id_: UploadedFileId, folder: Path | None
    ) -> Iterator[tuple[Status | None, Path]]:
        # What is in storage stays there, so this look needs no other before it.
        if folder is not None and (folder / id_).is_dir():
            yield None, folder / id_
        yield from _places(self._spool, id_, self._user(id_))

    def _user(self, id_: str) -> str | None:
        assert self._database is not None
        row = self._database.execute("SELECT user FROM uploaded WHERE id = ?", (id_,)).fetchone()
        return row[0] if row else None

    # Asking

    def counts(self) -> dict[Status, int]:
        """How many uploaded files there are in each status."""
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
            Ids that are greater alone: a page that nothing which comes or goes can shift.
        final
            What has come to its end alone.
        sort
            One of `SORTS`.
        limit
            At most so many; 0 means all.
        """
        tests: list[str] = []
        values: list[Any] = []
        for column, wanted in (where or {}).items():
            several = [wanted] if isinstance(wanted, str) else list(wanted)
            tests.append(f"{column} IN ({_marks(several)})")
            values += several
        if name_has is not None:
            tests.append("instr(lower(name), lower(?)) > 0")
            values.append(name_has)
        if since is not None:
            tests.append("received_at >= ?")
            values.append(since)
        if until is not None:
            tests.append("received_at < ?")
            values.append(until)
        if final:
            ended = [status.name for status in Status if status.is_final]
            # The sign keeps SQLite from reading and sorting all of them by their status.
            tests.append(f"+status IN ({_marks(ended)})")
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
        return self._rows(
            f"{condition} ORDER BY {order} LIMIT ? OFFSET ?",
            [*values, min(limit, LARGEST) or -1, min(offset, LARGEST)],
        )

    def _rows(self, rest: str, values: Sequence[Any]) -> list[Row]:
        question = f"SELECT {_OF_ROW} FROM uploaded {rest}"
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
        """The uploaded file `id_` and all that came out of it, by their ids."""
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
        """What has come to its end since `at`, in ISO 8601."""
        rows = self._rows("WHERE changed_at >= ? ORDER BY changed_at", (at,))
        return [row for row in rows if row.status.is_final]

    def oldest(self) -> dict[Status, str]:
        """When the oldest uploaded file in each stage was received, in ISO 8601."""
        found = {}
        for status in STAGE_STATUSES:
            # Ids sort by time, so this is one look into an index, however many there are.
            rows = self._ask(
                "SELECT received_at FROM uploaded WHERE status = ? ORDER BY id LIMIT 1",
                (status.name,),
            )
            if rows:
                found[status] = str(rows[0][0])
        return found

    def size_bytes(self, id: str) -> int:  # noqa: A002
        """How large an uploaded file is; 0 if nothing is known of it."""
        rows = self._ask("SELECT size_bytes FROM uploaded WHERE id = ?", (id,))
        return int(rows[0][0] or 0) if rows else 0

    def distinct(self, column: str, beginning: str, limit: int) -> list[str]:
        """Values of `column` that begin with `beginning`, for the completion of a command line."""
        rows = self._ask(
            f"SELECT DISTINCT {column} FROM uploaded WHERE {column} >= ? "
            f"AND {column} < ? || char(1114111) ORDER BY {column} LIMIT ?",
            (beginning, beginning, limit),
        )
        return [row[0] for row in rows]

    def every(self) -> Iterator[tuple[Any, ...]]:
        """All that it says, to be compared with another one."""
        yield from self._ask(f"SELECT {', '.join(_COLUMNS)} FROM uploaded ORDER BY id")
        yield from self._ask("SELECT status, files FROM count WHERE files <> 0 ORDER BY status")

    def close(self) -> None:
        """Close the file."""
        with self._guarded():
            if self._database is not None:
                self._database.close()
        self._database = None


def _places(
    spool: Spool, id_: UploadedFileId, user: str | None
) -> Iterator[tuple[Status | None, Path]]:
    """Where an uploaded file may be, the stage directories first, for that is where it comes from."""
    for _ in range(2):
        staged = spool.find(id_)
        if staged is not None:
            yield staged
        users = [user] if user else sorted(os.listdir(spool.storage))
        for name in users:
            path = spool.storage / name / id_
            if path.is_dir():
                yield None, path


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


class _Guard:
    """Turns what SQLite or the disk refuses into `Index.fault`."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __enter__(self) -> None:
        self._index._lock.acquire()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._index._lock.release()
        if isinstance(error, sqlite3.Error | OSError):
            self._index.fault = f"{error}"
            self._index._doubted = True
            # A full or a faulty disk leaves what is there as it was.
            passing = isinstance(error, sqlite3.OperationalError | OSError)
            self._index.damaged = self._index.damaged or not passing
            return True
        return False


class _Transaction:
    """One transaction, or none of it."""

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
