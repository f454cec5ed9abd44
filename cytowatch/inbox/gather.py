"""Grouping the files in one room of the inboxes: which of them are one slide.

Nothing is moved and no lease is taken here. Files are only read, through descriptors, and the findings
are remembered as long as a file does not change.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cytowatch import aside, durable, formats
from cytowatch.formats import Probe, look
from cytowatch.formats.completeness import whole as completeness
from cytowatch.formats.sets import groups as companions
from cytowatch.formats.sets.groups import Group
from cytowatch.inbox.settle import Track
from cytowatch.record import names
from cytowatch.record.drop import Fingerprint

__all__ = ["Bundle", "Gatherer", "Stopped"]

T = TypeVar("T")

#: Files that arrived this much later belong to another drop: no copy of one slide pauses for so long.
_ANOTHER_TIME_NS = 3600 * 10**9


class Stopped(Exception):
    """The daemon is ending, and does not read any further file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A group and its tracks, head first; `folder` is the dropped folder that it lies in, if any."""

    group: Group
    room: str
    tracks: tuple[Track, ...]
    folder: str | None

    @property
    def head(self) -> Track:
        """The track that stands for the bundle."""
        return self.tracks[0]

    @property
    def changed_at(self) -> float:
        """When any of its files last changed."""
        return max(track.changed_at for track in self.tracks)

    @property
    def arrived_in_parts(self) -> str | None:
        """The warning for a slide whose files arrived at different times; None for any other.

        The time that counts is when each file was last written or put there, which users cannot set.
        """
        if self.group.kind is None:
            return None
        tracks = sorted(self.tracks, key=lambda track: track.drop.fingerprint.ctime_ns)
        times = [track.drop.fingerprint.ctime_ns for track in tracks]
        gaps = [(later - time, at) for at, (time, later) in enumerate(itertools.pairwise(times), 1)]
        longest, at = max(gaps, default=(0, 0))
        if longest < _ANOTHER_TIME_NS:
            return None
        last, first = (datetime.fromtimestamp(times[n] / 1e9, UTC) for n in (at - 1, at))
        late = names.printable(names.decode(os.fsencode(tracks[at].drop.name))[0])
        return (
            f"its files arrived at different times: {at:,} until {last:%Y-%m-%d %H:%M}, {len(times) - at:,} from "
            f"{first:%Y-%m-%d %H:%M} UTC on, the first of them {late}. Check that all are of the same slide"
        )

    def places(self) -> dict[str, str]:
        """Where each file goes below ``source/``, by its path below ``inbox/``."""
        name = names.decode(os.fsencode(self.head.drop.name))[0]
        placed = companions.placed(self.group, name)
        return {f"{self.room}/{path}": inside for path, inside in placed.items()}


class Gatherer:
    """Keeps what was seen inside files, so that each is read only once while it stays the same.

    For any thread, each for the files of one user.
    """

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        #: By user and path.
        self._seen: dict[str, dict[str, tuple[Fingerprint, dict[str, Any]]]] = {}
        self._stopped = False

    def stop(self) -> None:
        """Let threads that read now raise `Stopped` at the next file."""
        self._stopped = True

    def bundles(
        self, room: str, tracks: Iterable[Track]
    ) -> tuple[Iterator[Bundle], dict[str, str]]:
        """Everything in `room`, each file in exactly one bundle; and why some files could not be read.

        Each bundle is made when it is asked for: of very many only a part is.

        Raises
        ------
        Stopped
            After `stop`.
        """
        faults: dict[str, str] = {}
        of_empty: dict[str, Any] = {}
        cut = len(room) + 1
        here = {track.drop.path[cut:]: track for track in tracks}
        sizes = {path: track.drop.fingerprint.size_bytes for path, track in here.items()}

        def look_into(path: str, function: Callable[[Probe], T]) -> T:
            if self._stopped:
                raise Stopped
            track = here[path]
            if not sizes[path]:
                # Of very many empty files none needs to be opened, or remembered.
                name = function.__qualname__
                if name not in of_empty:
                    of_empty[name] = look.of_nothing(function)
                empty: T = of_empty[name]
                return empty
            with aside.fence("claim", track.drop.path, clears=False) as fenced:
                return self._look(track, function)
            faults[track.drop.path] = fenced.why
            return look.of_nothing(function)

        groups = companions.groups(sizes, look_into)
        return (_bundle(room, group, here) for group in groups), faults

    def forget(self, user: str, present: set[str]) -> None:
        """Forget what was seen of files of `user` that are no longer there."""
        seen = self._seen.get(user, {})
        # Another thread may be reading meanwhile.
        for path in [path for path in list(seen) if path not in present]:
            seen.pop(path, None)
        if not seen:
            self._seen.pop(user, None)

    def is_an_image(self, track: Track) -> bool:
        """Whether a format claims the file of `track`."""
        return self._look(track, _looks_like_an_image)

    def _look(self, track: Track, function: Callable[[Probe], T]) -> T:
        of_user = self._seen.setdefault(track.drop.user, {})
        seen, results = of_user.get(track.drop.path, (None, {}))
        if seen != track.drop.fingerprint:
            results = {}
            of_user[track.drop.path] = (track.drop.fingerprint, results)
        name = function.__qualname__
        if name not in results:
            results[name] = self._opened(track.drop.path, function)
        found: T = results[name]
        return found

    def _opened(self, path: str, function: Callable[[Probe], T]) -> T:
        folder, name = os.path.split(path)
        try:
            with durable.beneath(self._inbox, folder) as at:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=at)
        except OSError:
            # The claim will meet the same fault, and report it.
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            probe = Probe(descriptor, name=name)
            return look.safely(function, probe, lambda: look.of_nothing(function))
        finally:
            os.close(descriptor)


def _bundle(room: str, group: Group, here: Mapping[str, Track]) -> Bundle:
    inside = tuple(here[path] for path in (*group.members, *group.sidecars))
    top, slash, _ = group.head.partition("/")
    # A set's own folder at the top of an inbox is not a dropped folder.
    own = group.folder is not None and "/" not in group.folder and not slash
    loose = not slash or own or (group.folder is not None and "/" not in group.folder)
    folder = None if loose else f"{room}/{top}"
    return Bundle(group=group, room=room, tracks=inside, folder=folder)


def _looks_like_an_image(probe: Probe) -> bool:
    """Whether a format claims it, or would claim it if it were whole."""
    absent = completeness.missing(probe.descriptor, probe.size_bytes)
    return absent is not None or formats.is_an_image(probe)
