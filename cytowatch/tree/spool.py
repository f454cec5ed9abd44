"""The tree of a root, and its stage directories: one rename of ``<id>/`` is one change of status."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cytowatch import durable
from cytowatch.durable import trees
from cytowatch.durable.failpoints import reached
from cytowatch.record import names
from cytowatch.record.errors import TransientError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.tree.layout import LAYOUT, Layout

__all__ = ["LAYOUT", "Spool"]

#: Anything that takes longer to remove waits in the trash, because the caller has other work.
_PATIENCE_S = 1.0
#: The bytes of a name that are kept in the trash, where it gets a new ending.
_LONGEST_IN_TRASH = 200
#: How often to make a project again that others empty at the same time.
_MOST_TRIES = 1000


class Spool(Layout):
    """The directories below one root; only its own methods move anything in them."""

    def find(self, id: UploadedFileId) -> tuple[Status, Path] | None:  # noqa: A002
        """Where under ``stages/`` an uploaded file is: its status and its directory."""
        for status in STAGE_STATUSES:
            path = self.stage(status) / id
            # Through a link, a manifest would be written and renamed in a directory that is not ours.
            if path.is_dir() and not path.is_symlink():
                return status, path
        return None

    def set_aside(self, path: Path, status: Status) -> Path:
        """Move the directory at `path` out of `status`, to a place where nothing in it is treated."""
        aside = self.state / "aside"
        durable.make_directory(aside)
        target = aside / f"{path.name}.{status.name}"
        while target.exists():
            target = target.with_name(f"{target.name}.{os.urandom(2).hex()}")
        # If a power cut undoes it, the next start repeats it.
        durable.rename(path, target)
        return target

    def in_status(self, status: Status) -> list[UploadedFileId]:
        """The uploaded files in `status`, oldest first; anything without an id belongs to somebody else."""
        entries = os.scandir(self.stage(status))
        found = (entry.name for entry in entries if durable.is_directory(entry))
        return sorted(UploadedFileId(one) for one in found if names.ID_PATTERN.fullmatch(one))

    def taken(self, id: UploadedFileId, user: str) -> bool:  # noqa: A002
        """Whether any uploaded file of `user`, or one in work, already has this `id`."""
        places = (*map(self.stage, STAGE_STATUSES), self.tmp, self.storage / user)
        # As text: each claim asks this, and with a path for each name it took a tenth of the claim.
        return any(os.path.lexists(f"{place}/{id}") for place in places)

    def move(self, path: Path, status: Status, *, durably: bool = True) -> Path:
        """Rename the directory at `path` into `status`; return its new place.

        Without `durably`, a power cut may undo it; the step before it is then repeated.
        """
        target = self.stage(status)
        # An error that had no manifest has one now, and is already where it belongs.
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
            A file or a link is in its place, and somebody must remove it.
        """
        with suppress(FileExistsError, NotADirectoryError):
            durable.make_directory(path)
        if _is_in_the_way(path):
            said = f"{self.shown(os.fspath(path))} must be a folder, and is a link or a file: "
            raise TransientError("not_permitted", f"{said}take it away; then it goes on by itself")

    def shown(self, path: str) -> str:
        """`path` as it is shown to people: relative to the root if it is below it."""
        return path.removeprefix(f"{self.root}/")

    def users(self) -> list[str]:
        """The users who have a directory in storage. A link there belongs to no user, and is not followed."""
        with os.scandir(self.storage) as entries:
            return sorted(entry.name for entry in entries if durable.is_directory(entry))

    def stored(self) -> Iterator[Path]:
        """The uploaded files in storage, user by user; directories that cannot be read are skipped."""
        for user in self.users():
            found: list[Path] = []
            with suppress(OSError):
                found = sorted((self.storage / user).iterdir())
            yield from found

    def spelled(self, project: str) -> str:
        """The project in the spelling of its existing folder; names are compared casefolded and in NFC."""
        known = sorted(os.listdir(self.projects))
        return project if project in known else next(iter(names.alike(known, project)), project)

    def link(self, project: str, name: str, user: str, id: UploadedFileId) -> None:  # noqa: A002
        """Show an uploaded file of `user` in `project`; a second time changes nothing.

        The link is relative, so the tree can be moved. It is made before the uploaded file is published.
        After a crash between the two, the next start continues by publishing it.
        """
        folder = self.projects / project
        place = folder / f"{name}~{id.split('-')[2]}"
        for _ in range(_MOST_TRIES):
            self._ensure_folder(folder)
            try:
                place.symlink_to(Path("..", "..", "storage", user, id))
            except FileExistsError:
                break
            except FileNotFoundError:
                # The last other link was removed just now, and the empty project with it.
                continue
            break
        # Once published it is not linked again, so the link must exist before that.
        durable.fsync_directory(folder)

    def unlink(self, project: str, name: str, id: UploadedFileId) -> None:  # noqa: A002
        """Undo `link`; a project that becomes empty is removed as well."""
        folder = self.projects / project
        tail = f"~{id.split('-')[2]}"
        place = folder / f"{name}{tail}"
        # Another version may have named the link differently; its target shows which one it is.
        there = [place] if place.is_symlink() else folder.glob(f"*{tail}")
        for link in there:
            if link.is_symlink() and os.path.basename(os.readlink(link)) == id:
                link.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()

    def _move(self, path: Path, target: Path, *, durably: bool) -> Path:
        moved = target / path.name
        try:
            durable.rename(path, moved)
        except FileNotFoundError:
            if target.is_dir() or not path.is_dir():
                raise
            # Somebody deleted the directory while it was empty.
            self.make_again()
            durable.rename(path, moved)
        try:
            reached("stage.renamed")
            if not durably:
                return moved
            # Once the new name exists, the old one is gone: a rename is one step (decision 018).
            durable.fsync_directory(target)
        except OSError as error:
            # It has moved, and everyone sees it there. A power cut now may undo the rename;
            # the step is then repeated, as after any other power cut.
            _tell_not_synced(moved, error)
        return moved

    def bury(self, path: Path) -> Path:
        """Rename something of our own into the trash; return its new place."""
        # A decoder may have given it the longest name possible.
        called = os.fsdecode(os.fsencode(path.name)[:_LONGEST_IN_TRASH])
        grave = self.trash / f"{called}.{os.urandom(4).hex()}"
        trees.move_away(path, grave)
        return grave

    def discard(self, path: Path) -> None:
        """Remove something of our own: first out of the way by a rename, then for good.

        If it cannot be removed now, or not soon, it stays in the trash, and is removed later.
        """
        try:
            grave = self.bury(path)
        except FileNotFoundError:
            return
        with suppress(OSError):
            reached("trash.renamed")
            trees.remove(grave, patience_s=_PATIENCE_S)

    def empty_trash(self, *, patience_s: float = 3 * _PATIENCE_S) -> None:
        """Remove what `discard` could not; another thread may do the same at that moment.

        Anything left after `patience_s` seconds waits for the next time.
        """
        end = time.monotonic() + patience_s
        for grave in self.trash.iterdir():
            trees.remove(grave, patience_s=max(0.0, end - time.monotonic()))


def _is_in_the_way(path: Path) -> bool:
    """Whether a file or a link is in the place of this folder or of one above it."""
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        # An empty project was removed again meanwhile.
        return False
    except NotADirectoryError:
        return True


def _tell_not_synced(path: Path, error: OSError) -> None:
    # Imported here, because commands start faster without it.
    import structlog

    structlog.get_logger().warning("not_synced", path=os.fspath(path), error=error.strerror)
