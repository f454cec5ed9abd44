"""Taking the held files: they move into state/tmp with a journal, are made durable, and are handed on."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.config.keys import Storage
from cytowatch.durable.failpoints import reached
from cytowatch.formats import Probe, look
from cytowatch.formats.completeness import whole as completeness
from cytowatch.inbox import markers
from cytowatch.inbox.claim.hold import (
    broken,
    hold,
    no_image,
    notes_beside,
    of,
    open_all,
    trouble_with,
)
from cytowatch.inbox.claim.parcel import JOURNAL, MARKER, Held, Parcel
from cytowatch.inbox.claim.recovery import remove_empty, sync_names
from cytowatch.inbox.claim.undo import undo
from cytowatch.record import manifest, names
from cytowatch.record.drop import Waiting
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool

__all__ = ["Claiming", "claim", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claiming:
    """What every claim needs besides its parcel.

    `make_id` makes an id from the time and a name. `leases` says whether a granted lease proves anything; it does not
    if other machines write as well.
    """

    spool: Spool
    config: Config
    now: Callable[[], datetime]
    make_id: Callable[[datetime, str], UploadedFileId]
    software: dict[str, str]
    leases: bool = True


def claim(
    with_: Claiming, parcel: Parcel, *, quiet_for_s: float, overdue: bool
) -> UploadedFileId | Waiting:
    """Claim `parcel`; return its id in ``stages/uploaded``, or why it stays where it is.

    Parameters
    ----------
    quiet_for_s
        How long it has been quiet; without leases this must be `fallback_quiet_s`.
    overdue
        Whether it has waited long enough for what is missing, so that it is claimed although incomplete.

    Raises
    ------
    OSError
        A fault of the machine; the drop is where it was, or `recover` will put it there.
    """
    with ExitStack() as opened:
        held = open_all(with_.spool, parcel, opened)
        if isinstance(held, Waiting):
            return held
        lacking = None
        for one in held:
            # If the copier itself reports when it is done, its own notes mean nothing.
            if parcel.marker is None and (notes := notes_beside(one)) is not None:
                why = f"its copy program is still at work on it: {names.printable(notes)} lies beside it"
                return of(parcel, one, Waiting(why="still_copied", detail=why))
            found = hold(one, with_.config, quiet_for_s=quiet_for_s, leases=with_.leases)
            if isinstance(found, Waiting):
                return of(parcel, one, found)
            if lacking is None:
                lacking = look.safely(
                    lambda probe: completeness.missing(probe.descriptor, probe.size_bytes),
                    Probe(one.descriptor, name=one.member.drop.name),
                    lambda: None,
                )
                if lacking is not None and not overdue:
                    what = Waiting(why="incomplete", detail=f"missing {lacking}")
                    return of(parcel, one, what)
        if parcel.images_only and lacking is None:
            looks = no_image(held[0], parcel)
            if looks is not None:
                return Waiting(why="not_an_image", detail=f"it is {looks}, and stays where it is")
        return _take(with_, parcel, held)


def _take(with_: Claiming, parcel: Parcel, held: list[Held]) -> UploadedFileId | Waiting:
    spool, now, name = with_.spool, with_.now(), parcel.name[0]
    id_ = with_.make_id(now, name)
    while spool.taken(id_, parcel.head.user):
        id_ = with_.make_id(now, name)
    place = spool.tmp / id_
    moved: list[Held] = []
    try:
        prepare(with_, place, parcel, held, now)
        # Otherwise a power cut after the next rename leaves files in a folder without a name.
        durable.fsync_directory(spool.tmp)
        reached("claim.prepared")
        trouble = _move_all(spool, parcel, held, place, moved, with_.config.storage)
        if trouble is None:
            _make_durable(place, parcel, held)
            reached("claim.durable")
            trouble = broken(parcel, held)
    except Exception:
        # Back to where it was; `recover` puts back what cannot be put back now.
        undo(spool, place, moved=bool(moved))
        raise
    if trouble is not None:
        undo(spool, place, moved=bool(moved))
        return trouble
    remove_empty(spool.inbox, parcel.folder)
    if parcel.marker is not None:
        (place / MARKER).unlink(missing_ok=True)
    os.unlink(f"{place}/{JOURNAL}")
    reached("claim.unjournaled")
    # Everything is durable in state/tmp: if a power cut undoes this rename, `recover` repeats it.
    spool.move(place, Status.UPLOADED, durably=False)
    return id_


def _move_all(
    spool: Spool,
    parcel: Parcel,
    held: list[Held],
    place: Path,
    moved: list[Held],
    settings: Storage,
) -> Waiting | None:
    """Rename every member and add it to `moved`; return why this must be undone, if somebody interfered."""
    for one in held:
        durable.rename(one.member.drop.name, f"{place}/{one.member.to}", source_fd=one.folder_fd)
        moved.append(one)
        reached("claim.renamed")
    if parcel.marker is not None:
        # The marker moves with its file: left behind, it would mark the next file of that name.
        markers.withdraw(spool.inbox, parcel.marker, place / MARKER)
    for one in held:
        trouble = trouble_with(one, f"{place}/{one.member.to}", settings)
        if trouble is not None:
            return of(parcel, one, trouble)
    return None


def _make_durable(place: Path, parcel: Parcel, held: list[Held]) -> None:
    for one in held:
        # 40 GB may still have to be written: this is why claims do not run in the scan loop.
        os.fsync(one.descriptor)
    sync_names(place, parcel.directories, marked=parcel.marker is not None)


def prepare(with_: Claiming, place: Path, parcel: Parcel, held: list[Held], now: datetime) -> None:
    """Make ``<id>/`` with its manifest and the list of files to move, durably."""
    settings, (name, name_base64) = with_.config.storage, parcel.name
    mode = int(settings.dir_mode, 8)
    place.mkdir(mode=mode)
    for directory in parcel.directories:
        os.mkdir(f"{place}/{directory}", mode)
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
    # A journal that a power cut tore could not put back the moved files.
    durable.write_new(place / JOURNAL, json.dumps(journal))
    # The names of directories that files of a set are moved into; that of source/ is synced below.
    inside = (os.path.dirname(directory) for directory in parcel.directories)
    for directory in dict.fromkeys(filter(None, inside)):
        durable.fsync_directory(f"{place}/{directory}")
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
        software=with_.software,
        parent=parcel.parent,
    )
    made["warnings"] = list(parcel.warnings)
    manifest.write(place, made, mode=int(settings.file_mode, 8))
