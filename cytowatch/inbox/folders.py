"""Dropped folders: an uploaded file stands for each while its images are claimed one by one.

The end of a folder cannot be seen, so it is never renamed away; each complete image in it is
claimed as a child. Its uploaded file is EXTRACTING_DATA from the first claim on, and EXTRACTED
when nothing has come for ``folder_quiet_s``.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from cytowatch import aside, durable
from cytowatch.config import Config
from cytowatch.config.keys import Storage
from cytowatch.durable.failpoints import reached
from cytowatch.formats import directory
from cytowatch.record import manifest, names
from cytowatch.record.entries import FormatEntry, Manifest, SkippedEntry
from cytowatch.record.errors import ExtractionError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place, is_folder
from cytowatch.record.skipped import capped
from cytowatch.record.status import Status
from cytowatch.transitions.moves import Transitions

__all__ = ["Folders"]

#: Writing a manifest that names thousands may take at most this share of the time.
_NOTING_SHARE = 20.0
_NOTHING = ExtractionError("no_image", "its images were taken away again before they were claimed")


@dataclass(slots=True)
class _Open:
    place: Place
    #: Children that are not yet in its manifest.
    unnoted: list[str] = field(default_factory=list)
    #: When they may be written down next, on the monotonic clock.
    note_at: float = 0.0


class Folders:
    """Guards the uploaded files of dropped folders; for the main thread only."""

    def __init__(
        self,
        transitions: Transitions,
        *,
        make_id: Callable[[datetime, str], UploadedFileId],
        software: dict[str, str],
        settings: Storage,
    ) -> None:
        self._moves = transitions
        self._spool = transitions.spool
        self._settings = settings
        self._index = transitions.index
        self._now = transitions.now
        self._make_id = make_id
        self._software = software
        #: By the folder's path below ``inbox/``, as the system spells it.
        self._open: dict[str, _Open] = {}
        #: Those that a start could not take up yet.
        self._untaken: list[UploadedFileId] = []

    def reconfigure(self, config: Config) -> None:
        """Report folders that finish from now on to the hooks of `config`."""
        self._moves = replace(self._moves, config=config)

    @property
    def open(self) -> list[str]:
        """The folders, relative to ``inbox/``, whose uploaded file is being extracted."""
        return list(self._open)

    def is_open(self, folder: str) -> bool:
        """Whether there already is an uploaded file for `folder`."""
        return folder in self._open

    def recover(self) -> None:
        """Take up the folders that were open; their children are found by their manifests."""
        self._untaken = list(self._spool.in_status(Status.EXTRACTING_DATA))
        self._take_up_some()

    def _take_up_some(self) -> None:
        """Take up those that are left; one that cannot be taken up is tried again, and delays no other."""
        for id_ in list(self._untaken):
            if not aside.may_try("folder", id_):
                continue
            # One without a readable manifest ends in its error when it is its turn.
            with aside.fence("folder", id_) as fenced:
                self._take_up(id_)
            if not fenced.failed:
                self._untaken.remove(id_)

    def _take_up(self, id_: UploadedFileId) -> None:
        path = self._spool.stage(Status.EXTRACTING_DATA) / id_
        try:
            place = Place.read(path, Status.EXTRACTING_DATA)
        except (ManifestError, FileNotFoundError):
            return
        if is_folder(place.manifest):
            folder = _folder_of(place.manifest)
            self._open[folder] = _Open(place)
            self._add(self._open[folder], self._children_of(place.manifest))

    def _children_of(self, parent: Manifest) -> list[str]:
        """Every uploaded file that names `parent`, by the index."""
        rows = self._index.select(where={"parent_id": parent["id"]}, ascending=True)
        return [row.id for row in rows]

    def parent(self, folder: str, user: str, project: str | None) -> Manifest:
        """The manifest of the uploaded file that stands for `folder`; made if there is none yet."""
        if folder not in self._open:
            self._make(folder, user, project)
        return self._open[folder].place.manifest

    def _make(self, folder: str, user: str, project: str | None) -> None:
        now = self._now()
        name, name_base64 = names.decode(os.fsencode(os.path.basename(folder)))
        id_ = self._make_id(now, name)
        while self._spool.taken(id_, user):
            id_ = self._make_id(now, name)
        path = self._spool.tmp / id_
        for below in (path, path / "source"):
            below.mkdir(mode=int(self._settings.dir_mode, 8))
        made = manifest.new(
            id=id_, user=user, name=name, name_base64=name_base64,
            drop_path=names.decode(os.fsencode(folder))[0],
            projects=[project] if project else [], files=[], now=now, software=self._software,
        )  # fmt: skip
        row = directory.FORMAT
        entry = FormatEntry(
            id=row.id,
            name=row.name,
            native=False,
            evidence=row.marker,
            openslide_vendor=None,
        )
        first = Place(status=Status.UPLOADED, path=path, manifest=made)
        detecting = manifest.at_status(made, Status.DETECTING_FORMAT, now=now, attempts=1)
        extracting = manifest.at_status(
            manifest.evolve(detecting, format=entry),
            Status.EXTRACTING_DATA,
            now=now,
            attempts=1,
        )
        manifest.write(path, extracting, mode=int(self._settings.file_mode, 8))
        # The claim that names it syncs state/tmp, and so this.
        path = self._spool.move(path, Status.EXTRACTING_DATA, durably=False)
        last = Place(status=Status.EXTRACTING_DATA, path=path, manifest=extracting)
        self._open[folder] = _Open(last)
        self._moves.open_folder(first, last)
        reached("folder.entered")

    def claimed(self, folder: str, children: list[str]) -> None:
        """Note what was claimed out of `folder`."""
        found = self._open.get(folder)
        if found is not None:
            self._add(found, children)

    def adopt(self, child: Manifest) -> None:
        """Note `child`, if it came out of a folder that is open."""
        for found in self._open.values():
            if found.place.manifest["id"] == child["parent_id"]:
                self._add(found, [child["id"]])

    def _add(self, found: _Open, children: list[str]) -> None:
        found.unnoted = list(dict.fromkeys([*found.unnoted, *children]))
        began = time.monotonic()
        if not found.unnoted or began < found.note_at:
            return
        changed = _with_children(found)
        # If it cannot be written now, it is written with the next one, or with the last manifest.
        with suppress(OSError):
            manifest.write(found.place.path, changed, durably=False)
            found.place = Place(status=found.place.status, path=found.place.path, manifest=changed)
            found.unnoted = []
        found.note_at = began + _NOTING_SHARE * (time.monotonic() - began)

    def note(self) -> None:
        """Write down the children that are not yet in a manifest, where it is time."""
        self._take_up_some()
        for folder, found in self._open.items():
            # Not by the name by which its end is set aside, whose pauses grow.
            if aside.may_try("folder", f"{folder}/"):
                with aside.fence("folder", f"{folder}/"):
                    self._add(found, [])

    def finish(self, folder: str, skipped: list[SkippedEntry]) -> None:
        """Nothing more comes: `folder` is EXTRACTED, and is removed if it is empty."""
        place = self._open[folder].place
        changed = manifest.evolve(_with_children(self._open[folder]), skipped=capped(skipped))
        # First of all: after a kill between the two it is finished once more, and is still empty.
        self._remove_empty(folder)
        since = datetime.fromisoformat(place.manifest["history"][-1]["at"])
        # A clock that was set back must not give a negative duration.
        taken_s = max(0.0, (self._now() - since).total_seconds())
        began = self._moves.monotonic() - taken_s
        if changed["children"]:
            self._moves.extracted(place, changed, began=began)
        else:
            self._moves.fail(place, _NOTHING, began=began)
        del self._open[folder]
        aside.clear("folder", f"{folder}/")

    def _remove_empty(self, folder: str) -> None:
        """Remove the folder and the folders in it if no file is left, so that a technician sees that it is done."""
        with suppress(OSError):
            durable.remove_empty(self._spool.inbox, folder)


def _folder_of(found: Manifest) -> str:
    """The dropped folder's path, as the system spells it; the manifest's own is text for people."""
    if found["name_base64"] is None:
        return found["drop_path"]
    name = os.fsdecode(base64.b64decode(found["name_base64"]))
    return f"{os.path.dirname(found['drop_path'])}/{name}"


def _with_children(found: _Open) -> Manifest:
    known = found.place.manifest["children"]
    there = set(known)
    new = [child for child in found.unnoted if child not in there]
    return manifest.evolve(found.place.manifest, children=[*known, *new])
