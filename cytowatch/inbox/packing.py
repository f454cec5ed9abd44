"""Making a parcel: the files of a bundle, their places, and the folder they were dropped in."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cytowatch.inbox.claim import Member, Parcel
from cytowatch.inbox.dropped import Dropped
from cytowatch.inbox.folders import Folders
from cytowatch.inbox.gather import Bundle, Gatherer
from cytowatch.inbox.markers import Markers
from cytowatch.inbox.readiness import Ready
from cytowatch.record.entries import Manifest

__all__ = ["Packing", "Unmovable"]


class Unmovable(PermissionError):
    """Nothing can be taken out of its folder; nothing was begun."""


class Packing:
    """Ensures that an uploaded file stands for a dropped folder before anything is claimed out of it."""

    def __init__(
        self,
        inbox: Path,
        gatherer: Gatherer,
        markers: Markers,
        folders: Folders,
        dropped: Dropped,
    ) -> None:
        self._inbox = inbox
        self._gatherer = gatherer
        self._markers = markers
        self._folders = folders
        self._dropped = dropped

    def parcel(self, ready: Ready, now: float) -> Parcel:
        """The parcel for a bundle that is ready.

        Raises
        ------
        Unmovable
            Nothing can be taken out of its folder.
        OSError
            A fault of the machine: the uploaded file of its folder may have been left half made.
        """
        bundle = ready.bundle
        places = bundle.places()
        sidecars = {f"{bundle.room}/{path}" for path in bundle.group.sidecars}
        members = tuple(
            Member(
                drop=track.drop,
                to=f"source/{places[track.drop.path]}",
                role="sidecar" if track.drop.path in sidecars else "source",
                dropped_as=bundle.group.dropped_as(track.drop.path[len(bundle.room) + 1 :]),
            )
            for track in bundle.tracks
        )
        folder = bundle.group.folder
        own = bundle.folder is None or bundle.head.drop.path in self._markers
        return Parcel(
            members=members,
            warnings=ready.warnings,
            folder=f"{bundle.room}/{folder}" if folder else None,
            # The marker of a dropped folder stays until the folder is finished.
            marker=ready.marker if own else None,
            parent=self._parent(bundle, now),
            # Of a part of a slide it is known what it is, though by itself it is not an image.
            images_only=bundle.folder is not None and bundle.group.kind is None,
        )

    def _parent(self, bundle: Bundle, now: float) -> Manifest | None:
        """The manifest of the uploaded file that stands for its dropped folder, if it has one."""
        if bundle.folder is None or self._goes_alone(bundle) or not self._may_be_an_image(bundle):
            return None
        head = bundle.head.drop
        if not os.access(self._inbox / os.path.dirname(head.path), os.W_OK | os.X_OK):
            # Otherwise an uploaded file would stand for a folder out of which nothing can be taken.
            raise Unmovable(errno.EACCES, os.strerror(errno.EACCES))
        parent = self._folders.parent(bundle.folder, head.user, head.project)
        self._dropped.happened(bundle.folder, now)
        return parent

    def _goes_alone(self, bundle: Bundle) -> bool:
        """Whether it could not be taken while its folder was open, and the folder is done with.

        An uploaded file that stands for the folder again would wait for nothing but it, at each try.
        """
        if bundle.folder is None or self._folders.is_open(bundle.folder):
            return False
        return self._dropped.was_left(bundle.head)

    def _may_be_an_image(self, bundle: Bundle) -> bool:
        """Whether a format claims its head: what else lies in a dropped folder stays there.

        In a folder that is open already its claim finds that out, in a thread of its own.
        """
        if bundle.group.kind is not None or self._folders.is_open(bundle.folder or ""):
            return True
        return self._gatherer.is_an_image(bundle.head)
