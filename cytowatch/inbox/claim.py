"""Taking a settled drop out of its inbox, so that a crash or a late writer costs nothing.

The order is what counts: a lease proves that nobody writes; the manifest and the list of what
will be moved are on disk before anything moves; the rename never replaces; the inode is compared;
a lease that was broken meanwhile undoes it; one more lease, on a path that is gone from the share,
proves that no writer is left; only then does ``<id>/`` appear in ``stages/uploaded``.

Source: fcntl(2) "Leases"; tried against Samba, whose clients wait for the lease and then write a
new inode.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import json
import os
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from cytowatch import durable, manifest, names
from cytowatch.config import Config
from cytowatch.formats import completeness
from cytowatch.inbox.scan import Drop, Waiting, fingerprint
from cytowatch.manifest import FileEntry
from cytowatch.model import UploadedFileId
from cytowatch.spool import Spool
from cytowatch.status import Status

__all__ = ["JOURNAL", "claim", "lease", "prepare_process", "recover"]

#: The list of what a claim moves, in ``state/tmp/<id>/`` until it is done.
JOURNAL = "claim.json"


def prepare_process() -> None:
    """Ignore the signal that says a lease is being broken: by default it kills the process."""
    signal.signal(signal.SIGIO, lambda _number, _frame: None)


def lease(descriptor: int) -> str:
    """Ask for a read lease: ``granted``, ``writer`` (somebody has it open for writing) or ``none``.

    ``none`` is said where leases are not to be had: a filesystem without them, a file that is
    another user's.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return "writer"
        if error.errno in (errno.EINVAL, errno.EACCES, errno.ENOLCK, errno.EPERM, errno.ENOTSUP):
            return "none"
        raise
    return "granted"


def _unlease(descriptor: int) -> None:
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def claim(
    spool: Spool,
    drop: Drop,
    *,
    config: Config,
    now: datetime,
    make_id: Callable[[datetime, str], UploadedFileId],
    software: dict[str, str],
    quiet_for_s: float,
    overdue: bool,
) -> UploadedFileId | Waiting:
    """Claim `drop`: its id in ``stages/uploaded``, or why it stays where it is.

    Parameters
    ----------
    make_id
        Makes an id from the time and a name.
    quiet_for_s
        How long it has been quiet; where leases are not to be had it must be `fallback_quiet_s`.
    overdue
        It has waited long enough for what is missing: claim it although it is incomplete.

    Raises
    ------
    OSError
        A fault of the machine; the drop is where it was, or `recover` will put it there.
    """
    folder, name = os.path.split(drop.path)
    with durable.directory(spool.inbox / folder) as inbox_fd:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=inbox_fd)
        except FileNotFoundError:
            return Waiting(why="gone", detail="it was taken away again")
        except OSError as error:
            return Waiting(why="unreadable", detail=f"it cannot be opened: {error.strerror}")
        try:
            leased = _hold(descriptor, drop, config, quiet_for_s=quiet_for_s, overdue=overdue)
            if isinstance(leased, Waiting):
                return leased
            return _take(
                spool, drop, inbox_fd, descriptor,
                config=config, now=now, make_id=make_id, software=software, leased=leased,
            )  # fmt: skip
        finally:
            os.close(descriptor)


def _hold(
    descriptor: int, drop: Drop, config: Config, *, quiet_for_s: float, overdue: bool
) -> bool | Waiting:
    """Take the lease and look at the structure: whether it is leased, or why it must wait."""
    found = os.fstat(descriptor)
    if fingerprint(found) != drop.fingerprint or not stat.S_ISREG(found.st_mode):
        return Waiting(why="settling", detail="it has just changed again")
    answer = lease(descriptor)
    match answer:
        case "writer":
            return Waiting(why="open_for_writing", detail="somebody still has it open for writing")
        case "none" if quiet_for_s < config.inbox.fallback_quiet_s:
            return Waiting(
                why="no_lease",
                detail="this filesystem cannot say whether somebody still writes it, so it must be "
                f"quiet for {config.inbox.fallback_quiet_s:g} s",
            )
    if not overdue:
        lacking = completeness.missing(descriptor, found.st_size)
        if lacking is not None:
            return Waiting(why="incomplete", detail=f"missing {lacking}")
    return answer == "granted"


def _take(
    spool: Spool,
    drop: Drop,
    inbox_fd: int,
    descriptor: int,
    *,
    config: Config,
    now: datetime,
    make_id: Callable[[datetime, str], UploadedFileId],
    software: dict[str, str],
    leased: bool,
) -> UploadedFileId | Waiting:
    name, name_base64 = names.decode(os.fsencode(drop.name))
    id_ = make_id(now, name)
    while spool.taken(id_, drop.user):
        id_ = make_id(now, name)
    place = spool.tmp / id_
    inside = f"source/{names.slug(name)}"
    size_bytes = drop.fingerprint.size_bytes
    for folder in (place, place / "source"):
        folder.mkdir(mode=int(config.storage.dir_mode, 8))
    journal = {
        "user": drop.user,
        "members": [
            {
                "from": drop.path,
                "to": inside,
                "device": drop.fingerprint.device,
                "inode": drop.fingerprint.inode,
                "size_bytes": size_bytes,
                "mtime_ns": drop.fingerprint.mtime_ns,
            }
        ],
    }
    (place / JOURNAL).write_text(json.dumps(journal))
    source = FileEntry(
        role="source",
        path=inside,
        size_bytes=size_bytes,
        sha256=None,
        status=Status.UPLOADED.name,
    )
    manifest.write(
        place,
        manifest.new(
            id=id_,
            user=drop.user,
            name=name,
            name_base64=name_base64,
            drop_path=names.decode(os.fsencode(drop.path))[0],
            projects=[drop.project] if drop.project else [],
            files=[source],
            now=now,
            software=software,
        ),
    )
    durable.fsync_tree(place)
    durable.fsync_directory(spool.tmp)
    try:
        durable.rename(drop.name, place / inside, source_fd=inbox_fd)
    except OSError:
        spool.discard(place)
        raise
    trouble = _trouble(descriptor, place / inside, drop, leased=leased)
    if trouble is not None:
        _undo(spool, place, inside, inbox_fd, drop.name)
        return trouble
    _set_modes(descriptor, config)
    # 40 GB of it may still be dirty: this is why claims do not run in the scan loop.
    os.fsync(descriptor)
    durable.fsync_directory(place / "source")
    os.fsync(inbox_fd)
    (place / JOURNAL).unlink()
    spool.move(place, Status.UPLOADED)
    return id_


def _trouble(descriptor: int, moved: Path, drop: Drop, *, leased: bool) -> Waiting | None:
    """Whether someone came between; tells why, or None when the file is ours alone."""
    there = os.stat(moved, follow_symlinks=False)
    if (there.st_dev, there.st_ino) != (drop.fingerprint.device, drop.fingerprint.inode):
        return Waiting(why="settling", detail="another file was put in its place meanwhile")
    # Whoever breaks it waits in its open until we let go: by then the file must be back.
    if leased and fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
        return Waiting(why="open_for_writing", detail="somebody opened it for writing meanwhile")
    # The path is gone from the share, so a lease that is granted now proves that no writer is left.
    _unlease(descriptor)
    answer = lease(descriptor)
    _unlease(descriptor)
    if answer == "writer":
        return Waiting(why="open_for_writing", detail="somebody opened it for writing meanwhile")
    found = os.fstat(descriptor)
    # The rename itself sets the ctime, so that is not compared.
    before = (drop.fingerprint.size_bytes, drop.fingerprint.mtime_ns)
    if (found.st_size, found.st_mtime_ns) != before or found.st_nlink != 1:
        return Waiting(why="settling", detail="it changed while it was taken")
    return None


def _undo(spool: Spool, place: Path, inside: str, inbox_fd: int, name: str) -> None:
    """Back to the inbox under its own name, or beside whatever has that name by now."""
    stem, dot, ending = name.rpartition(".")
    for number in range(1000):
        other = f"{stem if dot else name} (kept {number}){dot}{ending if dot else ''}"
        try:
            durable.rename(place / inside, name if number == 0 else other, target_fd=inbox_fd)
        except FileExistsError:
            continue
        os.fsync(inbox_fd)
        spool.discard(place)
        return


def _set_modes(descriptor: int, config: Config) -> None:
    # A file that is another user's (a share without "force user") keeps its own mode.
    with suppress(PermissionError):
        if config.storage.group:
            os.fchown(descriptor, -1, grp.getgrnam(config.storage.group).gr_gid)
        os.fchmod(descriptor, int(config.storage.file_mode, 8))


def recover(spool: Spool) -> dict[str, str]:
    """Finish or undo what a crash left in ``state/tmp``: what became of each id.

    A claim is finished when all its members had moved already, else undone. What is neither
    is kept where it is, and said so.
    """
    outcome: dict[str, str] = {}
    for place in sorted(spool.tmp.iterdir()):
        if not place.is_dir():
            place.unlink()
            continue
        outcome[place.name] = _recover_one(spool, place)
    return outcome


def _recover_one(spool: Spool, place: Path) -> str:
    try:
        journal = json.loads((place / JOURNAL).read_bytes())
    except FileNotFoundError:
        if not _has_source(place):
            spool.discard(place)
            return "undone"
        journal = {"members": []}
    except ValueError:
        # It was torn before it was synced, so nothing had been moved yet.
        if _has_source(place):
            return "kept: its journal is damaged but it holds files"
        spool.discard(place)
        return "undone"
    moved = [m for m in journal["members"] if _is(place / m["to"], m["inode"])]
    whole = len(moved) == len(journal["members"]) and _has_source(place)
    if whole and all(_untouched(place / m["to"], m) for m in moved):
        durable.fsync_tree(place)
        (place / JOURNAL).unlink(missing_ok=True)
        spool.move(place, Status.UPLOADED)
        return "finished"
    for member in moved:
        folder, name = os.path.split(member["from"])
        try:
            with durable.directory(spool.inbox / folder) as inbox_fd:
                durable.rename(place / member["to"], name, target_fd=inbox_fd)
                os.fsync(inbox_fd)
        except OSError as error:
            return f"kept: {member['from']!r} cannot be put back ({error.strerror})"
    if _has_source(place):
        return "kept: it holds files that no claim names"
    spool.discard(place)
    return "undone"


def _has_source(place: Path) -> bool:
    return any(files for _, _, files in os.walk(place / "source"))


def _is(path: Path, inode: int) -> bool:
    # After a restart a device may have another number; the inode is what a rename keeps.
    try:
        return os.stat(path, follow_symlinks=False).st_ino == inode
    except FileNotFoundError:
        return False


def _untouched(path: Path, member: dict[str, Any]) -> bool:
    """Whether nobody writes to what was moved, and nobody did since."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        same = (found.st_size, found.st_mtime_ns) == (member["size_bytes"], member["mtime_ns"])
        return same and lease(descriptor) != "writer"
    finally:
        os.close(descriptor)
