"""Every change of status: it moves the uploaded file, writes its row in the index, and reports the change.

All code that moves an uploaded file does it through `Transitions`, so the index, the metrics and the
notes never lag behind the tree (docs/decisions/013). Observers are only informed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from cytowatch import aside
from cytowatch.config import Config
from cytowatch.model import Outcome
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import IngestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place, is_folder
from cytowatch.record.status import Status
from cytowatch.transitions import accept, enter, lighten, link
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["Observer", "Transitions"]


class Observer(Protocol):
    """Who is informed of what happens to uploaded files: metrics, logs, the live view."""

    def entered(self, before: Place, after: Place, seconds: float) -> None:
        """`before` became `after`; the stage took `seconds`."""

    def progressed(self, place: Place, share: float) -> None:
        """The stage of `place` has reached `share`, 0.0 to 1.0."""

    def crashed(self, place: Place, signal: str) -> None:
        """The decoder process that treated `place` died of `signal`."""

    def retried(self, place: Place) -> None:
        """The stage of `place` begins again."""

    def said(self, id_: str, words: str) -> None:
        """Everything that a library said about `id_`; the detail quotes a line of it."""

    def unforeseen(self, id_: str, error: BaseException) -> None:
        """A defect, ours or a library's, appeared while `id_` was in work."""

    def held_up(self, id_: UploadedFileId, why: str, detail: str) -> None:
        """A fault of the machine makes `id_` wait; it continues by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """Everything a change of status needs: the tree, the index, the configuration, clocks, and observers.

    Each method returns where the uploaded file is afterwards. `began` is when its stage began, on the
    monotonic clock; without it only the change itself took time.
    """

    spool: Spool
    index: Index
    config: Config
    observer: Observer
    now: Callable[[], datetime]
    monotonic: Callable[[], float]

    def begin(self, place: Place) -> Place:
        """UPLOADED becomes DETECTING_FORMAT."""
        began = self.monotonic()
        after = enter.begin(self.spool, place, Status.DETECTING_FORMAT, now=self.now())
        return self._moved(place, after, began)

    def accept(
        self, place: Place, outcome: Outcome, out: str, *, duplicate_of: str | None, began: float
    ) -> Place:
        """Apply the outcome of a stage; a source that is not kept is removed after publishing.

        Raises
        ------
        IngestError
            The output is not what this stage may make; nothing was moved.
        OSError
            A fault of the machine; the step can be repeated.
        """
        heavy = self._plan_to_lighten(place, outcome.status)
        after = accept.accept(
            self.spool,
            place,
            outcome,
            out,
            now=self.now(),
            settings=self.config.storage,
            limits=self.config.limits,
            duplicate_of=duplicate_of,
            hooks=self.config.hooks,
        )
        return self._moved(place, self._lightened(after) if heavy else after, began)

    def hand_out_the_rest(self, place: Place) -> Place:
        """An archive whose members are being handed out becomes EXTRACTED."""
        began = self.monotonic()
        heavy = self._plan_to_lighten(place, Status.EXTRACTED)
        after = accept.hand_out_the_rest(
            self.spool,
            place,
            now=self.now(),
            settings=self.config.storage,
            limits=self.config.limits,
            hooks=self.config.hooks,
        )
        return self._moved(place, self._lightened(after) if heavy else after, began)

    def pass_over_conversion(self, place: Place) -> Place:
        """CONVERTING becomes DEPLOYING with nothing derived: links to the first one will show it."""
        began = self.monotonic()
        after = enter.enter(
            self.spool, place, place.manifest, Status.DEPLOYING, now=self.now(), attempts=1
        )
        return self._moved(place, after, began)

    def reject(self, place: Place, outcome: Outcome, first: str, *, began: float) -> Place:
        """End as ERROR_FORMAT `duplicate`: `first` has the same content."""
        after = accept.reject(
            self.spool, place, outcome, first, now=self.now(), hooks=self.config.hooks
        )
        return self._moved(place, after, began)

    def fail(self, place: Place, error: IngestError, *, began: float | None = None) -> Place:
        """End in the error of the stage."""
        began = self.monotonic() if began is None else began
        after = enter.fail(self.spool, place, error, now=self.now(), hooks=self.config.hooks)
        return self._moved(place, after, began)

    def link(self, place: Place, first: Place) -> Place:
        """Publish it as links to `first`."""
        began = self.monotonic()
        after = link.link(self.spool, place, first, now=self.now(), hooks=self.config.hooks)
        return self._moved(place, after, began)

    def open_folder(self, before: Place, after: Place) -> None:
        """A dropped folder has the new uploaded file `after`, which is already in its place."""
        self._moved(before, after, self.monotonic())

    def extracted(self, place: Place, changed: Manifest, *, began: float) -> Place:
        """The uploaded file of a dropped folder, all of whose images were claimed, is EXTRACTED."""
        after = enter.extracted(self.spool, place, changed, now=self.now(), hooks=self.config.hooks)
        return self._moved(place, after, began)

    def _plan_to_lighten(self, place: Place, status: Status) -> bool:
        """Whether the source is removed when an uploaded file is published as `status`; if so, note that."""
        match status:
            case Status.EXTRACTED:
                heavy = not self.config.extract.keep_archive
            case Status.CONVERTED:
                heavy = not self.config.convert.keep_source
            case _:
                heavy = False
        if heavy:
            lighten.plan_to_lighten(self.spool, place)
        return heavy

    def _lightened(self, after: Place) -> Place:
        try:
            return lighten.lighten(self.spool, after)
        except OSError as fault:
            # It is published all the same; its source is removed when the daemon ends or starts.
            structlog.get_logger().warning(
                "source_kept", path=str(after.path), error=fault.strerror
            )
            return after

    def _moved(self, before: Place, after: Place, began: float) -> Place:
        if after.status is not before.status:
            self.index.put(after.manifest, after.status)
            if after.status is Status.EXTRACTED and not is_folder(after.manifest):
                # The images of a dropped folder came into it one by one, as they were claimed.
                self.index.look(after.manifest["children"])
        # It has moved, and a failing observer must not make it look as if it had not.
        with aside.fence("uploaded_file", after.manifest["id"], clears=False):
            self.observer.entered(before, after, self.monotonic() - began)
        return after
