"""Directory trees that others made: measured and removed without recursion, at any depth and with any modes.

A decoder process may nest directories 5,000 levels deep, remove their permissions, or make ten million
files. Python's own `shutil.rmtree` and `os.walk` recurse (before 3.13 and 3.12), and follow paths by name.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from cytowatch import durable

__all__ = ["disk_use", "move_away", "remove"]

_ACCESSIBLE = 0o700
_LOOK_AT_CLOCK_EVERY = 256
_SMALL_FOLDER_BYTES = 4096


def remove(path: Path, *, patience_s: float | None = None) -> bool:
    """Remove anything at `path`; return whether all of it is gone.

    No link is followed. Directories are moved to the top before they are emptied, so neither the depth
    nor the length of a path matters, and the descriptors of one level are enough.

    Parameters
    ----------
    patience_s
        Stop after this many seconds, even if something is left; None for no limit.
    """
    end = None if patience_s is None else time.monotonic() + patience_s
    with suppress(OSError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            path.unlink()
            return True
        _make_accessible(path)
        with durable.directory(path) as top:
            if not _emptied(top, end):
                return False
        path.rmdir()
    return not os.path.lexists(path)


def move_away(path: Path, target: Path) -> None:
    """Rename anything at `path`, even a directory whose permissions somebody removed.

    Raises
    ------
    OSError
        As rename(2) says.
    """
    try:
        os.rename(path, target)
    except PermissionError:
        # A directory that changes its parent must be writable itself.
        _make_accessible(path)
        os.rename(path, target)


def disk_use(
    path: Path, *, deepest: int = 70, most_entries: int = 250_000
) -> tuple[int, int, bool]:
    """(bytes, inodes, whether that is all) that the tree at `path` takes on the disk; zeros if there is none.

    Entries deeper than `deepest`, or after `most_entries`, are not counted: no stage makes such trees,
    and counting must end.
    """
    size_bytes = inodes = 0
    whole = True
    waiting = deque([""])
    while waiting:
        folder = waiting.popleft()
        with suppress(OSError), durable.beneath(path, folder) as at, os.scandir(at) as entries:
            inodes += not folder
            for entry in entries:
                if inodes > most_entries:
                    return size_bytes, inodes, False
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    inodes += 1
                    if not stat.S_ISDIR(found.st_mode):
                        size_bytes += 512 * found.st_blocks
                    else:
                        # With very many names, a folder itself takes space as well.
                        size_bytes += max(0, 512 * found.st_blocks - _SMALL_FOLDER_BYTES)
                        inside = f"{folder}/{entry.name}" if folder else entry.name
                        if inside.count("/") < deepest:
                            waiting.append(inside)
                        else:
                            whole = False
    return size_bytes, inodes, whole


def _emptied(top: int, end: float | None) -> bool:
    """Empty the directory of that descriptor, round after round; return whether it is empty."""
    seen = 0
    while True:
        moved = False
        # Each round removes every directory that is at the top, and brings the next level up.
        with os.scandir(top) as entries:
            for entry in entries:
                seen += 1
                if end is not None and seen % _LOOK_AT_CLOCK_EVERY == 0 and time.monotonic() > end:
                    return False
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        moved |= _taken_apart(top, entry.name, end)
                    else:
                        os.unlink(entry.name, dir_fd=top)
                        moved = True
        if not moved:
            return not os.listdir(top)


def _taken_apart(top: int, name: str, end: float | None) -> bool:
    """Remove the directory `name`, after moving its directories to the top; return whether anything moved."""
    moved = False
    _make_accessible(name, at=top)
    with durable.directory(name, at=top) as folder, os.scandir(folder) as entries:
        for count, entry in enumerate(entries, 1):
            if end is not None and count % _LOOK_AT_CLOCK_EVERY == 0 and time.monotonic() > end:
                return moved
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    _make_accessible(entry.name, at=folder)
                    fresh = f".{os.urandom(8).hex()}"
                    os.rename(entry.name, fresh, src_dir_fd=folder, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=folder)
                moved = True
    with suppress(OSError):
        os.rmdir(name, dir_fd=top)
        moved = True
    return moved


def _make_accessible(path: str | Path, *, at: int | None = None) -> None:
    """Let its owner enter and change a directory; a link at its place is left alone."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode) and found.st_mode & _ACCESSIBLE != _ACCESSIBLE:
                # fchmod(2) refuses such a descriptor; by this name it is the very same directory.
                os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IMODE(found.st_mode) | _ACCESSIBLE)
        finally:
            os.close(descriptor)
