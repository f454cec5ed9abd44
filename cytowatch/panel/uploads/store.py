"""Unfinished uploads on disk: ``inbox/.uploads/<token>/``, from which one rename makes each a drop.

::

    .uploads/<token>/notes/<member>.json    what was announced for one file, written once
    .uploads/<token>/tree/<path>            its bytes: the offset is the size of this file
    .uploads/<token>/done/<member>          every byte of it is here
    .uploads/<token>/publishing             the path of the drop that it is about to be
    .uploads/<token>/published              the path of the drop, once it is one
    .uploads/.room*.json                    what uploads may still write, one for each panel (`cytowatch.tree.announced`)
    .uploads/.room*.lock                    held by the panel that writes the file of the same name

A single file is a folder with one member. The bytes lie where they are published from. So if a file
is gone and its note is there, it was published: nothing else takes it away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from cytowatch import aside, durable, outside
from cytowatch.durable import failpoints, trees
from cytowatch.outside import OutsideError
from cytowatch.panel.uploads.appending import Disk
from cytowatch.panel.uploads.found import EXPIRES_S, Found, latest
from cytowatch.panel.uploads.ledger import Ledger
from cytowatch.panel.uploads.rules import Announced, noted
from cytowatch.record.names import fold
from cytowatch.tree import announced as room

__all__ = ["TOKEN", "BusyError", "Store", "owner_key"]

#: The token of an upload: whose it is, the folder that it belongs to, and the file in it.
TOKEN = re.compile(r"([0-9a-f]{16}-[0-9a-f]{32})\.([0-9a-f]{16})")
_CHUNK_BYTES = 1 << 20


class BusyError(Exception):
    """Another client adds to this upload."""


def owner_key(owner: str) -> str:
    """How the tokens of `owner` begin; a hash keeps names of users out of addresses."""
    return hashlib.sha256(fold(owner).encode("utf-8", "replace")).hexdigest()[:16]


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


class Store:
    """Guards ``inbox/.uploads``; safe from any thread and any process, because only sums are kept in memory."""

    def __init__(self, inbox: Path, *, others: Callable[[], int] = lambda: 0) -> None:
        self.inbox = inbox
        self.home = inbox / ".uploads"
        self.disk = Disk()
        self.ledger = Ledger(
            lambda: ((one.token, one.announced.size - one.offset) for one in self.unfinished()),
            others=others,
        )

    # What there is

    def find(self, token: str, owner: str) -> Found | None:
        """The upload `token` of `owner`; None if there is none, or it is somebody else's."""
        return self.at(token) if token.startswith(owner_key(owner)) else None

    def at(self, token: str) -> Found | None:
        """The upload `token`, no matter who owns it; None if there is none."""
        matched = TOKEN.fullmatch(token)
        return self._read(matched[1], matched[2]) if matched else None

    def _read(self, folder: str, member: str) -> Found | None:
        home = self.home / folder
        try:
            announced = noted(outside.read_json(home / "notes" / f"{member}.json"))
        except (OSError, OutsideError):
            return None
        if announced is None:
            return None
        found = Found(token=f"{folder}.{member}", home=home, member=member, announced=announced)
        return None if found.is_gone else found

    def unfinished(self, owner: str | None = None) -> Iterator[Found]:
        """Uploads of `owner`, or of all, that are not whole."""
        begins = owner_key(owner) if owner is not None else ""
        with suppress(FileNotFoundError):
            for folder in sorted(os.listdir(self.home)):
                if not folder.startswith(begins) or folder.startswith("."):
                    continue
                # A published or whole one costs one look, and its note is not read.
                if (self.home / folder / "published").exists():
                    continue
                whole = set(_listed(self.home / folder / "done"))
                for member in self._members(folder):
                    found = self._read(folder, member) if member not in whole else None
                    if found is not None:
                        yield found

    def cut_off(self) -> Iterator[Found]:
        """Uploads that have all their bytes, in folders that are not published."""
        for folder in _listed(self.home):
            home = self.home / folder
            if folder.startswith(".") or (home / "published").exists():
                continue
            for member in self._members(folder):
                found = self._read(folder, member)
                if found is not None and found.offset == found.announced.size:
                    yield found

    def _members(self, folder: str) -> list[str]:
        notes = _listed(self.home / folder / "notes")
        return [name.removesuffix(".json") for name in notes if name.endswith(".json")]

    def count(self, owner: str) -> int:
        """How many uploads of `owner` are not whole."""
        return self.ledger.count(owner_key(owner))

    # What changes

    def known(self, announced: Announced, owner: str) -> Found | None:
        """The upload already begun for the same file of the same folder; None if there is none.

        Raises
        ------
        FileExistsError
            The folder is complete, or has this file with another announcement, such as another size.
        """
        if not announced.group:
            return None
        folder, member = _place(announced, owner)
        found = self._read(folder, member)
        if found is not None and found.announced != announced:
            raise FileExistsError(f"{announced.path} was announced before, with other values")
        full = len(self._members(folder)) >= announced.files
        if found is None and (full or (self.home / folder / "published").exists()):
            raise FileExistsError("this folder has all the files that were announced")
        return found

    def create(self, announced: Announced, owner: str) -> Found:
        """Begin an upload, or continue the one that is `known`.

        Raises
        ------
        FileExistsError
            As for `known`.
        NotADirectoryError, IsADirectoryError
            One file of the folder has the name of a folder in it.
        """
        if (there := self.known(announced, owner)) is not None:
            return there
        folder, member = _place(announced, owner)
        home = self.home / folder
        # A note may be left of an upload that was being removed when the panel was killed, or be somebody else's.
        (home / "notes" / f"{member}.json").unlink(missing_ok=True)
        durable.make_directory(home)
        # Making `tree` durable makes the names of these two durable as well.
        for inside in ("notes", "done"):
            (home / inside).mkdir(mode=0o750, exist_ok=True)
        above = (home / "tree" / announced.path).parent
        try:
            durable.make_directory(above)
        except FileExistsError as error:
            raise NotADirectoryError(f"{above.name} is a file of this folder") from error
        found = Found(token=f"{folder}.{member}", home=home, member=member, announced=announced)
        self._write_note(found)
        self.ledger.begin(found.token, announced.size)
        return found

    def _write_note(self, found: Found) -> None:
        """Write the empty file first, then the note; with the note it is an upload."""
        flags = os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(found.bytes_at, os.O_WRONLY | flags, 0o640))
        durable.fsync_directory(found.bytes_at.parent)
        notes = found.home / "notes"
        temporary = notes / f".{found.member}-{secrets.token_hex(4)}"
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found.announced)))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            durable.rename(temporary, notes / f"{found.member}.json")
        temporary.unlink(missing_ok=True)
        failpoints.reached("upload.noted")
        durable.fsync_directory(notes)

    @contextmanager
    def writing(self, found: Found) -> Iterator[int]:
        """A descriptor of the bytes, for one writer at a time.

        Raises
        ------
        BusyError
            There is another writer.
        FileNotFoundError
            It was published or removed.
        """
        with _locked(found.home / "notes" / f"{found.member}.json"):
            # O_NONBLOCK: it must not wait at a pipe that somebody has put there.
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(found.bytes_at, flags)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    @staticmethod
    def keep(descriptor: int) -> None:
        """Make the written bytes survive a power cut; only then are they acknowledged."""
        failpoints.reached("upload.written")
        os.fsync(descriptor)
        failpoints.reached("upload.kept")

    def remove(self, found: Found) -> None:
        """Remove one upload, and with the last one its folder.

        Raises
        ------
        BusyError
            A client is writing to it.
        """
        note = found.home / "notes" / f"{found.member}.json"
        with suppress(FileNotFoundError), _locked(note):
            (found.home / "done" / found.member).unlink(missing_ok=True)
            with suppress(OSError):
                found.bytes_at.unlink()
            note.unlink(missing_ok=True)
        self.ledger.end(found.token)
        if not self._members(found.home.name):
            self._remove_folder(found.home)

    def _remove_folder(self, home: Path) -> None:
        aside = self.home / f".gone-{secrets.token_hex(8)}"
        with suppress(OSError):
            os.rename(home, aside)
        trees.remove(aside)

    def expire(self, now: float | None = None) -> int:
        """Remove the folders that got no new bytes for a day; gives how many."""
        before = (time.time() if now is None else now) - EXPIRES_S
        removed = 0
        for folder in _listed(self.home):
            if room.is_part(folder):
                continue
            # One that cannot be read or removed costs only itself.
            with aside.fence("request", f"upload {folder}"):
                home = self.home / folder
                if _newest(home) < before:
                    self.ledger.end(*(f"{folder}.{member}" for member in self._members(folder)))
                    self._remove_folder(home)
                    removed += 1
        return removed


def _newest(home: Path) -> float:
    """When anything in a folder changed last."""
    newest = latest([home])
    for at, folders, files in durable.walk(home):
        newest = max(newest, latest([Path(at, name) for name in (*folders, *files)]))
    return newest


def _place(announced: Announced, owner: str) -> tuple[str, str]:
    """The folder of an upload and the file in it; the same file of the same group always has the same ones."""
    key = secrets.token_hex(16)
    if announced.group:
        same = "\0".join((announced.group, announced.top, announced.project, fold(announced.user)))
        key = hashlib.sha256(same.encode()).hexdigest()[:32]
    return f"{owner_key(owner)}-{key}", hashlib.sha256(announced.path.encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        durable.lock(descriptor, wait=False)
        yield
    except BlockingIOError:
        raise BusyError from None
    finally:
        os.close(descriptor)
