"""Small files of our own: made, replaced or emptied, each as durably as its use needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cytowatch.durable.calls import fsync_directory, fsync_file

__all__ = [
    "empty",
    "move_over",
    "replace_durably",
    "replace_file",
    "write_all",
    "write_new",
    "write_note",
]


def empty(path: str | Path) -> None:
    """Free the space of the file at `path`, if there is one, in a process that may not remove it."""
    with suppress(FileNotFoundError):
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC))


def write_note(path: Path, text: str) -> None:
    """Write a note whose name survives a power cut. Its text may not, and its reader must manage without it."""
    _write_fresh(path, text)
    fsync_directory(path.parent)


def _write_fresh(path: Path, text: str | bytes, *, mode: int = 0o666) -> None:
    """Write a file of our own in place of anything at `path`.

    Nothing is written through a link or into a FIFO that somebody left there. A folder there is renamed.
    """
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        _out_of_the_way(path)
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    os.close(_written(path, data, mode))


def write_new(path: Path, text: str) -> None:
    """Write a small file where none is, so that its bytes survive a power cut; its name does not yet.

    Raises
    ------
    FileExistsError
        Something is there.
    """
    descriptor = _written(path, text.encode("utf-8", "replace"), 0o666)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path, data: bytes, mode: int) -> int:
    """A descriptor of a new file that holds `data`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, data)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, of which a disk that is nearly full takes only a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace_file(path: Path, text: str) -> None:
    """Write a small file of our own in place of anything at `path`; a reader never sees half of it.

    Not synced: for files that are made again after a power cut. Of one that cannot be written nothing is left.
    """
    with _temporary(path) as temporary:
        _write_fresh(temporary, text)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """The name under which the file for `path` is written; it is moved there at the end, or removed after a fault."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        move_over(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def replace_durably(path: Path, text: str | bytes, *, name: bool, mode: int = 0o666) -> None:
    """The same for files that must be whole after a power cut: they then hold the old text or the new one.

    Parameters
    ----------
    name
        Whether it must be the new text, because the caller promises something by it. Otherwise the old one does as well.
    mode
        Its permissions, before the umask.
    """
    with _temporary(path) as temporary:
        _write_fresh(temporary, text, mode=mode)
        fsync_file(temporary)
    if name:
        fsync_directory(path.parent)


def move_over(source: Path, target: Path) -> None:
    """Rename a file of our own over anything at `target`; a folder there is renamed."""
    try:
        os.rename(source, target)
    except IsADirectoryError:
        _out_of_the_way(target)
        os.rename(source, target)


def _out_of_the_way(path: Path) -> None:
    os.rename(path, f"{path}.{os.urandom(4).hex()}")
