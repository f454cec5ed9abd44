"""The inboxes as the daemon sees them: scan, settle and claim, put together.

The scan loop only looks; claims run in threads of their own, for an fsync of 40 GB takes its time.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from cytowatch import durable, formats, manifest, names
from cytowatch.config import Config, Inbox
from cytowatch.formats import Probe, completeness
from cytowatch.inbox import claim, scan
from cytowatch.inbox.claim import Member, Parcel
from cytowatch.inbox.gather import Bundle, Gatherer
from cytowatch.inbox.scan import Drop, Waiting
from cytowatch.inbox.settle import Settler, Track
from cytowatch.inbox.turns import Turns
from cytowatch.manifest import Manifest, SkippedEntry
from cytowatch.names import UploadedFileId
from cytowatch.pauses import Pauses
from cytowatch.spool import Spool
from cytowatch.status import Status

__all__ = ["Claimed", "DroppedFolders", "Intake"]

#: The least time between two scans of one inbox, as a multiple of what the last one took.
_SCAN_SHARE = 5.0
_CLAIMS_AT_A_TIME = 5
_CLAIMS_OF_ONE = 4
#: So many claims of a user may wait for their turn at least; when there is room for more is looked
#: again after so long.
_LEAST_UNDER_WAY = 1000
_LOOK_FOR_ROOM_S = 1.0
#: What cannot be claimed because of how the machine is set up is tried again so much later.
_LOOK_AGAIN_S = 60.0
#: An event comes within a moment, or not at all.
_EVENT_LATENCY_NS = 250_000_000
#: Two changes within a tick of the filesystem's clock have one time; the coarsest has two seconds.
_CLOCK_TICK_NS = 3_000_000_000
_PAUSED = Waiting(why="paused", detail="the administrator has paused it; it is taken later")
_LOOK_FOR_RESUME_S = 0.5
#: What somebody has to mend; it is tried again, and `idle` does not wait for it.
_HOPELESS = frozenset({"other_filesystem", "not_permitted"})
#: So many drops that wait are told one by one; the metrics count them all.
_MOST_TOLD = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Something that has become an uploaded file."""

    id: UploadedFileId
    user: str
    name: str
    size_bytes: int
    settled_s: float


class DroppedFolders(Protocol):
    """Who keeps the uploaded files that stand for dropped folders."""

    @property
    def open(self) -> list[str]:
        """The folders that are open."""

    def is_open(self, folder: str) -> bool:
        """Whether `folder` is."""

    def parent(self, folder: str, user: str, project: str | None) -> Manifest:
        """The manifest of the one of `folder`."""

    def claimed(self, folder: str, children: list[str]) -> None:
        """Note what was claimed out of `folder`."""

    def adopt(self, child: Manifest) -> None:
        """Note what came out of a folder, and was taken up again after a fault."""

    def note(self) -> None:
        """Write down what was claimed, where it is time."""

    def finish(self, folder: str, skipped: list[SkippedEntry]) -> None:
        """Nothing more comes."""


@dataclass(slots=True, kw_only=True)
class _Running:
    """A claim that is under way, or has ended with an outcome."""

    bundle: Bundle
    parcel: Parcel
    quiet_for_s: float
    overdue: bool
    outcome: UploadedFileId | Waiting | BaseException | None = None


class Intake:
    """Guards what is known of the inboxes; used by the main thread alone, save `hint`.

    Parameters
    ----------
    make_id
        Makes an id from the time and a name.
    wake
        Called from other threads when there is something for the main loop.
    """

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        now: Callable[[], datetime],
        make_id: Callable[[datetime, str], UploadedFileId],
        software: dict[str, str],
        folders: DroppedFolders,
        wake: Callable[[], None],
    ) -> None:
        self._spool = spool
        #: As text: a thousand inboxes are a thousand paths in every scan.
        self._inbox = os.fspath(spool.inbox)
        self._config = config
        self._now = now
        self._make_id = make_id
        self._software = software
        self._folders = folders
        self._wake = wake
        #: What holds for each user that was asked for.
        self._own: dict[str, Inbox] = {}
        self._settler = Settler(
            quiet_s=config.inbox.quiet_s,
            incomplete_after_s=config.inbox.incomplete_after_s,
            own=self._times,
        )
        self._gatherer = Gatherer(spool.inbox)
        self._hints: set[str] = set()
        self._empty: dict[str, tuple[int, int, int]] = {}
        self._not_before: dict[str, float] = {}
        self._leases = durable.is_local(spool.inbox)
        self._device = os.stat(spool.root).st_dev
        self._turns = Turns(self._claim, threads=_CLAIMS_AT_A_TIME, of_one=_CLAIMS_OF_ONE)
        #: How many claims are under way, by user; those that have ended.
        self._under_way: Counter[str] = Counter()
        self._ended: deque[_Running] = deque()
        #: When something happened last in a folder that is open.
        self._active: dict[str, float] = {}
        self._markers: dict[str, Drop] = {}
        self._to_mend = False
        #: What a fault left in ``state/tmp`` and could not be put right yet, by id: why.
        self.kept: dict[str, str] = {}

    def reconfigure(self, config: Config) -> None:
        """Go on with other times, names and markers."""
        self._config = config
        self._own.clear()
        now = time.monotonic()
        for track in self._settler.tracks:
            waits = track.waiting is not None and track.waiting.why == "done_marker"
            if waits and not self._of(track.drop.user).done_marker:
                self._settler.unmarked(track, now)
        # Where a marker is wanted now, the next look finds what has none.
        self._hints |= self._settler.users - {""}

    def _of(self, user: str) -> Inbox:
        """What holds for `user`."""
        if user not in self._own:
            self._own[user] = self._config.inbox.of(user)
        return self._own[user]

    def _times(self, user: str) -> tuple[float, float]:
        own = self._of(user)
        return own.quiet_s, own.incomplete_after_s

    def hint(self, user: str) -> None:
        """Something happened in the inbox of `user`. Any thread may say so."""
        self._hints.add(user)
        self._wake()

    def scan_all(self, now: float, *, events_lost: bool = False) -> int:
        """Look at every inbox; tells how many drops no event had told of.

        The event of what has only just come may still be under way, unless `events_lost`.
        """
        found = 0
        young_ns = 0 if events_lost else time.time_ns() - _EVENT_LATENCY_NS
        self._to_mend |= bool(self.kept)
        hinted = set(self._hints)
        present = set()
        for drop, waiting in scan.stray(self._spool.inbox, self._config.inbox.ignore):
            self._settler.see(drop, waiting, now)
            present.add(drop.path)
        self._settler.forget_missing("", present)
        users = scan.users(self._spool.inbox)
        for user in users:
            if self._is_empty_still(user):
                continue
            new = self._scan(user, now)
            self._note_if_empty(user)
            found += 0 if user in hinted else sum(at <= young_ns or events_lost for at in new)
        for user in self._settler.users - {*users, ""}:
            self._settler.forget_missing(user, set())
        self._gatherer.forget(track.drop.path for track in self._settler.tracks)
        return found

    def _is_empty_still(self, user: str) -> bool:
        """Whether nothing was in this inbox, and nothing was put into it since."""
        noted = self._empty.get(user)
        try:
            return noted is not None and noted == _identity(f"{self._inbox}/{user}")
        except OSError:
            return False

    def _note_if_empty(self, user: str) -> None:
        """Note the time of an inbox with nothing in it, if that time cannot come a second time."""
        self._empty.pop(user, None)
        path = self._spool.inbox / user
        # Where other machines write, the times of a folder are as late as their news.
        if not self._leases or self._settler.of_user(user):
            return
        with suppress(OSError):
            seen = _identity(path)
            old_enough = time.time_ns() - seen[2] > _CLOCK_TICK_NS
            if old_enough and not os.listdir(path) and seen == _identity(path):
                self._empty[user] = seen

    def scan_hinted(self, now: float) -> float | None:
        """Look at the inboxes that events named; gives when one that was put off is due."""
        later: float | None = None
        for user in list(self._hints):
            earliest = self._not_before.get(user, 0.0)
            if earliest > now:
                later = earliest if later is None else min(later, earliest)
                continue
            self._hints.discard(user)
            if (self._spool.inbox / user).is_dir():
                self._scan(user, now)
        return later

    def _scan(self, user: str, now: float) -> list[int]:
        """Look at one inbox; gives the times (ns) of the drops that were unknown."""
        began = time.monotonic()
        present: set[str] = set()
        markers: dict[str, Drop] = {}
        new: list[int] = []
        ending = self._of(user).done_marker
        try:
            ignore = self._config.inbox.ignore
            for drop, waiting in scan.scan(self._spool.inbox, user, ignore, device=self._device):
                if ending and drop.name.endswith(ending) and drop.name != ending:
                    markers[drop.path.removesuffix(ending)] = drop
                    continue
                present.add(drop.path)
                if self._settler.see(drop, waiting, now):
                    new.append(drop.fingerprint.ctime_ns)
        except FileNotFoundError:
            # The inbox went away under the scan: what was in it is not "deleted" until it is back.
            return new
        self._settler.forget_missing(user, present)
        if ending:
            self._mark(user, markers, now)
        self._not_before[user] = now + _SCAN_SHARE * (time.monotonic() - began)
        return new

    def _mark(self, user: str, markers: dict[str, Drop], now: float) -> None:
        """Let what its copier has called done be due at once, and nothing else ever."""
        old = {path: drop for path, drop in self._markers.items() if drop.user != user}
        self._markers = {**old, **markers}
        for track in self._settler.of_user(user):
            if track.claiming or not track.claimable:
                continue
            if self._marker_of(track.drop.path) is None:
                wanted = f"{track.drop.name}{self._of(user).done_marker}"
                why = Waiting(why="done_marker", detail=f"waiting for {wanted}")
                self._settler.stuck(track, why)
                track.claimable = True
            elif track.due_at is None:
                track.due_at = now

    def _marker_of(self, path: str) -> Drop | None:
        """The marker of the file at `path`, or of a folder that it lies in."""
        while "/" in path:
            if path in self._markers:
                return self._markers[path]
            path = path.rpartition("/")[0]
        return None

    def claim_due(self, now: float, pauses: Pauses) -> None:
        """Begin to claim what has been quiet long enough, after one more look at it."""
        if self._to_mend:
            # Nothing new while what a fault left half-done waits to be put right.
            return
        due = [track for track in self._settler.due(now) if track.drop.user]
        for track in due:
            if pauses.covers(track.drop.user):
                self._settler.busy(track, _PAUSED, now, quiet_s=_LOOK_FOR_RESUME_S)
        rooms = {
            (track.drop.room, track.drop.user)
            for track in due
            if not pauses.covers(track.drop.user)
        }
        for room, user in sorted(rooms):
            here = [
                track
                for track in self._settler.of_user(user)
                if track.claimable and not track.claiming and track.drop.room == room
            ]
            self._claim_in(room, user, here, now)
        self._finish_folders(now)

    def _claim_in(self, room: str, user: str, here: list[Track], now: float) -> None:
        """Begin to claim what is due in one room: of very many a part, for each takes memory."""
        began = time.monotonic()
        most = max(_LEAST_UNDER_WAY, len(here) // 10)
        later: list[Track] = []
        for bundle in self._gatherer.bundles(room, here):
            if all(track.due_at is None or track.due_at > now for track in bundle.tracks):
                continue
            if self._under_way[user] < most:
                self._claim_if_ready(bundle, now)
            else:
                later += bundle.tracks
        pause_s = max(_LOOK_FOR_ROOM_S, _SCAN_SHARE * (time.monotonic() - began))
        for track in later:
            track.due_at = now + pause_s

    def _claim_if_ready(self, bundle: Bundle, now: float) -> None:
        for track in bundle.tracks:
            track.part_of = bundle.head.drop.path if track is not bundle.head else None
        marker = self._marker_for(bundle)
        own = self._of(bundle.head.drop.user)
        if own.done_marker and marker is None:
            return
        # The levels of a DICOM slide say nothing of each other: only time tells that all are there.
        quiet_s = own.folder_quiet_s if bundle.group.kind == "dicom" else 0.0
        ready_at = max(self._settler.ready_at(track, quiet_s=quiet_s) for track in bundle.tracks)
        if ready_at > now and marker is None:
            for track in bundle.tracks:
                self._settler.until(track, ready_at)
            return
        late = self._settler.is_late(bundle.changed_at, now, bundle.head.drop.user)
        if bundle.group.missing is not None and not late and marker is None:
            detail = f"missing {bundle.group.missing}"
            for track in bundle.tracks:
                self._settler.lacking(
                    track,
                    Waiting(why="incomplete", detail=detail),
                    changed_at=bundle.changed_at,
                )
            return
        if self._is_as_seen(bundle, now):
            self._begin(bundle, marker, now, overdue=late or marker is not None)

    def _is_as_seen(self, bundle: Bundle, now: float) -> bool:
        """One more look: whether nothing has changed since the scan."""
        same = True
        for track in bundle.tracks:
            try:
                found = os.stat(self._spool.inbox / track.drop.path, follow_symlinks=False)
            except OSError:
                self._settler.claimed(track)
                same = False
                continue
            drop = replace(track.drop, fingerprint=scan.fingerprint(found))
            if drop.fingerprint != track.drop.fingerprint:
                self._settler.see(drop, None, now)
                same = False
        return same

    def _marker_for(self, bundle: Bundle) -> Drop | None:
        folder = bundle.group.folder
        own = f"{bundle.room}/{folder}" if folder else bundle.head.drop.path
        return self._marker_of(bundle.head.drop.path) or self._marker_of(own)

    def _begin(self, bundle: Bundle, marker: Drop | None, now: float, *, overdue: bool) -> None:
        places = bundle.places()
        sidecars = {f"{bundle.room}/{path}" for path in bundle.group.sidecars}
        members = tuple(
            Member(
                drop=track.drop,
                to=f"source/{places[track.drop.path]}",
                role="sidecar" if track.drop.path in sidecars else "source",
            )
            for track in bundle.tracks
        )
        parent = None
        if bundle.folder is not None and self._may_be_an_image(bundle):
            head = bundle.head.drop
            try:
                parent = self._folders.parent(bundle.folder, head.user, head.project)
            except OSError as error:
                self._to_mend = True
                self._put_off(bundle, _fault(error), now)
                return
            self._active[bundle.folder] = now
        folder = bundle.group.folder
        own = bundle.folder is None or bundle.head.drop.path in self._markers
        parcel = Parcel(
            members=members,
            folder=f"{bundle.room}/{folder}" if folder else None,
            # The marker of a dropped folder stays until the folder is finished.
            marker=marker if own else None,
            parent=parent,
            images_only=bundle.folder is not None,
        )
        quiet_for_s = float("inf") if marker is not None else now - bundle.changed_at
        for track in bundle.tracks:
            track.claiming = True
        user = bundle.head.drop.user
        self._under_way[user] += 1
        self._turns.put(
            user,
            _Running(bundle=bundle, parcel=parcel, quiet_for_s=quiet_for_s, overdue=overdue),
        )

    def _claim(self, running: _Running) -> None:
        """In a thread of `Turns`."""
        try:
            running.outcome = claim.claim(
                self._spool,
                running.parcel,
                config=self._config,
                now=self._now(),
                make_id=self._make_id,
                software=self._software,
                quiet_for_s=running.quiet_for_s,
                overdue=running.overdue,
                leases=self._leases,
            )
        except BaseException as error:  # noqa: BLE001 - `collect` raises it where it is heard
            running.outcome = error
        self._ended.append(running)
        self._wake()

    def _may_be_an_image(self, bundle: Bundle) -> bool:
        """Whether a format claims its head: what else lies in a dropped folder stays there.

        In a folder that is open already its claim finds that out, in a thread of its own.
        """
        if bundle.group.kind is not None or self._folders.is_open(bundle.folder or ""):
            return True
        return self._gatherer.look_at(bundle.head, _looks_like_an_image)

    def collect(self, now: float) -> list[Claimed]:
        """What the claims that ended since have brought."""
        claimed: list[Claimed] = []
        children: dict[str, list[str]] = {}
        while self._ended:
            running = self._ended.popleft()
            bundle = running.bundle
            self._under_way[bundle.head.drop.user] -= 1
            result = running.outcome
            if isinstance(result, OSError):
                self._to_mend = True
                result = _fault(result)
            if isinstance(result, BaseException) or result is None:
                raise result or RuntimeError("a claim without an outcome")
            if isinstance(result, Waiting):
                self._put_off(bundle, result, now)
                continue
            for track in bundle.tracks:
                self._settler.claimed(track)
            if bundle.folder is not None:
                children.setdefault(bundle.folder, []).append(result)
                self._active[bundle.folder] = now
            claimed.append(
                Claimed(
                    id=result,
                    user=bundle.head.drop.user,
                    name=bundle.head.drop.name,
                    size_bytes=running.parcel.size_bytes,
                    settled_s=now - bundle.changed_at,
                )
            )
        for folder, ids in children.items():
            self._folders.claimed(folder, ids)
        return claimed

    def mend(self) -> list[Claimed]:
        """Finish or undo what a fault of the machine has left of claims; gives the finished ones."""
        if not self._to_mend or self._under_way.total():
            return []
        self._to_mend = False
        outcomes = claim.recover(self._spool)
        self.kept = {id_: said for id_, said in outcomes.items() if said.startswith("kept")}
        finished = []
        for id_, said in outcomes.items():
            if said != "finished":
                continue
            found = manifest.read(self._spool.stage(Status.UPLOADED) / id_)
            self._folders.adopt(found)
            finished.append(
                Claimed(
                    id=UploadedFileId(id_),
                    user=found["user"],
                    name=found["name"],
                    size_bytes=found["size_bytes"],
                    settled_s=0.0,
                )
            )
        return finished

    def _put_off(self, bundle: Bundle, waiting: Waiting, now: float) -> None:
        for track in bundle.tracks:
            match waiting.why:
                case "incomplete":
                    self._settler.lacking(track, waiting, changed_at=bundle.changed_at)
                case "no_lease":
                    fallback_s = self._of(track.drop.user).fallback_quiet_s
                    left = fallback_s - (now - bundle.changed_at)
                    self._settler.busy(track, waiting, now, quiet_s=max(0.05, left))
                case "settling":
                    track.changed_at = now
                    self._settler.busy(track, waiting, now)
                case "other_filesystem":
                    self._settler.busy(track, waiting, now, quiet_s=_LOOK_AGAIN_S)
                case "unreadable" | "not_an_image":
                    self._settler.stuck(track, waiting)
                case _:
                    self._settler.busy(track, waiting, now)

    def _finish_folders(self, now: float) -> None:
        """Close the folders in which nothing has come, and nothing waits, for `folder_quiet_s`."""
        self._folders.note()
        for folder, at in self._finish_times(now).items():
            if now >= at:
                marker = self._markers.pop(folder, None)
                self._folders.finish(folder, self._left_in(folder))
                self._active.pop(folder, None)
                if marker is not None:
                    (self._spool.inbox / marker.path).unlink(missing_ok=True)

    def _finish_times(self, now: float) -> dict[str, float]:
        """When each folder that is open may be finished, save those in which something can be claimed."""
        newest = {folder: self._active.setdefault(folder, now) for folder in self._folders.open}
        busy = set()
        # All in one pass: a folder may hold a hundred thousand files.
        for track in self._settler.tracks if newest else ():
            parts = track.drop.path.split("/", 3)
            for folder in ("/".join(parts[:2]), "/".join(parts[:3])):
                if folder in newest and folder not in busy and folder != track.drop.path:
                    newest[folder] = max(newest[folder], track.changed_at)
                    if track.claiming or track.due_at is not None or self._lacks_marker(track):
                        busy.add(folder)
        return {
            folder: self._active[folder]
            if folder in self._markers
            else at + self._of(folder.split("/", 1)[0]).folder_quiet_s
            for folder, at in newest.items()
            if folder not in busy
        }

    def _lacks_marker(self, track: Track) -> bool:
        """Whether it is an image that its scanner has not yet said to be done."""
        waits = track.waiting is not None and track.waiting.why == "done_marker"
        return waits and self._gatherer.look_at(track, _looks_like_an_image)

    def _left_in(self, folder: str) -> list[SkippedEntry]:
        cut = len(folder) + 1
        return [
            SkippedEntry(
                name=names.printable(names.decode(os.fsencode(track.drop.path[cut:]))[0]),
                reason=f"{track.waiting.why}: {track.waiting.detail}" if track.waiting else "",
            )
            for track in self._settler.tracks
            if track.drop.path.startswith(f"{folder}/")
        ]

    def next_due(self) -> float | None:
        """When a drop has been quiet long enough next, or a folder may be finished."""
        now = time.monotonic()
        times = [self._settler.next_due(), *self._finish_times(now).values()]
        return min((one for one in times if one is not None), default=None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies in the inboxes."""
        return next(iter(self._settler.tracks), None) is None

    def idle(self, now: float, *, patience_s: float) -> bool:
        """Whether nothing here can still be claimed without a new write.

        What lacks something counts as hopeless unless its time is up within `patience_s`.
        """
        return (
            not self._under_way.total()
            and not self._to_mend
            and not self._finish_times(now)
            and not any(
                track.due_at is not None
                and track.waiting is not _PAUSED
                and not (track.waiting and track.waiting.why in _HOPELESS)
                and (not track.incomplete or track.due_at - now < patience_s)
                for track in self._settler.tracks
            )
        )

    def waiting_counts(self, now: float) -> tuple[Counter[str], dict[str, float], int]:
        """How many drops wait and the oldest for how many seconds, by reason; all their bytes."""
        tracks = list(self._settler.tracks)
        heads = [track for track in tracks if track.waiting and track.part_of is None]
        counts = Counter(track.waiting.why for track in heads if track.waiting)
        oldest: dict[str, float] = {}
        for track in heads:
            if track.waiting:
                waited_s = now - track.first_seen
                oldest[track.waiting.why] = max(waited_s, oldest.get(track.waiting.why, 0.0))
        return counts, oldest, sum(track.drop.fingerprint.size_bytes for track in tracks)

    def waiting(self, now: float) -> list[dict[str, Any]]:
        """What lies in the inboxes longest, why, and since when, ready for JSON."""
        heads = [track for track in self._settler.tracks if track.part_of is None]
        longest = sorted(heads, key=lambda track: track.first_seen)
        wall = self._now()
        return [
            {
                "user": track.drop.user,
                "path": names.decode(os.fsencode(track.drop.path))[0],
                "why": track.waiting.why if track.waiting else "settling",
                "detail": track.waiting.detail if track.waiting else "",
                "size_bytes": track.drop.fingerprint.size_bytes,
                "since": manifest.utc(
                    (wall - timedelta(seconds=now - track.first_seen)).replace(microsecond=0)
                ),
            }
            for track in longest[:_MOST_TOLD]
        ]

    def stop(self) -> None:
        """Let the claims that run come to their end; no new one begins."""
        self._turns.stop()


def _identity(path: str | Path) -> tuple[int, int, int]:
    """(device, inode, time of the last change in ns) of a folder; nobody can set that time."""
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _fault(error: OSError) -> Waiting:
    if error.errno == errno.EXDEV:
        # The same filesystem, mounted once more: only the rename finds that out.
        said = "it is on another mount than the root, and a slide is renamed, never copied"
        return Waiting(why="other_filesystem", detail=said)
    if error.errno in (errno.EACCES, errno.EPERM):
        said = (
            f"it cannot be moved ({error.strerror}): it and the folder that it lies in must "
            "belong to the user of cytowatch, and be writable"
        )
        return Waiting(why="not_permitted", detail=said)
    return Waiting(why=durable.why_of(error), detail=f"{error.strerror or error}")


def _looks_like_an_image(probe: Probe) -> bool:
    """Whether a format claims it, or would if it were whole."""
    lacking = completeness.missing(probe.descriptor, probe.size_bytes)
    return lacking is not None or bool(formats.matching(probe))
