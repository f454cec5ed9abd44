"""Unfinished uploads on disk: ``inbox/.uploads/<token>/``, and the one rename that makes each a drop.

::

    .uploads/<token>/notes/<member>.json    what was announced of one file, written once
    .uploads/<token>/tree/<path>            its bytes: the offset is the size of this file
    .uploads/<token>/done/<member>          every byte of it is here
    .uploads/<token>/published              the path of the drop, once it is one

A single file is a folder with one member. The bytes lie where they will be published from, so a file
that is gone while its note is there was published: nothing else takes it away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cytowatch import aside, durable, outside
from cytowatch.durable import trees
from cytowatch.outside import OutsideError
from cytowatch.panel.uploads.rules import Announced, noted
from cytowatch.record.names import fold

__all__ = ["EXPIRES_S", "TOKEN", "BusyError", "Found", "Store", "owner_key"]

#: An upload to which nothing was added for so long is removed.
EXPIRES_S = 86_400.0
#: The token of an upload: whose it is, the folder that it belongs to, and the file in it.
TOKEN = re.compile(r"([0-9a-f]{16}-[0-9a-f]{32})\.([0-9a-f]{16})")
_CHUNK_BYTES = 1 << 20


class BusyError(Exception):
    """Another client adds to this upload."""


def owner_key(owner: str) -> str:
    """How the uploads of `owner` begin: names of users stay out of addresses."""
    return hashlib.sha256(fold(owner).encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One upload: where it lies and what was announced."""

    token: str
    home: Path
    member: str
    announced: Announced

    @property
    def bytes_at(self) -> Path:
        """The file that grows."""
        return self.home / "tree" / self.announced.path

    @property
    def offset(self) -> int:
        """How many bytes are here: as large as the file is, and all of it once it was published."""
        try:
            return os.lstat(self.bytes_at).st_size
        except (FileNotFoundError, NotADirectoryError):
            return self.announced.size

    @property
    def is_whole(self) -> bool:
        """Whether every byte is here and was compared."""
        return (self.home / "done" / self.member).exists()

    @property
    def drop(self) -> str | None:
        """The path of the drop below ``inbox/``; None while it is not one."""
        try:
            return (self.home / "published").read_text() or self.announced.path
        except OSError:
            published = self.is_whole and not os.path.lexists(
                self.home / "tree" / self.announced.top
            )
            return self.announced.path if published else None

    @property
    def ends_at(self) -> float:
        """When it expires, in seconds since 1970."""
        seen = [self.home / "notes" / f"{self.member}.json", self.bytes_at, self.home / "done"]
        return _latest(seen) + EXPIRES_S


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _latest(paths: list[Path]) -> float:
    found = [0.0]
    for path in paths:
        with suppress(OSError):
            found.append(os.lstat(path).st_mtime)
    return max(found)


class Store:
    """Guards ``inbox/.uploads``; safe from any thread and any process, because it keeps nothing in memory."""

    def __init__(self, inbox: Path) -> None:
        self.inbox = inbox
        self.home = inbox / ".uploads"

    # What there is

    def find(self, token: str, owner: str) -> Found | None:
        """The upload `token` of `owner`; None if there is none, or it is somebody else's."""
        matched = TOKEN.fullmatch(token)
        if not matched or not token.startswith(owner_key(owner)):
            return None
        return self._read(matched[1], matched[2])

    def _read(self, folder: str, member: str) -> Found | None:
        home = self.home / folder
        try:
            announced = noted(outside.read_json(home / "notes" / f"{member}.json"))
        except (OSError, OutsideError):
            return None
        if announced is None:
            return None
        return Found(token=f"{folder}.{member}", home=home, member=member, announced=announced)

    def unfinished(self, owner: str | None = None) -> Iterator[Found]:
        """Uploads of `owner`, or of all, that are not whole."""
        begins = owner_key(owner) if owner is not None else ""
        with suppress(FileNotFoundError):
            for folder in sorted(os.listdir(self.home)):
                if not folder.startswith(begins) or folder.startswith("."):
                    continue
                # What is published or whole costs one look, and its note is not read.
                if (self.home / folder / "published").exists():
                    continue
                whole = set(_listed(self.home / folder / "done"))
                for member in self._members(folder):
                    found = self._read(folder, member) if member not in whole else None
                    if found is not None:
                        yield found

    def _members(self, folder: str) -> list[str]:
        notes = _listed(self.home / folder / "notes")
        return [name.removesuffix(".json") for name in notes if name.endswith(".json")]

    def count(self, owner: str) -> int:
        """How many uploads of `owner` are not whole."""
        return sum(1 for _ in self.unfinished(owner))

    def missing_bytes(self) -> int:
        """What all unfinished uploads may still write."""
        return sum(max(0, one.announced.size - one.offset) for one in self.unfinished())

    # What changes

    def create(self, announced: Announced, owner: str) -> Found:
        """Begin an upload; one of the same folder, path and size that is there already goes on.

        Raises
        ------
        FileExistsError
            The folder has this file with another size, is complete, or was announced otherwise.
        """
        key = secrets.token_hex(16)
        if announced.group:
            same = "\0".join(
                (announced.group, announced.top, announced.project, fold(announced.user))
            )
            key = hashlib.sha256(same.encode()).hexdigest()[:32]
        folder = f"{owner_key(owner)}-{key}"
        member = hashlib.sha256(announced.path.encode()).hexdigest()[:16]
        home = self.home / folder
        found = self._read(folder, member)
        if found is not None:
            if found.announced != announced:
                raise FileExistsError(f"{announced.path} is announced already, and otherwise")
            return found
        if len(self._members(folder)) >= announced.files or (home / "published").exists():
            raise FileExistsError("this folder has all the files that were announced")
        durable.make_directory(home)
        # The names of these two become durable with that of the third one.
        for inside in ("notes", "done"):
            (home / inside).mkdir(mode=0o750, exist_ok=True)
        durable.make_directory((home / "tree" / announced.path).parent)
        found = Found(token=f"{folder}.{member}", home=home, member=member, announced=announced)
        self._write_note(found)
        return found

    def _write_note(self, found: Found) -> None:
        """The empty file first, then the note, which makes it an upload."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(found.bytes_at, flags, 0o640))
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
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(found.bytes_at, flags)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    @staticmethod
    def write(descriptor: int, data: bytes) -> None:
        """Append all of `data`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    @staticmethod
    def keep(descriptor: int) -> None:
        """Make what was written outlast a power cut; only then it is acknowledged."""
        os.fsync(descriptor)

    def remove(self, found: Found) -> None:
        """Give up one upload, and its folder with the last one."""
        with suppress(OSError):
            found.bytes_at.unlink()
        (found.home / "done" / found.member).unlink(missing_ok=True)
        (found.home / "notes" / f"{found.member}.json").unlink(missing_ok=True)
        if not self._members(found.home.name):
            self._remove_folder(found.home)

    def _remove_folder(self, home: Path) -> None:
        aside = self.home / f".gone-{secrets.token_hex(8)}"
        with suppress(OSError):
            os.rename(home, aside)
        trees.remove(aside)

    def expire(self, now: float | None = None) -> int:
        """Remove the folders to which nothing was added for a day; gives how many."""
        before = (time.time() if now is None else now) - EXPIRES_S
        removed = 0
        for folder in _listed(self.home):
            # One that cannot be looked at, or removed, costs only itself.
            with aside.fence("request", f"upload {folder}"):
                home = self.home / folder
                if _newest(home) < before:
                    self._remove_folder(home)
                    removed += 1
        return removed


def _newest(home: Path) -> float:
    """When anything in a folder changed last."""
    newest = _latest([home])
    for at, folders, files in durable.walk(home):
        newest = max(newest, _latest([Path(at, name) for name in (*folders, *files)]))
    return newest


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
