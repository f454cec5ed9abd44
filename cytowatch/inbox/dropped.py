"""When a dropped folder is finished: for a while nothing has arrived in it, and nothing waits in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cytowatch import aside
from cytowatch.durable import trees
from cytowatch.inbox import waits
from cytowatch.inbox.folders import Folders
from cytowatch.inbox.markers import Markers, withdraw
from cytowatch.inbox.settle import Settler, Track
from cytowatch.record import names
from cytowatch.record.entries import SkippedEntry

__all__ = ["Dropped"]

#: How long one turn of the main loop may spend on finishing folders, in seconds.
_TURN_S = 0.1
#: The least time between two looks at all folders, as a multiple of what the last one took.
_SHARE = 20.0


class Dropped:
    """Keeps the time since when nothing has happened in each open folder; for the main thread only.

    Parameters
    ----------
    trash
        Where markers go that are removed.
    is_an_image
        Whether a format claims the file of a track.
    """

    def __init__(
        self,
        inbox: Path,
        settler: Settler,
        markers: Markers,
        folders: Folders,
        *,
        trash: Path,
        is_an_image: Callable[[Track], bool],
    ) -> None:
        self._inbox = inbox
        self._trash = trash
        self._settler = settler
        self._markers = markers
        self._folders = folders
        self._is_an_image = is_an_image
        #: When something last happened in an open folder.
        self._active: dict[str, float] = {}
        #: When each may be finished, by the last check, and when that is checked again.
        self._times: dict[str, float] = {}
        self._look_at = float("-inf")
        #: What somebody must mend, and was left behind by a folder that is done with: their paths.
        self._left: set[str] = set()

    def was_left(self, track: Track) -> bool:
        """Whether it could not be taken as long as its folder was open, and waits for the same still."""
        return track.drop.path in self._left and _is_hopeless(track)

    def happened(self, folder: str, now: float) -> None:
        """Note that something was claimed out of `folder`, or is about to be."""
        self._active[folder] = now
        self._times.pop(folder, None)

    def finish_some(self, now: float, quiet_s: Callable[[str], float]) -> None:
        """Close folders in which nothing arrives any more, as many as one turn has time for."""
        self._folders.note()
        if now >= self._look_at:
            began = time.monotonic()
            self._times = self.times(now, quiet_s)
            self._look_at = now + _SHARE * (time.monotonic() - began)
        ready = [
            folder
            for folder, at in self._times.items()
            if now >= at and aside.may_try("folder", folder)
        ]
        if not ready:
            return
        end = time.monotonic() + _TURN_S
        left = self._left_in(set(ready))
        for folder in ready:
            with aside.fence("folder", folder):
                self._finish(folder, left.get(folder, []))
            if time.monotonic() >= end:
                break

    def _finish(self, folder: str, left: list[Track]) -> None:
        self._folders.finish(folder, [_skipped(track, folder) for track in left])
        self._times.pop(folder, None)
        self._active.pop(folder, None)
        self._left = {path for path in self._left if self._settler.knows(path)}
        self._left |= {track.drop.path for track in left if _is_hopeless(track)}
        marker = self._markers.take(folder)
        if marker is not None:
            grave = self._trash / f"marker.{os.urandom(8).hex()}"
            withdraw(self._inbox, marker, grave)
            trees.remove(grave)

    def times(self, now: float, quiet_s: Callable[[str], float]) -> dict[str, float]:
        """When each open folder may be finished, except those in which something can be claimed."""
        newest = {folder: self._active.setdefault(folder, now) for folder in self._folders.open}
        busy: set[str] = set()
        # All in one pass: a folder may hold a hundred thousand files.
        for user in {folder.split("/", 1)[0] for folder in newest}:
            for track in self._settler.of_user(user):
                folder = _folder_of(track, newest)
                if folder is None or folder in busy:
                    continue
                newest[folder] = max(newest[folder], track.changed_at)
                if track.claiming or self._is_awaited(track) or self._lacks_marker(track):
                    busy.add(folder)
        return {
            folder: self._active[folder] if folder in self._markers else at + quiet_s(folder)
            for folder, at in newest.items()
            if folder not in busy
        }

    def any_to_finish(self, now: float, quiet_s: Callable[[str], float]) -> bool:
        """Whether some folder will be finished without a new file, or may be after a fault that passes."""
        return any(aside.may_pass("folder", folder) for folder in self.times(now, quiet_s))

    def next_at(self) -> float | None:
        """When a folder may be finished next, as far as known."""
        known = [at for folder, at in self._times.items() if aside.may_try("folder", folder)]
        return max(min(known), self._look_at) if known else None

    def _is_awaited(self, track: Track) -> bool:
        """Whether it is claimed soon by itself, without anybody having to mend something first."""
        return track.due_at is not None and not _is_hopeless(track)

    def _lacks_marker(self, track: Track) -> bool:
        """Whether it is an image that its scanner has not yet said to be done."""
        if track.waiting is None or track.waiting.why != "done_marker":
            return False
        # A path that cannot be looked into keeps its own folder open, and no other.
        with aside.fence("drop", track.drop.path):
            return self._is_an_image(track)
        return True

    def _left_in(self, folders: set[str]) -> dict[str, list[Track]]:
        """The drops that are still in `folders`."""
        left: dict[str, list[Track]] = {}
        for user in {folder.split("/", 1)[0] for folder in folders}:
            for track in self._settler.of_user(user):
                folder = _folder_of(track, folders)
                if folder is not None:
                    left.setdefault(folder, []).append(track)
        return left


def _is_hopeless(track: Track) -> bool:
    return track.waiting is not None and track.waiting.why in waits.HOPELESS


def _folder_of(track: Track, folders: dict[str, float] | set[str]) -> str | None:
    """The one of `folders` in which it lies: at the top of an inbox, or of a project in it."""
    parts = track.drop.path.split("/", 3)
    for count in (2, 3):
        folder = "/".join(parts[:count])
        if len(parts) > count and folder in folders:
            return folder
    return None


def _skipped(track: Track, folder: str) -> SkippedEntry:
    inside = track.drop.path[len(folder) + 1 :]
    return SkippedEntry(
        name=names.printable(names.decode(os.fsencode(inside))[0]),
        reason=f"{track.waiting.why}: {track.waiting.detail}" if track.waiting else "",
    )
