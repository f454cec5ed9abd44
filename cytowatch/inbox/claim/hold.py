"""Holding the files of a parcel: opened without following a link, leased, and checked.

Source: fcntl(2) "Leases"; tested with Samba, whose clients wait for the lease and then write a
new inode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import stat
from contextlib import ExitStack, suppress

from cytowatch import durable, formats
from cytowatch.config import Config
from cytowatch.config.keys import Storage
from cytowatch.durable import owner
from cytowatch.formats import Probe, look
from cytowatch.inbox.claim.parcel import Held, Parcel
from cytowatch.record import leftovers
from cytowatch.record.drop import Waiting, fingerprint
from cytowatch.tree.spool import Spool

__all__ = [
    "broken",
    "hold",
    "is_broken",
    "lease",
    "no_image",
    "of",
    "open_all",
    "prepare_process",
    "trouble_with",
    "unlease",
]


def prepare_process() -> None:
    """Ignore the signal for a lease that is being broken; by default it kills the process.

    All files of a set are open at once, so allow as many open files as the system does.
    """
    signal.signal(signal.SIGIO, lambda _number, _frame: None)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def lease(descriptor: int) -> str:
    """Ask for a read lease: ``granted``, ``writer`` (somebody has it open for writing) or ``none``.

    ``none`` means that leases are not available: the filesystem has none, or the file belongs to
    another user.
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


def unlease(descriptor: int) -> None:
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def notes_beside(one: Held) -> str | None:
    """The notes of a program that writes this file in several parts, under its final name."""
    for ending in leftovers.BESIDE:
        name = f"{one.member.drop.name}{ending}"
        # A name that would be too long is not used.
        with suppress(OSError):
            os.stat(name, dir_fd=one.folder_fd, follow_symlinks=False)
            return name
    return None


def of(parcel: Parcel, one: Held, waiting: Waiting) -> Waiting:
    """`waiting`; for a set, with the name of the file that it is about."""
    if len(parcel.members) == 1:
        return waiting
    return Waiting(why=waiting.why, detail=f"{one.member.drop.name}: {waiting.detail}")


def open_all(spool: Spool, parcel: Parcel, opened: ExitStack) -> list[Held] | Waiting:
    folders: dict[str, int] = {}
    held = []
    for member in parcel.members:
        folder, name = os.path.split(member.drop.path)
        try:
            if folder not in folders:
                folders[folder] = opened.enter_context(durable.beneath(spool.inbox, folder))
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folders[folder])
        except (FileNotFoundError, NotADirectoryError):
            return Waiting(why="gone", detail=f"{member.drop.name} was taken away again")
        except OSError as error:
            return Waiting(why="unreadable", detail=f"it cannot be opened: {error.strerror}")
        opened.callback(os.close, descriptor)
        held.append(Held(member=member, folder_fd=folders[folder], descriptor=descriptor))
    return held


def hold(one: Held, config: Config, *, quiet_for_s: float, leases: bool) -> Waiting | None:
    """Take the lease, or return why the file must wait."""
    found = os.fstat(one.descriptor)
    if fingerprint(found) != one.member.drop.fingerprint or not stat.S_ISREG(found.st_mode):
        return Waiting(why="settling", detail="it has just changed again")
    fallback_quiet_s = config.inbox.of(one.member.drop.user).fallback_quiet_s
    answer = lease(one.descriptor)
    if answer == "granted" and not leases:
        unlease(one.descriptor)
        answer = "none"
    match answer:
        case "writer":
            return Waiting(why="open_for_writing", detail="somebody still has it open for writing")
        case "none" if quiet_for_s < fallback_quiet_s:
            return Waiting(
                why="no_lease",
                detail="this filesystem cannot say whether somebody still writes it, so it must be "
                f"quiet for {fallback_quiet_s:g} s",
            )
    one.leased = answer == "granted"
    return None


def no_image(head: Held, parcel: Parcel) -> str | None:
    """What the head looks like if nothing here could make an image of it."""
    beside = frozenset(member.to.removeprefix("source/") for member in parcel.members)
    name = os.path.basename(parcel.members[0].to)
    probe = Probe(head.descriptor, name=name, beside=beside)
    # Only OpenSlide knows whether it is a slide, and no decoder runs in this process.
    if len(parcel.members) > 1 or probe.head.startswith(b"SQLite format 3\0"):
        return None
    return look.safely(
        lambda probe: None if formats.is_an_image(probe) else formats.looks_like(probe),
        probe,
        lambda: None,
    )


def trouble_with(one: Held, moved: str, settings: Storage) -> Waiting | None:
    """Why the file must wait after all, because somebody interfered; None if it is ours only."""
    there = os.stat(moved, follow_symlinks=False)
    seen = one.member.drop.fingerprint
    if (there.st_dev, there.st_ino) != (seen.device, seen.inode):
        return Waiting(why="settling", detail="another file was put in its place meanwhile")
    # A program that breaks it waits in its open(2) until we release the lease; by then the file must be back.
    if is_broken(one):
        return Waiting(why="open_for_writing", detail="somebody opened it for writing meanwhile")
    one.before = owner.take(one.descriptor, group=settings.group, mode=int(settings.file_mode, 8))
    # The path is gone from the share, and its owner is another one now: a lease that is granted proves that no
    # writer is left. It is kept until all is durable: who was let in by the old owner's rights just before has
    # come to the lease by then.
    unlease(one.descriptor)
    answer = lease(one.descriptor)
    one.leased = answer == "granted"
    if answer == "writer":
        return Waiting(why="open_for_writing", detail="somebody opened it for writing meanwhile")
    found = os.fstat(one.descriptor)
    # The rename itself sets the ctime, so it is not compared.
    if (found.st_size, found.st_mtime_ns) != (seen.size_bytes, seen.mtime_ns):
        return Waiting(why="settling", detail="it changed while it was taken")
    if found.st_nlink != 1:
        return Waiting(why="settling", detail="it got a second name while it was taken")
    return None


def is_broken(one: Held) -> bool:
    return one.leased and fcntl.fcntl(one.descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK


def broken(parcel: Parcel, held: list[Held]) -> Waiting | None:
    """The member that somebody opens for writing at the last moment, if any."""
    for one in held:
        if is_broken(one):
            what = Waiting(
                why="open_for_writing", detail="somebody opened it for writing meanwhile"
            )
            return of(parcel, one, what)
    return None
