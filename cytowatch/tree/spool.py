"""The tree of a root, and its stage directories: one rename of ``<id>/`` is one change of status."""

from __future__ import annotations

import fcntl
import grp
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cytowatch import durable, outside
from cytowatch.durable import trees
from cytowatch.durable.failpoints import reached
from cytowatch.record import names
from cytowatch.record.errors import RootError, TransientError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import STAGE_STATUSES, Status

__all__ = ["LAYOUT", "Spool"]

#: The version of the layout on disk, written to ``FORMAT``.
LAYOUT = "cytowatch 1\n"
#: What cannot be removed in this time waits in the trash: the one who removes it has other things to do.
_PATIENCE_S = 1.0
#: As much, in blocks of 4 KiB, as a start writes before it has come to anything that can wait.
_PROBE_BLOCKS = 4
#: Bytes of a name that are kept of it in the trash, where it gets an ending of its own.
_LONGEST_IN_TRASH = 200
#: What we write beside its place, or only to try something, in ``state/``: a kill leaves it there.
_YOUNG_S = 60.0
_TEMPORARIES = (".lease-*", ".live.json", ".paused.json")


class Spool:
    """The directories below one root; guards that nothing is moved but by its own renames."""

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
        self._lock: int | None = None
        #: Who to notify when an uploaded file is finished.

    @classmethod
    def create(cls, root: Path) -> Spool:
        """Make the whole tree at `root`, or what of it is missing.

        Raises
        ------
        RootError
            There is another layout, or other people's files, or it cannot be made.
        """
        spool = cls(root)
        try:
            if root.exists() and not root.is_dir():
                raise RootError(f"{root} is not a directory: name the one that holds the tree")
            # A link to a disk that is not mounted yet leads nowhere, and is waited for.
            root.mkdir(parents=True, exist_ok=True)
            marker = root / "FORMAT"
            if not marker.exists():
                known = {p.name for p in spool._directories() if p.parent == root}
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
                temporary = spool.tmp / "FORMAT"
                temporary.write_text(LAYOUT)
                durable.fsync_file(temporary)
                temporary.rename(marker)
                durable.fsync_directory(root)
            if not durable.can_rename(spool.tmp):
                raise RootError(
                    f"the filesystem of {root} cannot rename without replacing "
                    "(renameat2, RENAME_NOREPLACE), and nothing may ever be replaced: "
                    "take another one, such as ext4, XFS or btrfs"
                )
        except OSError as error:
            raise RootError(f"{error.filename or root}: {error.strerror}") from error
        spool.check_filesystem()
        return spool

    @classmethod
    def open(cls, root: Path) -> Spool:
        """The tree at `root`, which must be one of our layout.

        Raises
        ------
        RootError
            It is not there, or of another layout.
        """
        spool = cls(root)
        spool._check_layout(missing_is_fine=False)
        return spool

    def share_with(self, group: str) -> None:
        """Let `group` read what is deployed: all that is made below inherits it.

        Raises
        ------
        RootError
            There is no such group, or this process may not give files to it.
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

    def _directories(self) -> Iterator[Path]:
        yield from (self.inbox, self.stages, self.storage, self.projects, self.status_dir)
        yield from (self.state, self.tmp, self.trash, self.requests)
        yield from (self.stage(status) for status in STAGE_STATUSES)

    def _make_directories(self) -> None:
        """Make what is missing, so that it outlasts a power cut once there is a FORMAT."""
        made = [path for path in self._directories() if not path.is_dir()]
        for path in made:
            path.mkdir(exist_ok=True, mode=0o750)
        # The root is synced with its FORMAT.
        for parent in {path.parent for path in made} - {self.root}:
            durable.fsync_directory(parent)

    def _check_layout(self, *, missing_is_fine: bool) -> None:
        try:
            found = outside.read_file(self.root / "FORMAT", most_bytes=1000).decode()
        except FileNotFoundError:
            if missing_is_fine:
                return
            raise RootError(
                f"{self.root} is not a cytowatch tree (it has no FORMAT): `cytowatch init` makes one"
            ) from None
        except (OSError, ValueError) as error:
            raise RootError(f"{self.root / 'FORMAT'}: {error}") from error
        if found != LAYOUT:
            raise RootError(
                f"{self.root} has layout {found.strip()!r}; this cytowatch knows {LAYOUT.strip()!r}"
            )

    def check_filesystem(self) -> None:
        """Refuse a tree that is spread over several filesystems, or mounts of one.

        Raises
        ------
        RootError
            It names the directory that is elsewhere.
        """
        device, mount = durable.mount_of(self.root)
        for path in self._directories():
            found = durable.mount_of(path)
            if found != (device, mount):
                what = "filesystem" if found[0] != device else "mount"
                raise RootError(
                    f"{path} is on another {what} than {self.root}: "
                    "a slide is renamed, never copied, so one filesystem must hold them all"
                )

    @contextmanager
    def lock(self, *, patience_s: float = 0.0) -> Iterator[None]:
        """Hold the root for one daemon; a command that holds it for a moment is waited for.

        Raises
        ------
        RootError
            Another process holds it; it is named.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self.state / "lock", flags, 0o640)
        except OSError as error:
            raise RootError(f"{error.filename}: {error.strerror}") from error
        try:
            if not _locked(descriptor, patience_s):
                holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
                raise RootError(f"{self.root} is in use by process {holder}")
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            except OSError as error:
                raise RootError(f"{self.state / 'lock'}: {error.strerror}") from error
            self._lock = descriptor
            yield
        finally:
            self._lock = None
            os.close(descriptor)

    def remove_temporaries(self) -> None:
        """Remove what a kill left in ``state/`` of what was only written for a moment.

        A command may be writing it at this very moment: what is young stays.
        """
        for pattern in _TEMPORARIES:
            for path in self.state.glob(pattern):
                with suppress(OSError):
                    if time.time() - path.lstat().st_mtime > _YOUNG_S:
                        path.unlink()

    def try_writing(self) -> None:
        """Make a directory with a file in ``state/tmp``, as a claim does, and remove both.

        Raises
        ------
        OSError
            The filesystem takes no writes now: it is full, read-only, or fails.
        """
        # A crash may leave it; the name is not that of an <id>/, so nothing takes it for a claim.
        probe = self.tmp / f".writing-{os.urandom(4).hex()}"
        try:
            probe.mkdir(mode=0o750)
            # Some filesystems report only here that they are full; nothing of it has to last.
            flags = os.O_WRONLY | os.O_CREAT | os.O_DSYNC | os.O_CLOEXEC
            descriptor = os.open(probe / "written", flags, 0o640)
            try:
                # The last blocks of a full disk are written before it says that it is full.
                for _ in range(_PROBE_BLOCKS):
                    os.write(descriptor, b"x" * 4096)
            finally:
                os.close(descriptor)
        finally:
            trees.remove(probe)

    def is_there(self) -> bool:
        """Whether what lies at the root is still the tree that `lock` holds."""
        if self._lock is None:
            return True
        held = os.fstat(self._lock)
        try:
            found = os.stat(self.state / "lock")
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def stage(self, status: Status) -> Path:
        """The directory of `status` under ``stages/``.

        Raises
        ------
        ValueError
            A success has none: it ends in ``storage/``.
        """
        if status.directory is None:
            raise ValueError(f"{status.name} has no stage directory")
        return self.stages / status.directory

    def find(self, id: UploadedFileId) -> tuple[Status, Path] | None:  # noqa: A002
        """Where under ``stages/`` an uploaded file is: its status and its directory."""
        for status in STAGE_STATUSES:
            path = self.stage(status) / id
            # Through a link a manifest would be written, and renamed, in what is not ours.
            if path.is_dir() and not path.is_symlink():
                return status, path
        return None

    def set_aside(self, path: Path, status: Status) -> Path:
        """Take the directory at `path` out of `status`, to where nothing of it is treated."""
        aside = self.state / "aside"
        durable.make_directory(aside)
        target = aside / f"{path.name}.{status.name}"
        while target.exists():
            target = target.with_name(f"{target.name}.{os.urandom(2).hex()}")
        # If a power cut takes it back, the next start does it again.
        durable.rename(path, target)
        return target

    def in_status(self, status: Status) -> list[UploadedFileId]:
        """The uploaded files in `status`, oldest first; what has no id is somebody else's."""
        entries = os.scandir(self.stage(status))
        found = (entry.name for entry in entries if durable.is_directory(entry))
        return sorted(UploadedFileId(one) for one in found if names.ID_PATTERN.fullmatch(one))

    def taken(self, id: UploadedFileId, user: str) -> bool:  # noqa: A002
        """Whether `id` is used already by any uploaded file of `user` or by one in work."""
        return (
            self.find(id) is not None
            or (self.tmp / id).exists()
            or (self.storage / user / id).exists()
        )

    def move(self, path: Path, status: Status, *, durably: bool = True) -> Path:
        """Rename the directory at `path` into `status`; gives its new place.

        Not `durably` where a power cut may take it back: the step before is done again then.
        """
        target = self.stage(status)
        # What lay in its error without a manifest has got one, and is where it belongs.
        return path if path.parent == target else self._move(path, target, durably=durably)

    def publish(self, path: Path, user: str) -> Path:
        """Rename the directory at `path` into the storage of `user`, durably."""
        target = self.storage / user
        self._ensure_folder(target)
        return self._move(path, target, durably=True)

    def _ensure_folder(self, path: Path) -> None:
        """Make a folder of our own, if it is not there.

        Raises
        ------
        TransientError
            A file or a link lies in its place: somebody must take that away.
        """
        with suppress(FileExistsError, NotADirectoryError):
            durable.make_directory(path)
        if path.is_symlink() or not path.is_dir():
            said = f"{self.shown(os.fspath(path))} must be a folder, and is a link or a file: "
            raise TransientError("not_permitted", f"{said}take it away; then it goes on by itself")

    def shown(self, path: str) -> str:
        """`path` as it is called in words: below the root without the root."""
        return path.removeprefix(f"{self.root}/")

    def users(self) -> list[str]:
        """Those who have a folder in storage. A link there is nobody's, and is not followed."""
        with os.scandir(self.storage) as entries:
            return sorted(entry.name for entry in entries if durable.is_directory(entry))

    def stored(self) -> Iterator[Path]:
        """What lies in storage, user by user; what cannot be read is passed over."""
        for user in self.users():
            found: list[Path] = []
            with suppress(OSError):
                found = sorted((self.storage / user).iterdir())
            yield from found

    def spelled(self, project: str) -> str:
        """The project as its folder is spelled already: names are compared casefolded and in NFC."""
        known = sorted(os.listdir(self.projects))
        return project if project in known else next(iter(names.alike(known, project)), project)

    def link(self, project: str, name: str, user: str, id: UploadedFileId) -> None:  # noqa: A002
        """Show an uploaded file of `user` in `project`; a second time changes nothing.

        The link is relative, so the tree can be moved. It is made before the uploaded file is
        published: a crash between the two is mended by publishing, which a start goes on with.
        """
        folder = self.projects / project
        self._ensure_folder(folder)
        place = folder / f"{name}~{id.split('-')[2]}"
        with suppress(FileExistsError):
            place.symlink_to(Path("..", "..", "storage", user, id))
        # Published it is not linked again, so the link must be there by then.
        durable.fsync_directory(folder)

    def unlink(self, project: str, name: str, id: UploadedFileId) -> None:  # noqa: A002
        """Take back what `link` did; an empty project goes as well."""
        folder = self.projects / project
        tail = f"~{id.split('-')[2]}"
        place = folder / f"{name}{tail}"
        # Another version may have called it otherwise; what it leads to says which one it is.
        there = [place] if place.is_symlink() else folder.glob(f"*{tail}")
        for link in there:
            if link.is_symlink() and os.path.basename(os.readlink(link)) == id:
                link.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()

    def _move(self, path: Path, target: Path, *, durably: bool) -> Path:
        moved = target / path.name
        durable.rename(path, moved)
        try:
            reached("stage.renamed")
            if not durably:
                return moved
            # With the new name the old one is gone as well: a rename is one step (decision 018).
            durable.fsync_directory(target)
        except OSError as error:
            # It has moved, and everyone sees it there. A power cut now may take the rename back:
            # then the step is done again, as after any other cut.
            _tell_not_synced(moved, error)
        return moved

    def bury(self, path: Path) -> Path:
        """Rename something of our own into the trash; gives its new place."""
        # What a decoder made may have a name as long as names can be.
        called = os.fsdecode(os.fsencode(path.name)[:_LONGEST_IN_TRASH])
        grave = self.trash / f"{called}.{os.urandom(4).hex()}"
        trees.move_away(path, grave)
        return grave

    def discard(self, path: Path) -> None:
        """Remove something of our own: first out of the way by a rename, then for good.

        What cannot be removed now, or not soon, stays in the trash, and is removed with it.
        """
        try:
            grave = self.bury(path)
        except FileNotFoundError:
            return
        with suppress(OSError):
            reached("trash.renamed")
            trees.remove(grave, patience_s=_PATIENCE_S)

    def empty_trash(self, *, patience_s: float = 3 * _PATIENCE_S) -> None:
        """Remove what `discard` could not; another thread may be about the same at that moment.

        What is left after `patience_s` seconds is left for the next time.
        """
        end = time.monotonic() + patience_s
        for grave in self.trash.iterdir():
            trees.remove(grave, patience_s=max(0.0, end - time.monotonic()))


def _locked(descriptor: int, patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        else:
            return True


def _tell_not_synced(path: Path, error: OSError) -> None:
    # Imported here: the commands start faster without it.
    import structlog

    structlog.get_logger().warning("not_synced", path=os.fspath(path), error=error.strerror)
