"""A row per uploaded file, in one SQLite file beside the tree: a cache that is made again from it.

The tree is the truth. The index answers what would mean reading every manifest: how many there are
in each status, a page of a list, the children of an archive, whether some content is there already.
It may be deleted at any time.

Source: docs/decisions/013-the-index.md
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytowatch import aside, durable
from cytowatch.outside import LARGEST
from cytowatch.record import manifest
from cytowatch.record.entries import Manifest
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import ID_PATTERN, UploadedFileId
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.tree.index import missing
from cytowatch.tree.index.ask import Questions
from cytowatch.tree.index.missing import Missing
from cytowatch.tree.index.rows import PUT, SORTS, Row, content_key, fitting, marks, values_of
from cytowatch.tree.spool import Spool

__all__ = ["SORTS", "Index", "Row", "content_key"]

#: Another version is deleted and made again.
_VERSION = 4
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
-- The folders of storage/, as they were when each of their rows was right.
CREATE TABLE folder (user TEXT PRIMARY KEY, inode INTEGER, mtime_ns INTEGER) WITHOUT ROWID;
-- Of these no manifest could be read: their rows say what else is known, and are looked at again.
CREATE TABLE unread (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_HELD = (Status.DEPLOYED.name, Status.CONVERTED.name, Status.EXTRACTED.name)
_TICK_EVERY = 500
#: SQLite's own names for what belongs to a database in WAL mode.
_ENDINGS = ("", "-wal", "-shm")
#: What SQLite says of a value that it cannot hold; with the text or the number made so that it can, it does.
_UNFIT = (UnicodeEncodeError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


class Index(Questions):
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
        #: Whether rows may be missing that no folder's time shows.
        self._doubted = True
        #: Whether the file itself is of no use any more, so that it must be made again.
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
        self._database.executescript(
            f"BEGIN; {_SCHEMA} {missing.SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;"
        )

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
        that have changed since each of their rows was right.

        Parameters
        ----------
        again
            Anything that it says is thrown away first.
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
            self._recall()
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
        """A manifest may have been mended in its place, which no folder's time shows."""
        ids = [UploadedFileId(row[0]) for row in self._ask("SELECT id FROM unread")]
        return self._look_at(ids, tick)

    def _stages(self, tick: Callable[[int], None]) -> int:
        """Every row of what is in a stage directory, and of what was."""
        names = [status.name for status in STAGE_STATUSES]
        known = dict(
            self._ask(f"SELECT id, status FROM uploaded WHERE status IN ({marks(names)})", names)
        )
        doubtful: list[UploadedFileId] = []
        for status in STAGE_STATUSES:
            for id_ in self._spool.in_status(status):
                # One in work is written again at each step: its row may be that of the step before.
                if known.pop(id_, None) != status.name:
                    doubtful.append(id_)
        doubtful += [UploadedFileId(id_) for id_ in known]
        return self._look_at(doubtful, tick)

    def _storages(self, tick: Callable[[int], None]) -> int:
        wrong = 0
        for user in self._spool.users():
            with aside.fence("row", f"storage/{user}", but=(sqlite3.Error,)):
                wrong += self._storage(self._spool.storage / user, tick)
        return wrong

    def _storage(self, folder: Path, tick: Callable[[int], None]) -> int:
        """Every row of one user's storage, if its folder has changed."""
        # Before its names are read: what comes later makes it differ again.
        seen = self._folder(folder.name)
        noted = self._ask("SELECT inode, mtime_ns FROM folder WHERE user = ?", (folder.name,))
        if noted == [seen] and not self._doubted:
            return 0
        rows = self._ask(
            f"SELECT id FROM uploaded WHERE user = ? AND status IN ({marks(_HELD)})",
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
        there = set(self._spool.users())
        for (user,) in self._ask("SELECT user FROM folder"):
            if user in there:
                continue
            rows = self._ask(
                f"DELETE FROM uploaded WHERE user = ? AND status IN ({marks(_HELD)}) RETURNING id",
                (user, *_HELD),
            )
            wrong += len(rows)
            self._ask("DELETE FROM folder WHERE user = ?", (user,))
        return wrong

    # What vanished

    def missing(self) -> list[Missing]:
        """What was in storage and is not there, though no command removed it."""
        with self._guarded():
            return list(missing.rows(self._database)) if self._database is not None else []
        return []

    def held(self) -> Iterator[Row]:
        """Every row of what is in storage, by id, a page at a time."""
        after: str | None = None
        while page := self.select(
            where={"status": _HELD}, after=after, ascending=True, limit=_TICK_EVERY
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

    def look_for_vanished(self, *, thoroughly: bool) -> None:
        """Take note of what is no longer in storage, where a folder has changed without a put.

        Every `put` notes the time of its folder, and hides with it what vanished just before; only a
        `thorough` look, which reads the names in every folder, finds that.
        """
        if not (self._spool.is_there() and self._spool.storage.is_dir()):
            return
        try:
            there = set(self._spool.users())
            for (user,) in self._ask("SELECT user FROM folder"):
                with aside.fence("row", f"storage/{user}", but=(sqlite3.Error,)):
                    if thoroughly:
                        self._ask("UPDATE folder SET mtime_ns = 0 WHERE user = ?", (user,))
                    if user in there:
                        self._storage(self._spool.storage / user, lambda _: None)
            self._gone(lambda _: None)
        except OSError as error:
            self.fault = f"{error}"

    def _keep_what_was(self) -> None:
        """Keep an index that is made again beside the new one, which takes over what is missing."""
        usable = self._path is not None and self._path.is_file() and not self._path.is_symlink()
        if usable and self._path is not None and not os.path.lexists(self._before):
            self._path.rename(self._before)

    def _recall(self) -> None:
        if self._path is None or not self._before.is_file():
            return
        with self._guarded():
            # Of one that is damaged, or older than this, as much as can be read.
            with suppress(sqlite3.Error):
                assert self._database is not None
                missing.recall(self._database, self._before)
            self._before.unlink()

    @property
    def _before(self) -> Path:
        return self._spool.state / "index.before.sqlite3"

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
        values = values_of(found, status)
        try:
            self._database.execute(PUT, values)
        except _UNFIT:
            self._database.execute(PUT, [fitting(value) for value in values])
        self._database.execute("DELETE FROM unread WHERE id = ?", (found["id"],))

    def _write_unread(self, id_: str, status: Status | None, path: Path, why: str) -> None:
        """A row for what cannot be read: its id, where it is, and that it is damaged."""
        assert self._database is not None
        user = path.parent.name if status is None else "unknown"
        # In storage only the manifest would say more; that it was published is sure.
        known = manifest.unreadable(id_, user=user, status=status or Status.DEPLOYED, why=why)
        self._database.execute(
            PUT, [fitting(value) for value in values_of(known, status or Status.DEPLOYED)]
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

    def close(self) -> None:
        """Close the file."""
        with self._guarded():
            if self._database is not None:
                self._database.close()
        self._database = None


def _places(
    spool: Spool, id_: UploadedFileId, user: str | None
) -> Iterator[tuple[Status | None, Path]]:
    """Where an uploaded file may be, the stage directories first, because that is where it comes from."""
    for _ in range(2):
        staged = spool.find(id_)
        if staged is not None:
            yield staged
        users = [user] if user else spool.users()
        for name in users:
            path = spool.storage / name / id_
            if path.is_dir():
                yield None, path


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
