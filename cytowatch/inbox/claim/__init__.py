"""Taking what has settled out of its inbox, so that a crash or a late writer costs nothing.

The order is what counts: a lease on every file proves that nobody writes; the manifest and the
list of what will be moved are on disk before anything moves; a rename never replaces; the inodes
are compared; a lease that was broken meanwhile undoes it all; one more lease, on a path that is
gone from the share, proves that no writer is left; only then does ``<id>/`` appear in
``stages/uploaded``.

Each fsync of it is needed: left out, some state that a power cut may leave is a loss
(test_power.py::test_every_fsync_of_a_claim_is_needed).

Source: fcntl(2) "Leases"; tried against Samba, whose clients wait for the lease and then write a
new inode.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cytowatch import aside, durable, formats
from cytowatch.config import Config
from cytowatch.config.keys import Storage
from cytowatch.durable import owner
from cytowatch.durable.failpoints import reached
from cytowatch.formats import Probe, look
from cytowatch.formats.completeness import whole as completeness
from cytowatch.inbox import back, markers
from cytowatch.record import leftovers, manifest, names
from cytowatch.record.drop import Drop, Waiting, fingerprint
from cytowatch.record.entries import Manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool

__all__ = ["JOURNAL", "Member", "Parcel", "claim", "lease", "prepare_process", "recover", "single"]

#: The list of what a claim moves, in ``state/tmp/<id>/`` until it is done.
JOURNAL = "claim.json"
_MARKER = "done-marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file to be claimed, and where it goes below ``<id>/``; role is source or sidecar.

    `dropped_as` is the path of a file of a set, from the folder of its head.
    """

    drop: Drop
    to: str
    role: str = "source"
    dropped_as: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What becomes one uploaded file; the first member is its head.

    `folder` is a folder that is removed if nothing is left in it,
    `marker` the ``done_marker`` file that goes with it, `parent` the uploaded file of the dropped
    folder; with `images_only` a file that no format claims stays where it is. `warnings` are the manifest's first.
    """

    members: tuple[Member, ...]
    folder: str | None = None
    marker: Drop | None = None
    parent: Manifest | None = None
    images_only: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def head(self) -> Drop:
        """The file that names it."""
        return self.members[0].drop

    @property
    def path(self) -> str:
        """What it is called by: its head, or of a set that has none the folder of the set."""
        if self.folder is not None and self.head.path.startswith(f"{self.folder}/"):
            return self.folder
        return self.head.path

    @property
    def size_bytes(self) -> int:
        """The bytes of all members."""
        return sum(member.drop.fingerprint.size_bytes for member in self.members)


def single(drop: Drop) -> Parcel:
    """A drop that is one file only."""
    name = names.decode(os.fsencode(drop.name))[0]
    return Parcel(members=(Member(drop=drop, to=f"source/{names.slug(name)}"),))


def prepare_process() -> None:
    """Ignore the signal that says a lease is being broken: by default it kills the process.

    A set is held open whole, so as many files as the system allows may be open.
    """
    signal.signal(signal.SIGIO, lambda _number, _frame: None)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def lease(descriptor: int) -> str:
    """Ask for a read lease: ``granted``, ``writer`` (somebody has it open for writing) or ``none``.

    ``none`` is said where leases are not available: a filesystem without them, a file that is
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


@dataclass(slots=True, kw_only=True)
class _Held:
    """A member that is open: its own descriptor and that of its folder."""

    member: Member
    folder_fd: int
    descriptor: int
    leased: bool = False
    #: Whose it was, once it was taken.
    before: owner.Owner | None = None


def claim(
    spool: Spool,
    parcel: Parcel,
    *,
    config: Config,
    now: datetime,
    make_id: Callable[[datetime, str], UploadedFileId],
    software: dict[str, str],
    quiet_for_s: float,
    overdue: bool,
    leases: bool = True,
) -> UploadedFileId | Waiting:
    """Claim `parcel`: its id in ``stages/uploaded``, or why it stays where it is.

    Parameters
    ----------
    make_id
        Makes an id from the time and a name.
    quiet_for_s
        How long it has been quiet; where leases are not available it must be `fallback_quiet_s`.
    overdue
        It has waited long enough for what is missing: claim it although it is incomplete.
    leases
        Whether a lease that is granted proves anything: not where other machines write as well.

    Raises
    ------
    OSError
        A fault of the machine; the drop is where it was, or `recover` will put it there.
    """
    with ExitStack() as opened:
        held = _open(spool, parcel, opened)
        if isinstance(held, Waiting):
            return held
        lacking = None
        for one in held:
            # Where the copier says itself when it is done, its notes say nothing.
            if parcel.marker is None and (notes := _notes_beside(one)) is not None:
                why = f"its copy program is still at work on it: {names.printable(notes)} lies beside it"
                return _of(parcel, one, Waiting(why="still_copied", detail=why))
            found = _hold(one, config, quiet_for_s=quiet_for_s, leases=leases)
            if isinstance(found, Waiting):
                return _of(parcel, one, found)
            if lacking is None:
                lacking = look.safely(
                    lambda probe: completeness.missing(probe.descriptor, probe.size_bytes),
                    Probe(one.descriptor, name=one.member.drop.name),
                    lambda: None,
                )
                if lacking is not None and not overdue:
                    what = Waiting(why="incomplete", detail=f"missing {lacking}")
                    return _of(parcel, one, what)
        if parcel.images_only and lacking is None:
            looks = _no_image(held[0], parcel)
            if looks is not None:
                return Waiting(why="not_an_image", detail=f"it is {looks}, and stays where it is")
        return _take(
            spool, parcel, held, config=config, now=now, make_id=make_id, software=software
        )


def _notes_beside(one: _Held) -> str | None:
    """The notes of a program that writes this file in several parts, under its final name."""
    for ending in leftovers.BESIDE:
        name = f"{one.member.drop.name}{ending}"
        # A name that would be too long is none.
        with suppress(OSError):
            os.stat(name, dir_fd=one.folder_fd, follow_symlinks=False)
            return name
    return None


def _of(parcel: Parcel, one: _Held, waiting: Waiting) -> Waiting:
    """`waiting`, and of a set for which of its files it holds."""
    if len(parcel.members) == 1:
        return waiting
    return Waiting(why=waiting.why, detail=f"{one.member.drop.name}: {waiting.detail}")


def _open(spool: Spool, parcel: Parcel, opened: ExitStack) -> list[_Held] | Waiting:
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
        held.append(_Held(member=member, folder_fd=folders[folder], descriptor=descriptor))
    return held


def _hold(one: _Held, config: Config, *, quiet_for_s: float, leases: bool) -> Waiting | None:
    """Take the lease, or tell why the file must wait."""
    found = os.fstat(one.descriptor)
    if fingerprint(found) != one.member.drop.fingerprint or not stat.S_ISREG(found.st_mode):
        return Waiting(why="settling", detail="it has just changed again")
    fallback_quiet_s = config.inbox.of(one.member.drop.user).fallback_quiet_s
    answer = lease(one.descriptor)
    if answer == "granted" and not leases:
        _unlease(one.descriptor)
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


def _no_image(head: _Held, parcel: Parcel) -> str | None:
    """What the head looks like if nothing here could make an image of it."""
    beside = frozenset(member.to.removeprefix("source/") for member in parcel.members)
    name = os.path.basename(parcel.members[0].to)
    probe = Probe(head.descriptor, name=name, beside=beside)
    # Whether it is a slide only OpenSlide knows, and no decoder runs in this process.
    if len(parcel.members) > 1 or probe.head.startswith(b"SQLite format 3\0"):
        return None
    return look.safely(
        lambda probe: None if formats.is_an_image(probe) else formats.looks_like(probe),
        probe,
        lambda: None,
    )


def _take(
    spool: Spool,
    parcel: Parcel,
    held: list[_Held],
    *,
    config: Config,
    now: datetime,
    make_id: Callable[[datetime, str], UploadedFileId],
    software: dict[str, str],
) -> UploadedFileId | Waiting:
    name, name_base64 = names.decode(os.fsencode(os.path.basename(parcel.path)))
    id_ = make_id(now, name)
    while spool.taken(id_, parcel.head.user):
        id_ = make_id(now, name)
    place = spool.tmp / id_
    moved: list[_Held] = []
    try:
        _prepare(place, parcel, held, config, name, name_base64, now, software)
        # Or the power that goes after the next rename leaves files in a folder that has no name.
        durable.fsync_directory(spool.tmp)
        reached("claim.prepared")
        trouble = _move_all(spool, parcel, held, place, moved, config.storage)
        if trouble is None:
            _make_durable(place, held, marked=parcel.marker is not None)
            reached("claim.durable")
            trouble = _broken(parcel, held)
    except Exception:
        # Back to where it was; what cannot be put back now is put back by `recover`.
        _undo(spool, place, moved)
        raise
    if trouble is not None:
        _undo(spool, place, moved)
        return trouble
    _remove_empty(spool.inbox, parcel.folder)
    (place / _MARKER).unlink(missing_ok=True)
    (place / JOURNAL).unlink()
    reached("claim.unjournaled")
    # All of it is durable in state/tmp: if a power cut takes this rename back, `recover` does it again.
    spool.move(place, Status.UPLOADED, durably=False)
    return id_


def _move_all(
    spool: Spool,
    parcel: Parcel,
    held: list[_Held],
    place: Path,
    moved: list[_Held],
    settings: Storage,
) -> Waiting | None:
    """Rename every member, noting in `moved` which; why it must be undone, if somebody came between."""
    for one in held:
        durable.rename(one.member.drop.name, place / one.member.to, source_fd=one.folder_fd)
        moved.append(one)
        reached("claim.renamed")
    if parcel.marker is not None:
        # The marker goes with what it marks: left behind, it would mark the next of that name.
        markers.withdraw(spool.inbox, parcel.marker, place / _MARKER)
    for one in held:
        trouble = _trouble(one, place / one.member.to, settings)
        if trouble is not None:
            return _of(parcel, one, trouble)
    return None


def _make_durable(place: Path, held: list[_Held], *, marked: bool) -> None:
    for one in held:
        # 40 GB of it may still be dirty: this is why claims do not run in the scan loop.
        os.fsync(one.descriptor)
    _sync_names(place, marked=marked)


def _sync_names(place: Path, *, marked: bool) -> None:
    # With the new name the old one is gone as well, for a rename is one step; where it is two, a cut
    # leaves both. The inbox, in which others write, need not be synced for that.
    for folder, _, _ in durable.walk(place / "source"):
        durable.fsync_directory(Path(folder))
    if marked:
        # Or the marker may be in the inbox again, and mark the next file of that name.
        durable.fsync_directory(place)


def _prepare(
    place: Path,
    parcel: Parcel,
    held: list[_Held],
    config: Config,
    name: str,
    name_base64: str | None,
    now: datetime,
    software: dict[str, str],
) -> None:
    """Make ``<id>/`` with its manifest and the list of what will be moved, durably."""
    mode = int(config.storage.dir_mode, 8)
    place.mkdir(mode=mode)
    (place / "source").mkdir(mode=mode)
    for member in parcel.members:
        for folder in reversed((place / member.to).relative_to(place).parents[:-1]):
            (place / folder).mkdir(mode=mode, exist_ok=True)
    journal = {
        "user": parcel.head.user,
        "members": [
            {
                "from": member.drop.path,
                "to": member.to,
                "device": member.drop.fingerprint.device,
                "inode": member.drop.fingerprint.inode,
                "size_bytes": member.drop.fingerprint.size_bytes,
                "mtime_ns": member.drop.fingerprint.mtime_ns,
                "uid": found.st_uid,
                "gid": found.st_gid,
                "mode": stat.S_IMODE(found.st_mode),
            }
            for member, found in ((one.member, os.fstat(one.descriptor)) for one in held)
        ],
        "folder": parcel.folder,
        "marker": parcel.marker.path if parcel.marker else None,
    }
    (place / JOURNAL).write_text(json.dumps(journal))
    # One that a power cut tore could not put back what was moved.
    durable.fsync_file(place / JOURNAL)
    for below, folders, _ in durable.walk(place / "source"):
        # The names of folders that files of a set are moved into; that of source comes below.
        if folders:
            durable.fsync_directory(Path(below))
    files = [
        manifest.received(
            role=member.role,
            path=member.to,
            size_bytes=member.drop.fingerprint.size_bytes,
            dropped_as=member.dropped_as,
        )
        for member in parcel.members
    ]
    made = manifest.new(
        id=place.name,
        user=parcel.head.user,
        name=name,
        name_base64=name_base64,
        drop_path=names.decode(os.fsencode(parcel.path))[0],
        projects=[parcel.head.project] if parcel.head.project else [],
        files=files,
        now=now,
        software=software,
        parent=parcel.parent,
    )
    made["warnings"] = list(parcel.warnings)
    manifest.write(place, made, mode=int(config.storage.file_mode, 8))


def _trouble(one: _Held, moved: Path, settings: Storage) -> Waiting | None:
    """Whether someone came between; tells why, or None when the file is ours only."""
    there = os.stat(moved, follow_symlinks=False)
    seen = one.member.drop.fingerprint
    if (there.st_dev, there.st_ino) != (seen.device, seen.inode):
        return Waiting(why="settling", detail="another file was put in its place meanwhile")
    # Anyone who breaks it waits in its open until we let go: by then the file must be back.
    if _is_broken(one):
        return Waiting(why="open_for_writing", detail="somebody opened it for writing meanwhile")
    one.before = owner.take(one.descriptor, group=settings.group, mode=int(settings.file_mode, 8))
    # The path is gone from the share, and its owner is another one now: a lease that is granted proves that no
    # writer is left. It is kept until all is durable: who was let in by the old owner's rights just before has
    # come to the lease by then.
    _unlease(one.descriptor)
    answer = lease(one.descriptor)
    one.leased = answer == "granted"
    if answer == "writer":
        return Waiting(why="open_for_writing", detail="somebody opened it for writing meanwhile")
    found = os.fstat(one.descriptor)
    # The rename itself sets the ctime, so that is not compared.
    if (found.st_size, found.st_mtime_ns) != (seen.size_bytes, seen.mtime_ns):
        return Waiting(why="settling", detail="it changed while it was taken")
    if found.st_nlink != 1:
        return Waiting(why="settling", detail="it got a second name while it was taken")
    return None


def _is_broken(one: _Held) -> bool:
    return one.leased and fcntl.fcntl(one.descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK


def _broken(parcel: Parcel, held: list[_Held]) -> Waiting | None:
    """Which member somebody is opening for writing at the last moment, if any."""
    for one in held:
        if _is_broken(one):
            what = Waiting(
                why="open_for_writing", detail="somebody opened it for writing meanwhile"
            )
            return _of(parcel, one, what)
    return None


def _undo(spool: Spool, place: Path, moved: list[_Held]) -> None:
    """Back to the inbox under their own names, or beside anything that has such a name by now."""
    if os.path.lexists(place / _MARKER):
        marker = json.loads((place / JOURNAL).read_bytes())["marker"]
        with durable.beneath(spool.inbox, os.path.dirname(marker)) as at:
            # Beside its file, with which it is synced.
            back.put(place / _MARKER, os.path.basename(marker), at)
    for one in reversed(moved):
        owner.restore(one.descriptor, one.before)
        back.put(place / one.member.to, one.member.drop.name, one.folder_fd)
    # They are the only names that the files have now; what they had in state/tmp goes next.
    for folder in {os.path.dirname(one.member.drop.path): one.folder_fd for one in moved}.values():
        os.fsync(folder)
    spool.discard(place)


def _remove_empty(inbox: Path, folder: str | None) -> None:
    """Remove a set's own folder, with the folders in it, if nothing is left there."""
    if folder is None:
        return
    with suppress(OSError):
        durable.remove_empty(inbox, folder)


def recover(spool: Spool, settings: Storage | None = None) -> dict[str, str]:
    """Finish or undo what a crash or a fault left in ``state/tmp``: what became of each id.

    A claim is finished when all its members had moved already, else undone. What is neither
    is kept where it is, and said so. No claim may be under way. `settings` gives what is finished its
    group and mode.
    """
    outcome: dict[str, str] = {}
    for place in sorted(spool.tmp.iterdir()):
        with aside.fence("claim", place.name) as fenced:
            if place.is_dir():
                outcome[place.name] = _recover_one(spool, place, settings or Storage())
            else:
                place.unlink()
        if fenced.failed:
            outcome[place.name] = f"kept: {fenced.why}"
    return outcome


def _recover_one(spool: Spool, place: Path, settings: Storage) -> str:
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
    if whole and all(_untouched(place / m["to"], m, settings) for m in moved):
        for member in moved:
            durable.fsync_file(place / member["to"])
        _sync_names(place, marked=os.path.lexists(place / _MARKER))
        _remove_empty(spool.inbox, journal.get("folder"))
        # A kill may have come before it was found that another thing lay in its place: that is not ours to remove.
        marker = os.lstat(place / _MARKER) if os.path.lexists(place / _MARKER) else None
        if marker is not None and not stat.S_ISREG(marker.st_mode):
            with back.opened(spool.inbox, os.path.dirname(journal["marker"])) as inbox_fd:
                back.put(place / _MARKER, os.path.basename(journal["marker"]), inbox_fd)
        (place / _MARKER).unlink(missing_ok=True)
        (place / JOURNAL).unlink(missing_ok=True)
        spool.move(place, Status.UPLOADED, durably=False)
        return "finished"
    if said := _put_back(spool, place, moved, journal):
        return said
    if _has_source(place):
        return "kept: it holds files that no claim names"
    spool.discard(place)
    return "undone"


def _put_back(
    spool: Spool, place: Path, moved: list[dict[str, Any]], journal: dict[str, Any]
) -> str | None:
    """Put what had moved back to where it was dropped; why that cannot be, if so."""
    for member in moved:
        _restore(place / member["to"], member)
    to_inbox = [(place / member["to"], member["from"]) for member in moved]
    if os.path.lexists(place / _MARKER):
        to_inbox.append((place / _MARKER, journal["marker"]))
    for folder in dict.fromkeys(os.path.dirname(origin) for _, origin in to_inbox):
        origins = [one for one in to_inbox if os.path.dirname(one[1]) == folder]
        try:
            # The folder of a set may be gone by now: it was removed when it was empty.
            with back.opened(spool.inbox, folder) as inbox_fd:
                for path, origin in origins:
                    back.put(path, os.path.basename(origin), inbox_fd)
                # By the same descriptor: another folder may be in its place by now.
                os.fsync(inbox_fd)
        except OSError as error:
            return f"kept: {folder!r} takes nothing back ({error.strerror})"
    return None


def _has_source(place: Path) -> bool:
    return any(files for _, _, files in durable.walk(place / "source"))


def _is(path: Path, inode: int) -> bool:
    # After a restart a device may have another number; the inode is what a rename keeps.
    try:
        return os.stat(path, follow_symlinks=False).st_ino == inode
    except FileNotFoundError:
        return False


def _untouched(path: Path, member: dict[str, Any], settings: Storage) -> bool:
    """Whether nobody writes to what was moved, and nobody did since; it is ours from now on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        owner.take(descriptor, group=settings.group, mode=int(settings.file_mode, 8))
        found = os.fstat(descriptor)
        same = (found.st_size, found.st_mtime_ns) == (member["size_bytes"], member["mtime_ns"])
        return same and lease(descriptor) != "writer"
    finally:
        os.close(descriptor)


def _restore(path: Path, member: dict[str, Any]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        owner.restore(descriptor, owner.of(member))
    finally:
        os.close(descriptor)
