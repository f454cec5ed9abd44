"""Making the index agree with the tree: everything that may differ is checked, one uploaded file at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cytowatch import aside
from cytowatch.outside import LARGEST
from cytowatch.record import manifest
from cytowatch.record.entries import Manifest
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import ID_PATTERN, UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.tree import places
from cytowatch.tree.index import missing
from cytowatch.tree.index.database import Database
from cytowatch.tree.index.rows import PUT, fitting, marks, values_of

__all__ = ["HELD", "TICK_EVERY", "Reconciling"]

HELD = (Status.DEPLOYED.name, Status.CONVERTED.name, Status.EXTRACTED.name)
TICK_EVERY = 500
#: SQLite's errors for a value that it cannot store; it can after the text or the number was adapted.
_UNFIT = (UnicodeEncodeError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


class Reconciling(Database):
    """Guards whether the rows are in doubt; `reconcile` corrects them."""

    def reconcile(
        self, *, from_scratch: bool = False, tick: Callable[[int], None] = lambda _: None
    ) -> int:
        """Make it agree with the tree; return how many rows were wrong.

        Only files that may differ are read: those in work, and the directories of ``storage/`` that
        have changed since each of their rows was right.

        Parameters
        ----------
        from_scratch
            Discard its content first.
        tick
            Called now and then with the number of uploaded files checked.
        """
        wrong = 0
        # Not one lock for all of it: threads that move uploaded files write rows meanwhile.
        with self._guarded():
            self._doubted = self._doubted or from_scratch or self.fault is not None
            self.fault, self.damaged = None, False
            if from_scratch or self._database is None:
                self._make()
        try:
            for look in (self._unread, self._stages, self._storages, self._gone):
                if self.fault is None:
                    wrong += look(tick)
        except OSError as error:
            # The tree itself cannot be read now.
            self.fault = f"{error}"
        if self.fault is None:
            self._doubted = False
            self._recall()
        return wrong

    def due(self) -> list[str]:
        """Ids and directories of ``storage/`` that could not be read or written and may be tried again."""
        ids = [row[0] for row in self._ask("SELECT id FROM unread LIMIT ?", (TICK_EVERY,))]
        known = {*ids, *(one.which for one in aside.all_of("row"))}
        return sorted(one for one in known if aside.may_try("row", one))

    def again(self, due: Sequence[str]) -> None:
        """Check those that are `due` once more."""
        self.look([one for one in due if "/" not in one])
        if any("/" in one for one in due):
            # Only those folders are checked whose rows were not found right.
            self.reconcile()

    def look_for_vanished(self, *, thoroughly: bool) -> None:
        """Record files that are no longer in storage, if a folder has changed without a put.

        Every `put` notes the time of its folder, which hides a file that vanished just before; only a
        `thorough` check, which reads the names in every folder, finds that.
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

    def _recall(self) -> None:
        if self._path is None or not self._before.is_file():
            return
        with self._guarded():
            # If the old index is damaged or older, take as much as can be read.
            with suppress(sqlite3.Error):
                assert self._database is not None
                missing.recall(self._database, self._before)
            self._before.unlink()

    def look(self, ids: Iterable[str]) -> None:
        """Record `ids` as the tree has them now, no matter where they are or whether they are gone."""
        with self._guarded():
            if self._database is not None:
                self._look_at([UploadedFileId(id_) for id_ in ids], lambda _: None)

    def _note_folder(self, user: str) -> None:
        if self._doubted:
            # One of its rows may be missing: only `reconcile` can confirm the folder.
            return
        with suppress(FileNotFoundError):
            self._remember_folder(user, self._folder(user))

    def _folder(self, user: str) -> tuple[int, int]:
        found = os.stat(self._spool.storage / user)
        # SQLite does not take unsigned 64-bit numbers, nor those of a clock far ahead.
        return found.st_ino & LARGEST, found.st_mtime_ns & LARGEST

    def _remember_folder(self, user: str, seen: tuple[int, int]) -> None:
        assert self._database is not None
        self._database.execute("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", (user, *seen))

    def _unread(self, tick: Callable[[int], None]) -> int:
        """Check unreadable manifests again: a repair in place does not change the time of a folder."""
        ids = [UploadedFileId(row[0]) for row in self._ask("SELECT id FROM unread")]
        return self._look_at(ids, tick)

    def _stages(self, tick: Callable[[int], None]) -> int:
        """Every row of an uploaded file that is, or was, in a stage directory."""
        names = [status.name for status in STAGE_STATUSES]
        known = dict(
            self._ask(f"SELECT id, status FROM uploaded WHERE status IN ({marks(names)})", names)
        )
        doubtful: list[UploadedFileId] = []
        for status in STAGE_STATUSES:
            for id_ in self._spool.in_status(status):
                # The row of a file in work is written at each step, so it may be one step behind.
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
        # Before its names are read, so that later changes make it differ again.
        seen = self._folder(folder.name)
        noted = self._ask("SELECT inode, mtime_ns FROM folder WHERE user = ?", (folder.name,))
        if noted == [seen] and not self._doubted:
            return 0
        rows = self._ask(
            f"SELECT id FROM uploaded WHERE user = ? AND status IN ({marks(HELD)})",
            (folder.name, *HELD),
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
                f"DELETE FROM uploaded WHERE user = ? AND status IN ({marks(HELD)}) RETURNING id",
                (user, *HELD),
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
        """Write the rows of `doubtful` from the tree, some hundreds in one transaction.

        If `folder` is given, most of them are in it.
        """
        for start in range(0, len(doubtful), TICK_EVERY):
            with self._guarded(), self._transaction():
                for id_ in doubtful[start : start + TICK_EVERY]:
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
                    found = Place.read(path, status)
                    if found.manifest["id"] != id_:
                        raise ManifestError(f"{path} holds the manifest of {found.manifest['id']}")
                    self._write(found.manifest, found.status)
            except FileNotFoundError:
                # It is just moving on, and the thread that moves it writes its row; or it has no manifest.
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
        """A row for a file whose manifest cannot be read: its id, where it is, and that it is damaged."""
        assert self._database is not None
        user = path.parent.name if status is None else "unknown"
        # In storage only the manifest would say more, but it was certainly published.
        known = manifest.unreadable(id_, user=user, status=status or Status.DEPLOYED, why=why)
        self._database.execute(
            PUT, [fitting(value) for value in values_of(known, status or Status.DEPLOYED)]
        )
        self._database.execute("INSERT OR IGNORE INTO unread VALUES (?)", (id_,))

    def _places(
        self, id_: UploadedFileId, folder: Path | None
    ) -> Iterator[tuple[Status | None, Path]]:
        # A file in storage stays there, so no other place need be checked first.
        if folder is not None and (folder / id_).is_dir():
            yield None, folder / id_
        yield from places.of(self._spool, id_, self._user(id_))

    def _user(self, id_: str) -> str | None:
        assert self._database is not None
        row = self._database.execute("SELECT user FROM uploaded WHERE id = ?", (id_,)).fetchone()
        return row[0] if row else None
