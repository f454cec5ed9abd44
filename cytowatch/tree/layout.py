"""The layout of a root on disk: made, checked, shared and held by one daemon."""

from __future__ import annotations

import grp
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from cytowatch import durable, outside
from cytowatch.durable import denied, trees
from cytowatch.record.errors import RootError
from cytowatch.record.status import STAGE_STATUSES, Status

__all__ = ["LAYOUT", "Layout"]

#: The version of the layout on disk, written to ``FORMAT``.
LAYOUT = "cytowatch 1\n"
#: How much, in blocks of 4 KiB, a start writes before it reaches anything that can wait.
_PROBE_BLOCKS = 4
#: Names of temporary and trial files in ``state/``, which a kill leaves behind.
_YOUNG_S = 60.0
_LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TEMPORARIES = (".lease-*", ".*.partial")


class Layout:
    """Ensures that a root is one tree on one filesystem, held by one daemon."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inbox = root / "inbox"
        self.stages = root / "stages"
        self.storage = root / "storage"
        self.projects = root / "projects"
        self.status_dir = root / "status"
        self.state = root / "state"
        self.tmp = self.state / "tmp"
        self.trash = self.state / "trash"
        self.requests = self.state / "requests"
        self._stages = {
            status: self.stages / status.directory for status in Status if status.directory
        }
        self._lock: int | None = None
        #: Which directory the root was when it was locked.
        self._place: tuple[int, int] | None = None

    @classmethod
    def create(cls, root: Path) -> Self:
        """Make the whole tree at `root`, or the missing parts of it.

        Raises
        ------
        RootError
            There is another layout or other people's files, or it cannot be made.
        """
        spool = cls(root)
        try:
            if root.exists() and not root.is_dir():
                raise RootError(f"{root} is not a directory: name the one that holds the tree")
            # A link to a disk that is not mounted yet leads nowhere; the daemon waits for it.
            root.mkdir(parents=True, exist_ok=True)
            marker = root / "FORMAT"
            if not marker.exists():
                known = {p.name for p in spool.directories() if p.parent == root}
                strangers = sorted(
                    name
                    for name in os.listdir(root)
                    if name not in known
                    and not name.startswith(".")
                    and name != "lost+found"
                    and not name.endswith(".toml")
                )
                if strangers:
                    raise RootError(
                        f"{root} is not a cytowatch tree and holds {strangers[0]!r}: "
                        "give an empty directory"
                    )
            spool._check_layout(missing_is_fine=True)
            spool._make_directories()
            if not marker.exists():
                durable.replace_durably(marker, LAYOUT, name=True)
            if not durable.can_rename(spool.tmp):
                raise RootError(
                    f"the filesystem of {root} cannot rename without replacing "
                    "(renameat2, RENAME_NOREPLACE), and nothing may ever be replaced: "
                    "take another one, such as ext4, XFS or btrfs"
                )
        except PermissionError as error:
            raise RootError(denied.words(error)) from error
        except OSError as error:
            raise RootError(f"{error.filename or root}: {error.strerror}") from error
        spool.check_filesystem()
        return spool

    @classmethod
    def open(cls, root: Path) -> Self:
        """The tree at `root`, which must have this layout.

        Raises
        ------
        RootError
            It is not there, or has another layout.
        """
        spool = cls(root)
        spool._check_layout(missing_is_fine=False)
        return spool

    def share_with(self, group: str) -> None:
        """Let `group` read deployed files; everything that is made below inherits it.

        Raises
        ------
        RootError
            There is no such group, or this process may not assign files to it.
        """
        try:
            number = grp.getgrnam(group).gr_gid
            for path in (self.tmp, self.storage, self.projects):
                os.chown(path, -1, number)
                os.chmod(path, 0o2750)
        except KeyError:
            raise RootError(f"storage.group: there is no group {group!r}") from None
        except OSError as error:
            raise RootError(f"storage.group = {group!r}: {error.strerror}") from error

    def stage(self, status: Status) -> Path:
        """The directory of `status` under ``stages/``.

        Raises
        ------
        ValueError
            A success has none; it ends in ``storage/``.
        """
        if status.directory is None:
            raise ValueError(f"{status.name} has no stage directory")
        return self._stages[status]

    def directories(self) -> Iterator[Path]:
        """Every directory that a tree has from the first."""
        yield from (self.inbox, self.stages, self.storage, self.projects, self.status_dir)
        yield from (self.state, self.tmp, self.trash, self.requests)
        yield from (self.stage(status) for status in STAGE_STATUSES)

    def make_again(self) -> list[Path]:
        """Make the directories that are missing in a tree that is there, and return them.

        A job that deletes empty directories, a backup or a copy without them: no slide fails for that.
        """
        if all(path.is_dir() for path in self.directories()):
            return []
        # A tree that is moved away piece by piece is not made a second time.
        self._check_layout(missing_is_fine=False)
        return self._make_directories()

    def _make_directories(self) -> list[Path]:
        """Make the missing parts, so that they survive a power cut once there is a FORMAT."""
        made = [path for path in self.directories() if not path.is_dir()]
        for path in made:
            path.mkdir(exist_ok=True, mode=0o750)
        # The root is synced with its FORMAT.
        for parent in {path.parent for path in made} - {self.root}:
            durable.fsync_directory(parent)
        return made

    def _check_layout(self, *, missing_is_fine: bool) -> None:
        try:
            found = outside.read_file(self.root / "FORMAT", most_bytes=1000).decode()
        except FileNotFoundError:
            if missing_is_fine:
                return
            raise RootError(
                f"{self.root} is not a cytowatch tree (it has no FORMAT): `cytowatch init` makes one"
            ) from None
        except NotADirectoryError as error:
            raise RootError(
                f"{self.root} is not a directory: name the one that holds the tree"
            ) from error
        except PermissionError as error:
            raise RootError(denied.words(error)) from error
        except (OSError, ValueError) as error:
            raise RootError(f"{self.root / 'FORMAT'}: {error}") from error
        if found != LAYOUT:
            raise RootError(
                f"{self.root} has layout {found.strip()!r}; this cytowatch knows {LAYOUT.strip()!r}"
            )

    def check_filesystem(self) -> None:
        """Refuse a tree that is spread over several filesystems or mounts.

        Raises
        ------
        RootError
            A directory is elsewhere; the message names it.
        """
        device, mount = durable.mount_of(self.root)
        for path in self.directories():
            found = durable.mount_of(path)
            if found != (device, mount):
                what = "filesystem" if found[0] != device else "mount"
                raise RootError(
                    f"{path} is on another {what} than {self.root}: "
                    "a slide is renamed, never copied, so one filesystem must hold them all"
                )

    @contextmanager
    def lock(self, *, patience_s: float = 0.0) -> Iterator[None]:
        """Hold the root for one daemon, and wait for a command that holds it for a moment.

        Raises
        ------
        RootError
            Another process holds it; the message names it.
        """
        try:
            descriptor = os.open(self.state / "lock", _LOCK | os.O_CREAT, 0o640)
        except PermissionError as error:
            raise RootError(denied.words(error)) from error
        except OSError as error:
            raise RootError(f"{error.filename}: {error.strerror}") from error
        try:
            if not _locked(descriptor, patience_s):
                holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
                raise RootError(f"{self.root} is in use by process {holder}")
            try:
                _sign(descriptor)
            except OSError as error:
                raise RootError(f"{self.state / 'lock'}: {error.strerror}") from error
            self._lock = descriptor
            self._place = _identity(os.stat(self.root))
            yield
        finally:
            self._lock = None
            os.close(descriptor)

    def remove_temporaries(self) -> None:
        """Remove temporary files that a kill left in ``state/``.

        A command may be writing one at this very moment, so young ones stay.
        """
        for pattern in _TEMPORARIES:
            for path in self.state.glob(pattern):
                with suppress(OSError):
                    # One from the future was written before the clock was set back.
                    if abs(time.time() - path.lstat().st_mtime) > _YOUNG_S:
                        path.unlink()

    def try_writing(self) -> None:
        """Make a directory with a file in ``state/tmp``, as a claim does, and remove both.

        Raises
        ------
        OSError
            The filesystem cannot be written now: it is full, read-only, or faulty.
        """
        # A crash may leave it; its name is not that of an <id>/, so it is not mistaken for a claim.
        probe = self.tmp / f".writing-{os.urandom(4).hex()}"
        try:
            probe.mkdir(mode=0o750)
            # Some filesystems only report here that they are full; the file need not last.
            flags = os.O_WRONLY | os.O_CREAT | os.O_DSYNC | os.O_CLOEXEC
            descriptor = os.open(probe / "written", flags, 0o640)
            try:
                # A full disk still takes its last blocks before it reports that it is full.
                for _ in range(_PROBE_BLOCKS):
                    os.write(descriptor, b"x" * 4096)
            finally:
                os.close(descriptor)
        finally:
            trees.remove(probe)

    def is_there(self) -> bool:
        """Whether the directory at the root is still the tree that `lock` holds."""
        if self._lock is None:
            return True
        held = os.fstat(self._lock)
        with suppress(OSError):
            if _identity(os.stat(self.state / "lock")) == _identity(held):
                return True
        return self._lock_again(self._lock)

    def _lock_again(self, held: int) -> bool:
        """Whether the tree is the same, only its lock was deleted, and a new one is held in place of `held`.

        If another daemon was faster it has the tree, and this one stays offline.
        """
        try:
            if _identity(os.stat(self.root)) != self._place:
                return False
            self._check_layout(missing_is_fine=False)
            # The rest of the tree is made by `make_again`, which reports it.
            self.state.mkdir(mode=0o750, exist_ok=True)
            fresh = os.open(self.state / "lock", _LOCK | os.O_CREAT, 0o640)
        except (OSError, RootError):
            return False
        try:
            if not _locked(fresh, 0.0):
                return False
            _sign(fresh)
            os.dup2(fresh, held, inheritable=False)
        except OSError:
            return False
        finally:
            os.close(fresh)
        return True


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _sign(descriptor: int) -> None:
    """Write whose lock it is."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _locked(descriptor: int, patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while True:
        try:
            durable.lock(descriptor, wait=False)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        else:
            return True
