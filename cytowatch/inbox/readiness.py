"""Whether a bundle is ready to be claimed: marked, quiet, complete, and just as it was seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cytowatch.inbox.gather import Bundle
from cytowatch.inbox.later import LOOK_AGAIN_S
from cytowatch.inbox.markers import Markers
from cytowatch.inbox.own import Own
from cytowatch.inbox.settle import Settler
from cytowatch.record import drop as drop_module
from cytowatch.record import lacking
from cytowatch.record.drop import Drop, Waiting

__all__ = ["Readiness", "Ready"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A bundle that may be claimed: its marker, whether it has waited long enough, and the warnings of its manifest."""

    bundle: Bundle
    marker: Drop | None
    overdue: bool
    warnings: tuple[str, ...]


class Readiness:
    """Ensures that nothing is claimed before it is ready.

    Parameters
    ----------
    images_of
        The ids of the images of a user that were dropped by themselves under a name.
    """

    def __init__(
        self,
        inbox: Path,
        settler: Settler,
        markers: Markers,
        own: Own,
        *,
        images_of: Callable[[str, str], Sequence[str]],
    ) -> None:
        self._inbox = inbox
        self._settler = settler
        self._markers = markers
        self._own = own
        self._images_of = images_of

    def of(self, bundle: Bundle, now: float) -> Ready | None:
        """What may be claimed of `bundle` now; None if it waits, which its tracks then state."""
        for track in bundle.tracks:
            track.part_of = bundle.head.drop.path if track is not bundle.head else None
        marker = self._marker_for(bundle)
        own = self._own.of(bundle.head.drop.user)
        if own.done_marker and marker is None:
            return None
        # Nothing states that all files of such a set are there; only time shows it.
        quiet_s = own.folder_quiet_s if bundle.group.is_open_ended else 0.0
        ready_at = max(self._settler.ready_at(track, quiet_s=quiet_s) for track in bundle.tracks)
        if ready_at > now and marker is None:
            for track in bundle.tracks:
                self._settler.until(track, ready_at)
            return None
        late = self._settler.is_late(bundle.changed_at, now, bundle.head.drop.user)
        before = self._came_before(bundle)
        if bundle.group.missing is not None and not late and marker is None:
            parts = bundle.group.parts
            whole = lacking.layout(parts) if parts else ""
            came = "".join(f"; {one}" for one in before)
            detail = f"missing {bundle.group.missing}{came}{whole}"
            for track in bundle.tracks:
                self._settler.lacking(
                    track,
                    Waiting(why="incomplete", detail=detail),
                    changed_at=bundle.changed_at,
                )
            return None
        if not self._is_as_seen(bundle, now):
            return None
        return Ready(
            bundle=bundle,
            marker=marker,
            overdue=late or marker is not None,
            warnings=(*before, *filter(None, [bundle.arrived_in_parts])),
        )

    def _came_before(self, bundle: Bundle) -> tuple[str, ...]:
        """The warning about a missing file that arrived without the others, and was taken for an image of its own."""
        name = bundle.group.missing
        before = self._images_of(bundle.head.drop.user, name) if name and "/" not in name else []
        return tuple(
            f"{name} arrived earlier without the others, and was taken for an image of its own: {id_}. Drop all files of the "
            "slide once more, together"
            for id_ in before[:1]
        )

    def _is_as_seen(self, bundle: Bundle, now: float) -> bool:
        """Check once more that nothing has changed since the scan."""
        same = True
        for track in bundle.tracks:
            try:
                found = os.stat(self._inbox / track.drop.path, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                self._settler.claimed(track)
                same = False
                continue
            except OSError as error:
                why = Waiting(why="unreadable", detail=f"it cannot be looked at ({error.strerror})")
                self._settler.busy(track, why, now, quiet_s=LOOK_AGAIN_S)
                same = False
                continue
            drop = replace(track.drop, fingerprint=drop_module.fingerprint(found))
            if drop.fingerprint != track.drop.fingerprint:
                self._settler.see(drop, None, now)
                same = False
        return same

    def _marker_for(self, bundle: Bundle) -> Drop | None:
        folder = bundle.group.folder
        own = f"{bundle.room}/{folder}" if folder else bundle.head.drop.path
        return self._markers.of(bundle.head.drop.path) or self._markers.of(own)
