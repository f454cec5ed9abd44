"""What happens to uploaded files: counted, and reported to metrics and logs. Safe from any thread."""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cytowatch import aside
from cytowatch.lifecycle.delays import Delays
from cytowatch.lifecycle.lately import Lately
from cytowatch.observe import logs, reports
from cytowatch.observe.metrics import Metrics
from cytowatch.record.entries import Manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place, is_folder
from cytowatch.record.skipped import losses
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["Ledger"]


class Ledger:
    """Guards the counts of uploaded files by status; the engine reports every step to it."""

    def __init__(
        self, metrics: Metrics, log: Any, index: Index, *, status_for: timedelta, defects: Path
    ) -> None:
        self._metrics = metrics
        self._defects = defects
        self._index = index
        #: What people are shown of them.
        self.lately = Lately(index, keep_for=status_for)
        self._log = log
        self._lock = threading.Lock()
        self._counts: Counter[Status] = Counter()
        self._changed = True
        self._delays = Delays()
        #: How many uploaded files of this run ended in an error.
        self.errors = 0
        #: How many archives of this run were unpacked with members lost.
        self.with_losses = 0

    def count_tree(self, spool: Spool, now: datetime) -> None:
        """Take the counts, and what has ended lately, from the index, which agrees with the tree."""
        self.lately.take_up(spool, now)
        with self._lock:
            self._counts.update(self._index.counts())
            self._publish()

    def look_for_returned(self, spool: Spool, now: datetime) -> None:
        """Take note of what was handed back lately, and of the texts beside it that are gone."""
        if self.lately.look_for_returned(spool, now):
            with self._lock:
                self._changed = True

    def left(self, status: Status, id_: str) -> None:
        """One that was finished in `status` was removed, handed back or sent back."""
        self._index.look([id_])
        for where in ("note", "uploaded_file"):
            aside.clear(where, id_)
        with self._lock:
            self._counts[status] -= 1
            self.lately.forget(id_)
            self._publish()

    def arrived(self, ids: Sequence[UploadedFileId], status: Status = Status.UPLOADED) -> None:
        """These are UPLOADED, or in the stage that they were sent back to."""
        if not ids:
            return
        if status is Status.UPLOADED:
            self.lately.arrived(ids)
        self._index.look(ids)
        with self._lock:
            self._counts[status] += len(ids)
            self._publish()

    def entered(self, before: Place, after: Place, seconds: float) -> None:
        """`before` became `after`; the stage took `seconds`."""
        found = after.manifest
        if after.status is before.status:
            return
        # Anything unexpected about it is over.
        aside.clear("uploaded_file", found["id"])
        with self._lock:
            # A dropped folder is entered at once, and never was among those that wait.
            if before.status is Status.UPLOADED and is_folder(found):
                self.lately.arrived([found["id"]])
            else:
                self._counts[before.status] -= 1
            self._counts[after.status] += 1
            self.lately.entered(after)
            # The images of a dropped folder were reported one by one, as they were claimed.
            if after.status is Status.EXTRACTED and not is_folder(found):
                self._counts[Status.UPLOADED] += len(found["children"])
            self.errors += after.status.is_error
            self.with_losses += _has_losses(after)
            self._publish()
        self._count(before, after, seconds)
        logs.stage_line(
            self._log,
            id=found["id"],
            user=found["user"],
            from_=before.status.name,
            to=after.status.name,
            format=found["format"]["id"] if found["format"] else None,
            seconds=round(seconds, 3),
            bytes=found["size_bytes"],
            **(
                {"reason": found["error"]["reason"], "detail": found["error"]["detail"]}
                if found["error"]
                else {}
            ),
        )
        if after.status.is_final:
            logs.ended_line(self._log, found)

    def _count(self, before: Place, after: Place, seconds: float) -> None:
        found = after.manifest
        # A dropped folder is in its stage for as long as anything comes: that is not work.
        if before.status is not Status.UPLOADED and not is_folder(found):
            self._metrics.stage_seconds.labels(before.status.name).observe(seconds)
        if after.status.is_final:
            format_id = found["format"]["id"] if found["format"] else "unknown"
            self._metrics.uploads.labels(format_id, after.status.name).inc()
        if after.status in (Status.DEPLOYED, Status.CONVERTED):
            after_s = self._delays.after_s(found, datetime.now(UTC))
            if after_s is not None:
                self._metrics.deployed_after.observe(after_s)
        if _has_losses(after):
            self._metrics.archives_with_losses.inc()
        if found["error"] and after.status.is_error:
            self._metrics.error(found["error"]["stage"], found["error"]["reason"])
        if before.status is Status.CONVERTING and after.status is Status.DEPLOYING:
            self._metrics.converted_pixels.inc(_pixels(found))

    def claimed(self, id_: UploadedFileId, quiet_s: float) -> None:
        """`id_` was claimed just now, `quiet_s` after its last byte."""
        self._delays.claimed(id_, datetime.now(UTC), quiet_s)

    def progressed(self, place: Place, share: float) -> None:
        """The stage of `place` is done to `share`."""
        self.lately.progressed(place, share)

    def crashed(self, place: Place, signal: str) -> None:
        """The decoder process that treated `place` died of `signal`."""
        self._metrics.crash(signal)
        self._log.warning(
            "decoder_crashed", id=place.manifest["id"], status=place.status.name, signal=signal
        )

    def retried(self, place: Place) -> None:
        """The stage of `place` begins again."""
        self._metrics.retries.labels(place.status.name).inc()

    def said(self, id_: str, words: str) -> None:
        """All that a library said of `id_`, of which the detail quotes a line."""
        self._log.info("decoder_said", id=id_, said=words)

    def unforeseen(self, id_: str, error: BaseException) -> None:
        """A defect was met while `id_` was in work: one line, and a file to send."""
        text = "".join(traceback.format_exception(error))
        report = reports.keep(self._defects, id_, text, now=datetime.now(UTC))
        self._log.error(
            "unexpected", id=id_, error=f"{type(error).__name__}: {error}"[:500], report=report
        )

    def held_up(self, id_: UploadedFileId, why: str, detail: str) -> None:
        """A fault of the machine makes `id_` wait; it goes on by itself."""
        self._log.warning("held_up", id=id_, why=why, detail=detail)
        self.lately.held_up(id_, why)
        with self._lock:
            self._changed = True

    def set_ages(self, now: datetime) -> None:
        """The age of the oldest uploaded file in each stage, in seconds."""
        oldest = self._index.oldest(folders=False)
        ages = dict.fromkeys(STAGE_STATUSES, 0.0)
        for status, received_at in oldest.items():
            if not status.is_final:
                with aside.fence("row", f"the oldest in {status.name}"):
                    received = datetime.fromisoformat(received_at)
                    ages[status] = max(0.0, (now - received).total_seconds())
        self._metrics.set_oldest(ages)

    @property
    def has_changed(self) -> bool:
        """Whether anything has happened since `take_changed` was called."""
        return self._changed

    def take_changed(self) -> bool:
        """Whether anything has happened since the last call."""
        with self._lock:
            changed, self._changed = self._changed, False
            return changed

    def _publish(self) -> None:
        self._changed = True
        self._metrics.set_files({status: self._counts[status] for status in Status})


def _has_losses(place: Place) -> bool:
    return place.status is Status.EXTRACTED and losses(place.manifest) > 0


def _pixels(found: Manifest) -> int:
    return sum(image["width"] * image["height"] for image in found["images"])
