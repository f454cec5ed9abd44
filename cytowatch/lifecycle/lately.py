"""What is in work and what ended lately: the live view, and the notes for those who see only the share."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cytowatch import aside
from cytowatch.observe import arriving, drops, returned
from cytowatch.observe.drops import Drops
from cytowatch.observe.feedback import Note
from cytowatch.record import manifest
from cytowatch.record.entries import Manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.tree import places
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["Lately"]


class Lately:
    """Guards what people are shown of the uploaded files in work, and of those that ended within `keep_for`.

    Safe from any thread.
    """

    def __init__(self, index: Index, *, keep_for: timedelta) -> None:
        self._index = index
        self._keep_for = keep_for
        self._lock = threading.Lock()
        self._in_work: dict[str, tuple[Place, float]] = {}
        self._drops = Drops(keep_for=keep_for)
        #: The notes of what was handed back, as it lies in the inboxes.
        self._returned: dict[str, Note] = {}

    def take_up(self, spool: Spool, now: datetime) -> None:
        """Take what has ended lately from the index, which agrees with the tree."""
        for row in self._index.ended_since(manifest.utc(now - self._keep_for)):
            where = places.in_status(spool, row.id, row.user, row.status)
            self._take_note(spool, *where, now)
        self._take_notes_of_what_they_came_in(spool, now)

    def _take_note(
        self, spool: Spool, status: Status | None, path: Path, now: datetime | None = None
    ) -> None:
        which = os.fspath(path.relative_to(spool.root))
        try:
            with aside.fence("uploaded_file", which, but=(FileNotFoundError,)):
                found = Place.read(path, status)
                self._remember(found.status, found.manifest, now)
        except FileNotFoundError:
            # It was removed.
            aside.clear("uploaded_file", which)

    def _take_notes_of_what_they_came_in(self, spool: Spool, now: datetime) -> None:
        """Take note of archives that ended long ago, and of open folders, whose members ended lately."""
        with self._lock:
            roots = list(self._drops.without_their_root())
        for user, id_ in roots:
            for where in itertools.islice(places.of(spool, UploadedFileId(id_), user), 1):
                self._take_note(spool, *where, now)

    def again(self, spool: Spool) -> None:
        """Look once more at what had ended lately, and could not be read."""
        status_of = {status.directory: status for status in STAGE_STATUSES}
        for one in aside.all_of("uploaded_file"):
            top, _, rest = one.which.partition("/")
            if top not in ("storage", "stages") or not aside.may_try("uploaded_file", one.which):
                continue
            status = status_of[rest.partition("/")[0]] if top == "stages" else None
            self._take_note(spool, status, spool.root / one.which)

    def arrived(self, ids: Sequence[str]) -> None:
        """These were dropped, in this order."""
        with self._lock:
            self._drops.came(ids)

    def entered(self, place: Place) -> None:
        """An uploaded file is in `place` now."""
        found = place.manifest
        with self._lock:
            if place.status.is_final:
                self._in_work.pop(found["id"], None)
            else:
                self._in_work[found["id"]] = (place, 0.0)
        with aside.fence("note", found["id"], clears=False):
            self._remember(place.status, found)

    def progressed(self, place: Place, share: float) -> None:
        """The stage of `place` is done to `share`."""
        with self._lock:
            self._in_work[place.manifest["id"]] = (place, share)
            self._drops.progressed(place.manifest["id"], share)

    def held_up(self, id_: str, why: str) -> None:
        """A fault of the machine makes it wait."""
        with self._lock:
            self._drops.held_up(id_, why)

    def forget(self, id_: str) -> None:
        """It was removed, handed back or sent back."""
        with self._lock:
            self._drops.forget(id_)

    def _remember(self, status: Status, found: Manifest, now: datetime | None = None) -> None:
        """For `notes`: what is in work, and what ended lately; with `now` under an earlier daemon."""
        seen = drops.seen(found, status, same_as=self._first_of(found))
        age_s = 0.0 if now is None else (now - seen.at).total_seconds()
        with self._lock:
            self._drops.put(found["root_id"], seen, age_s=age_s)

    def _first_of(self, found: Manifest) -> str | None:
        """The earlier one of the same content, as a technician knows it."""
        if found["duplicate_of"] is None:
            return None
        rows = self._index.select(ids=[found["duplicate_of"]])
        if not rows:
            return "a slide that was removed"
        first = rows[0]
        above = self._index.select(ids=[first.parent_id]) if first.parent_id else []
        came_in = f" in {above[0].name}" if above else ""
        return f"{first.name}{came_in} of {first.received_at[:10]}"

    def notes(self, waiting: Sequence[Mapping[str, Any]] = ()) -> dict[str, Note]:
        """What those see who have only the share: by id what is in work or ended lately, by path what waits."""
        with self._lock:
            self._drops.expire()
            inside = arriving.notes(waiting, self._drops)
            return {**self._drops.notes(), **inside, **self._returned}

    def look_for_returned(self, spool: Spool, now: datetime) -> bool:
        """Take note of what was handed back lately, and of the texts beside it that are gone; whether any is new."""
        found = dict(returned.notes(spool.inbox, since=now - self._keep_for))
        with self._lock:
            before, self._returned = self._returned, found
        return found != before

    def in_work(self) -> dict[str, Any]:
        """What is in work, by id, ready for JSON."""
        with self._lock:
            return {
                id_: {
                    "status": place.status.name,
                    "share": round(share, 3),
                    "since": place.manifest["history"][-1]["at"],
                }
                for id_, (place, share) in self._in_work.items()
            }
