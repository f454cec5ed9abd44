"""What `cytowatch send` sends: the files of a path, with their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cytowatch import durable
from cytowatch.record import names

__all__ = ["CHANGED", "Item", "Part", "SendError", "item_of", "pieces"]

_BLOCK_BYTES = 1 << 20
CHANGED = "somebody writes to it: send it again when it is complete"


class SendError(Exception):
    """Something cannot be sent; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of what is sent, its path below the inbox, and what it was like when it was hashed."""

    file: Path
    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or a folder: what becomes one drop."""

    name: str
    group: str
    parts: tuple[Part, ...]
    skipped: tuple[str, ...]

    @property
    def size(self) -> int:
        """All its bytes."""
        return sum(part.size for part in self.parts)


def item_of(path: Path, go_on: Callable[[], None] = lambda: None) -> Item:
    """What is at `path`, with the hash of each file; `go_on` is asked all the time, and ends it by raising.

    Raises
    ------
    SendError
        Nothing there can be sent, or somebody still writes to it.
    """
    path = path.resolve() if ".." in path.parts else path.absolute()
    if not path.name:
        raise SendError("it has no name: send the folders in it")
    found: list[Part] = []
    skipped: list[str] = []
    mark = hashlib.sha256()
    try:
        for file in _files(path, skipped):
            part = _part(file, _shown(file, path), go_on)
            mark.update(
                f"{file}\0{part.size}\0{part.mtime_ns}\0{part.sha256}\0".encode("utf-8", "replace")
            )
            found.append(part)
    except OSError as error:
        raise SendError(_why(path, error)) from error
    if not found:
        raise SendError("there is no file to send")
    return Item(
        name=path.name, group=mark.hexdigest()[:32], parts=tuple(found), skipped=tuple(skipped)
    )


def _shown(file: Path, path: Path) -> str:
    """The path of `file` as it is sent, beginning with the name of what is sent.

    Raises
    ------
    SendError
        It is not UTF-8, so the server would get another name.
    """
    shown = str(file.relative_to(path.parent))
    try:
        shown.encode()
    except UnicodeEncodeError:
        raise SendError(f"{names.shortened(shown)} is not in UTF-8: rename it") from None
    return shown


def _why(path: Path, error: OSError) -> str:
    """Why `path` cannot be read; of a folder with the name of the file in it."""
    said = error.strerror or str(error)
    file = Path(os.fsdecode(error.filename)) if error.filename else path
    return (
        f"{names.shortened(str(file.relative_to(path)))}: {said}" if path in file.parents else said
    )


def _files(path: Path, skipped: list[str]) -> Iterator[Path]:
    """The regular files of a folder, in order, without links and the temporary files of others."""
    if not path.is_dir():
        # To read a pipe or a device would never end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SendError("it is neither a file nor a folder")
        yield path
        return
    for at, folders, files in durable.walk(path):
        folders.sort()
        for name in folders:
            # One that is passed over would make a folder that is not whole look as if it were.
            if not os.access(Path(at, name), os.R_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{at}/{name}")
        for name in sorted(files):
            file = Path(at, name)
            if names.ignored(name, ()) or not stat.S_ISREG(os.lstat(file).st_mode):
                skipped.append(str(file.relative_to(path.parent)))
            else:
                yield file


def _part(file: Path, shown: str, go_on: Callable[[], None]) -> Part:
    with file.open("rb") as opened:

        def read(size: int) -> bytes:
            go_on()
            return opened.read(size)

        before = os.fstat(opened.fileno())
        part = Part(
            file=file,
            path=shown,
            size=before.st_size,
            mtime_ns=before.st_mtime_ns,
            sha256=durable.sha256(read),
        )
        if _has_changed(part, opened.fileno()):
            raise SendError(CHANGED)
        return part


def _has_changed(part: Part, descriptor: int) -> bool:
    now = os.fstat(descriptor)
    return (now.st_size, now.st_mtime_ns) != (part.size, part.mtime_ns)


def pieces(part: Part, offset: int, size: int) -> Iterator[bytes]:
    """`size` bytes of a file from `offset`; before the last ones of the file it must be as it was.

    So a file that still grows is never whole at the server.

    Raises
    ------
    SendError
        It has changed, or cannot be read any more; neither is a fault of the network.
    """
    try:
        with part.file.open("rb") as file:
            file.seek(offset)
            while size:
                data = file.read(min(_BLOCK_BYTES, size))
                size -= len(data)
                is_last = file.tell() >= part.size
                if not data or (is_last and _has_changed(part, file.fileno())):
                    raise SendError(CHANGED)
                yield data
    except OSError as error:
        raise SendError(f"it can no longer be read: {error.strerror or error}") from error
