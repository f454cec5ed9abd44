"""The few calls that everything else relies on: renames that never replace, fsync, and walks of a tree.

Every fsync has a case in ``tests/unit/test_power.py`` or ``test_power_everywhere.py`` that fails without it;
a test there finds each fsync that has none.

Source: rename(2), renameat2(2), fsync(2); what ext4 keeps after a power cut was tested.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "beneath",
    "can_rename",
    "directory",
    "fsync_directory",
    "fsync_file",
    "fsync_tree",
    "is_directory",
    "make_directory",
    "remove_empty",
    "rename",
    "walk",
]

#: No tree of our own is nested this deeply; a deeper one was made by somebody else.
_DEEPEST = 128
#: The most folders of other people that are removed at a time.
_MOST_REMOVED = 10_000
_RENAME_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = _libc.renameat2
_renameat2.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)


def rename(
    source: str | bytes | Path,
    target: str | bytes | Path,
    *,
    source_fd: int | None = None,
    target_fd: int | None = None,
) -> None:
    """Rename, and fail rather than replace what is at `target`.

    Parameters
    ----------
    source_fd, target_fd
        Directory descriptors that relative paths start from.

    Raises
    ------
    FileExistsError
        Something is already there; nothing was changed.
    OSError
        As renameat2(2) says.
    """
    at_cwd = -100
    result = _renameat2(
        at_cwd if source_fd is None else source_fd,
        os.fsencode(source),
        at_cwd if target_fd is None else target_fd,
        os.fsencode(target),
        _RENAME_NOREPLACE,
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(source), None, os.fsdecode(target))


def is_directory(entry: os.DirEntry[Any]) -> bool:
    """Whether it is a directory, not a link to one. True if that is unknown: the attempt to enter it then shows why.

    A disk fault at one name must not stop the walk through all the others.
    """
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return True


@contextmanager
def directory(path: str | bytes | Path, *, at: int | None = None) -> Iterator[int]:
    """A descriptor of the directory at `path`, which may not be a symbolic link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def beneath(top: Path, relative: str) -> Iterator[int]:
    """A descriptor of the directory `relative` below `top`, no part of which may be a link.

    Each part is opened relative to the one before it, so a folder that is swapped for a link
    in the meantime leads nowhere. At any depth, at most two descriptors are open.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    found = os.open(top, flags)
    try:
        for part in relative.split("/") if relative else ():
            inner = os.open(part, flags, dir_fd=found)
            os.close(found)
            found = inner
        yield found
    finally:
        os.close(found)


def walk(top: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """For `top` and each folder below it, from the top: the folder, the names of its folders, the names of its files.

    Like `os.walk`, but without its recursion, which fails in a tree that is deep enough. Links are not
    followed, and a folder that cannot be read is skipped.

    Raises
    ------
    OSError
        ENAMETOOLONG: it is nested more deeply than any tree of our own.
    """
    waiting = [(os.fspath(top), 0)]
    while waiting:
        folder, depth = waiting.pop()
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    inside = entry.is_dir(follow_symlinks=False)
                    (folders if inside else files).append(entry.name)
        except OSError:
            continue
        yield folder, folders, files
        if folders and depth == _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, "nested too deeply", folder)
        waiting += [(os.path.join(folder, name), depth + 1) for name in reversed(folders)]


def remove_empty(top: Path, relative: str) -> None:
    """Remove the folder `relative` below `top` with the folders in it, if none of them holds a file.

    If there are very many folders, or they are nested very deeply, nothing is removed. No part of any path
    is followed if it is a link.

    Raises
    ------
    OSError
        It holds a file, or cannot be removed.
    """
    found: list[str] = []
    waiting = [relative]
    while waiting:
        folder = waiting.pop()
        found.append(folder)
        if len(found) > _MOST_REMOVED or folder.count("/") > relative.count("/") + _DEEPEST:
            raise OSError(errno.ENOTEMPTY, "holds too many folders", relative)
        with beneath(top, folder) as at, os.scandir(at) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), relative)
                waiting.append(f"{folder}/{entry.name}")
    for folder in reversed(found):
        above, _, name = folder.rpartition("/")
        with beneath(top, above) as at:
            os.rmdir(name, dir_fd=at)


def can_rename(folder: Path) -> bool:
    """Whether the filesystem of `folder` can rename without replacing; tested with a file there."""
    # Not the process id: in a container that is always the same, and a crash leaves the file.
    probe = folder / f".rename-{os.urandom(4).hex()}"
    target = folder / f"{probe.name}-done"
    try:
        probe.touch()
        rename(probe, target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return False
    finally:
        probe.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    return True


def fsync_directory(path: str | Path) -> None:
    """Make the names in the directory at `path` survive a power cut."""
    with directory(path) as descriptor:
        os.fsync(descriptor)


def make_directory(path: Path, *, mode: int = 0o750) -> None:
    """Make `path` and its missing parents, so that each new name survives a power cut.

    A file that is moved into a directory is only as safe as that directory's own name.
    """
    if path.is_dir():
        return
    make_directory(path.parent, mode=mode)
    path.mkdir(mode=mode, exist_ok=True)
    fsync_directory(path.parent)


def fsync_file(path: Path) -> None:
    """Make the bytes of the file at `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Make `path` and every file and directory below it survive a power cut.

    A decoder process may still write to it, so no link is followed and only regular files are opened.
    """
    # Not `os.walk`, which recurses: the deepest directory comes last, and is synced first.
    folders = [""]
    for folder in folders:
        with beneath(path, folder) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}/{entry.name}" if folder else entry.name)
                elif entry.is_file(follow_symlinks=False):
                    _fsync_at(descriptor, entry.name)
    for folder in reversed(folders):
        with beneath(path, folder) as descriptor:
            os.fsync(descriptor)


def _fsync_at(folder: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
