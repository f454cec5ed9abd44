"""The end of an upload: its hash is compared, and one rename turns the file or folder into a drop."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cytowatch import aside, durable, outside
from cytowatch.durable import failpoints, owner
from cytowatch.panel.uploads.found import Found
from cytowatch.panel.uploads.store import Store
from cytowatch.record import names

__all__ = ["NoInboxError", "WrongHashError", "check_inbox", "publish_whole", "settle"]

_MOST_TRIES = 1000
_EXTENSION = re.compile(r"(\.ome)?(\.tar)?\.[A-Za-z][A-Za-z0-9]{0,5}$", re.IGNORECASE)


class WrongHashError(Exception):
    """All bytes are here, but their hash is not the announced one."""


class NoInboxError(Exception):
    """The inbox cannot be written to; the message says why."""


def settle(found: Found, inbox: Path, marker: str = "") -> str | None:
    """If `found` is whole, note that; if all files of its folder are, publish them. Gives the path of a new drop.

    It may be called at any time, and repeatedly: the next call completes what a power cut or a kill interrupted.

    Parameters
    ----------
    marker
        The ending of the files that say for this user that a drop is done (`inbox.done_marker`); the panel makes one.

    Raises
    ------
    WrongHashError
        The hash is not the announced one; the bytes were thrown away.
    NoInboxError
        It cannot be published now.
    """
    if found.is_gone:
        return None
    if not found.is_whole:
        if found.offset < found.announced.size:
            return None
        _keep(found)
        _compare(found)
        failpoints.reached("upload.compared")
        (found.home / "done" / found.member).touch()
        failpoints.reached("upload.whole")
    if found.drop is not None:
        _finish(found, inbox, marker)
        return None
    if len(os.listdir(found.home / "done")) < found.announced.files:
        return None
    return _publish(found, inbox, marker)


def _keep(found: Found) -> None:
    """Make the bytes durable: a request that was cut off wrote its bytes but did not sync them."""
    # A link in the place of the file is not followed.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        at = os.open(found.bytes_at, flags)
        try:
            os.fsync(at)
        finally:
            os.close(at)


def _compare(found: Found) -> None:
    wanted = found.announced.sha256
    if wanted and os.path.lexists(found.bytes_at) and _sha256(found.bytes_at) != wanted:
        durable.empty(found.bytes_at)
        raise WrongHashError


def _sha256(path: Path) -> str:
    with outside.regular_file(path) as file:
        return durable.sha256(file.read)


def _publish(found: Found, inbox: Path, marker: str) -> str | None:
    with durable.locked(found.home):
        # Another request may have been first.
        if (found.home / "published").exists():
            return None
        wanted = found.announced
        source = found.home / "tree" / wanted.top
        try:
            with _into(inbox, wanted.user, wanted.project) as (target, shown):
                name = _renamed(source, target, wanted.top, found.home / "publishing", shown)
                failpoints.reached("upload.renamed")
                _mark(target, name, marker)
                os.fsync(target)
                failpoints.reached("upload.durable")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NoInboxError(_why(wanted.user, error)) from error
        with suppress(OSError):
            os.replace(found.home / "publishing", found.home / "published")
        return f"{shown}/{name}"


def _finish(found: Found, inbox: Path, marker: str) -> None:
    """After a kill or a fault right behind the rename, make it durable before a client learns of it."""
    if (found.home / "published").exists():
        return
    try:
        folder, _, name = str(found.drop).rpartition("/")
        with durable.beneath(inbox, folder) as target:
            # If the daemon has taken the drop, nothing is left to be marked.
            with suppress(FileNotFoundError):
                os.stat(name, dir_fd=target, follow_symlinks=False)
                _mark(target, name, marker)
            os.fsync(target)
        failpoints.reached("upload.durable")
    except FileNotFoundError:
        # The daemon has taken the drop, and its folder is gone.
        pass
    except OSError as error:
        raise NoInboxError(_why(found.announced.user, error)) from error
    with suppress(OSError):
        os.replace(found.home / "publishing", found.home / "published")


def _mark(target: int, name: str, marker: str) -> None:
    """Make the marker of `name` in the directory `target`, as the user's copier would (`inbox.done_marker`)."""
    if marker:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(FileExistsError):
            os.close(os.open(f"{name}{marker}", flags, 0o640, dir_fd=target))


def publish_whole(store: Store, marker_of: Callable[[str], str] = lambda _user: "") -> list[str]:
    """Publish complete uploads that an interruption left unpublished, for their clients may never ask again; gives the drops."""
    drops = []
    for found in store.cut_off():
        # One that cannot be published costs only itself, and is tried again next time.
        with aside.fence("request", f"upload {found.token}"), suppress(WrongHashError):
            if drop := settle(found, store.inbox, marker_of(found.announced.user)):
                drops.append(drop)
    return drops


def _renamed(source: Path, target: int, top: str, note: Path, shown: str) -> str:
    """Rename `source` into the directory `target` under the first free name, which is noted before; gives that name."""
    for number in range(_MOST_TRIES):
        name = _numbered(top, number)
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=target, follow_symlinks=False)
            continue
        # The note matters only after a kill, so a disk too full for it does not hold back the drop.
        with suppress(OSError):
            note.write_text(f"{shown}/{name}")
        try:
            durable.rename(source, name, target_fd=target)
        except FileExistsError:
            continue
        return name
    raise OSError(errno.EEXIST, "too many drops have this name")


def _numbered(name: str, number: int) -> str:
    """`name`, with a number before its extension unless that is 0.

    >>> _numbered("a.svs", 0), _numbered("a.ome.tiff", 1), _numbered("case", 2)
    ('a.svs', 'a (1).ome.tiff', 'case (2)')
    """
    if not number:
        return name
    found = _EXTENSION.search(name)
    ending = found[0] if found and found.start() else ""
    return f"{name.removesuffix(ending)} ({number}){ending}"


@contextmanager
def _into(inbox: Path, user: str, project: str) -> Iterator[tuple[int, str]]:
    """The directory for a drop, made if it is missing, and its path below ``inbox/``."""
    shown = ""
    for wanted in (user, f"@{project}" if project else ""):
        if not wanted:
            continue
        with durable.beneath(inbox, shown) as above:
            name = next(iter(names.alike(sorted(os.listdir(above)), wanted)), wanted)
            _folder(above, name)
        shown = f"{shown}/{name}" if shown else name
    with durable.beneath(inbox, shown) as found:
        yield found, shown


def _folder(above: int, name: str) -> None:
    try:
        os.mkdir(name, 0o770, dir_fd=above)
    except FileExistsError:
        return
    with durable.directory(name, at=above) as made:
        owner.pass_on(made, above)
    os.fsync(above)


def check_inbox(inbox: Path, user: str) -> None:
    """Refuse an inbox into which nothing can be published, before any byte is sent.

    Raises
    ------
    NoInboxError
        It is a link or a file, or only others may write to it.
    """
    name = next(iter(names.alike(sorted(os.listdir(inbox)), user)), "")
    try:
        with durable.beneath(inbox, name) as at:
            if os.fstatvfs(at).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            if not os.access(f"/proc/self/fd/{at}", os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise NoInboxError(_why(user, error)) from error


def _why(user: str, error: OSError) -> str:
    said = error.strerror or str(error)
    if error.errno == errno.EROFS:
        return "Nothing can be added now: the disk with the inboxes is read-only. Tell your administrator."
    return (
        f"The inbox of {names.printable(user)} cannot be written to ({said}). Let the user of "
        "cytowatch write to it."
    )
