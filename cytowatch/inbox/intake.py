"""The inboxes as the daemon sees them: scan, settle and claim, put together.

The main loop only looks, a moment at a time for each user; which files belong together is found out, and
claims are made, in threads of their own, since an fsync of 40 GB takes its time.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from cytowatch import aside, durable, formats
from cytowatch.config import Config, Inbox
from cytowatch.formats import Probe
from cytowatch.formats.completeness import whole as completeness
from cytowatch.inbox import claim, scan, waits
from cytowatch.inbox.claim import Member, Parcel
from cytowatch.inbox.dropped import Dropped, DroppedFolders
from cytowatch.inbox.gather import Bundle, Gatherer
from cytowatch.inbox.markers import Markers
from cytowatch.inbox.rooms import Room, Rooms
from cytowatch.inbox.settle import Settler, Track
from cytowatch.inbox.sweep import Sweep
from cytowatch.inbox.turns import Turns
from cytowatch.record import drop as drop_module
from cytowatch.record import lacking, manifest
from cytowatch.record.drop import Drop, Waiting
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.pauses import Pauses
from cytowatch.tree.spool import Spool

__all__ = ["Claimed", "DroppedFolders", "Intake"]

_CLAIMS_AT_A_TIME = 5
_CLAIMS_OF_ONE = 4
#: So many that were claimed are taken up in one turn of the main loop.
_ENDED_AT_A_TIME = 40
#: What cannot be claimed because of how the machine is set up is tried again so much later.
_LOOK_AGAIN_S = 60.0
#: The least time between two counts of what waits, as a multiple of what the last one took.
_COUNT_SHARE = 20.0
_PAUSED = Waiting(why="paused", detail="the administrator has paused it; it is taken later")
_LOOK_FOR_RESUME_S = 0.5
_LOOK_FOR_ROOM_S = 1.0
#: What was set aside is tried again after this time at the earliest.
_SOON_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Something that has become an uploaded file."""

    id: UploadedFileId
    user: str
    name: str
    size_bytes: int
    settled_s: float


@dataclass(slots=True, kw_only=True, eq=False)
class _Running:
    """A claim that is under way, or has ended with an outcome."""

    bundle: Bundle
    parcel: Parcel
    quiet_for_s: float
    overdue: bool
    outcome: UploadedFileId | Waiting | BaseException | None = None


class Intake:
    """Guards what is known of the inboxes; used by the main thread only, save `hint`.

    Parameters
    ----------
    make_id
        Makes an id from the time and a name.
    wake
        Called from other threads when there is something for the main loop.
    images_of
        The ids of the images of a user that were dropped by themselves under a name.

    Memory bound
    ------------
    One `Track` per file in the inboxes, and nothing of its content. Bundles are put together room by room
    and dropped when they are claimed or put off. The
    settler upholds the first by forgetting what a whole scan no longer finds. Without it a share that is
    filled and emptied again and again would let the daemon grow without end.
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
        images_of: Callable[[str, str], Sequence[str]] = lambda _user, _name: (),
    ) -> None:
        self._spool = spool
        self._images_of = images_of
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
        self._leases = durable.is_local(spool.inbox)
        self._markers = Markers()
        self._gatherer = Gatherer(spool.inbox)
        self._sweep = Sweep(
            spool.inbox, self._settler, self._markers, settings=self._of,
            device=os.stat(spool.root).st_dev, local=self._leases, looked=self._gatherer.forget,
        )  # fmt: skip
        self._rooms = Rooms(self._settler, self._gatherer, wake)
        self._dropped = Dropped(
            spool.inbox, self._settler, self._markers, folders, trash=spool.trash,
            is_an_image=lambda track: self._gatherer.look_at(track, _looks_like_an_image),
        )  # fmt: skip
        self._turns = Turns(
            self._claim, failed=self._not_claimed, threads=_CLAIMS_AT_A_TIME, of_one=_CLAIMS_OF_ONE
        )
        #: How many claims are under way, by user; those that have ended.
        self._under_way: Counter[str] = Counter()
        self._ended: deque[_Running] = deque()
        #: Those that could not be taken up, and children that their folders do not know of so far.
        self._again: list[_Running] = []
        self._children: dict[str, list[str]] = {}
        self._to_mend = False
        self._counts: tuple[Counter[str], dict[str, float], int] = (Counter(), {}, 0)
        self._count_at = float("-inf")
        #: What a fault left in ``state/tmp`` and could not be put right yet, by id: why.
        self.kept: dict[str, str] = {}

    def reconfigure(self, config: Config) -> None:
        """Go on with other times, names and markers."""
        self._config = config
        self._own.clear()
        now = time.monotonic()
        for track in self._settler.tracks:
            waiting = track.waiting is not None and track.waiting.why == "done_marker"
            if waiting and not self._of(track.drop.user).done_marker:
                self._settler.unmarked(track, now)
        # Where a marker is wanted now, the next look finds what has none.
        for user in self._settler.users - {""}:
            self._sweep.hint(user)

    def _of(self, user: str) -> Inbox:
        """What holds for `user`."""
        if user not in self._own:
            self._own[user] = self._config.inbox.of(user)
        return self._own[user]

    def _times(self, user: str) -> tuple[float, float]:
        own = self._of(user)
        return own.quiet_s, own.incomplete_after_s

    def _folder_quiet_s(self, folder: str) -> float:
        return self._of(folder.split("/", 1)[0]).folder_quiet_s

    def hint(self, user: str) -> None:
        """Something happened in the inbox of `user`. Any thread may say so."""
        self._sweep.hint(user)
        self._wake()

    def scan_all(self, now: float, *, events_lost: bool = False, whole: bool = False) -> None:
        """Begin to look at every inbox; `scan_some` goes on with it. With `whole` all is looked at now.

        Raises
        ------
        OSError
            The folder of the inboxes cannot be read.
        """
        self._to_mend |= bool(self.kept)
        self._sweep.begin(now, events_lost=events_lost)
        self._sweep.go_on(now, whole=whole)
        for where in ("drop", "claim"):
            there = [one.which for one in aside.all_of(where) if self._settler.knows(one.which)]
            aside.keep_only(where, [*there, *self.kept])

    def scan_some(self, now: float) -> float | None:
        """Look on, also at what events named; gives when there is more to look at."""
        return self._sweep.go_on(now)

    def seen(self) -> tuple[int, bool]:
        """How many drops no event announced, and whether all inboxes were looked at, since asked last."""
        return self._sweep.seen()

    def claim_due(self, now: float, pauses: Pauses) -> None:
        """Begin to claim what has been quiet long enough, after one more look at it."""
        if self._to_mend:
            # Nothing new while what a fault left half-done waits to be put right.
            return
        due: list[Track] = []
        paused = {user: pauses.covers(user) for user in self._settler.users}
        for track in self._settler.due(now):
            if paused[track.drop.user]:
                self._settler.busy(track, _PAUSED, now, quiet_s=_LOOK_FOR_RESUME_S)
            elif track.drop.user:
                due.append(track)
        # Half of what belongs together may be in the part of an inbox that has not been looked at.
        self._rooms.begin(now, due, skip=self._sweep.looks_at)
        self._rooms.take_up(
            lambda room, bundle: self._take_up(room, bundle, now),
            lambda room: self._put_room_aside(room, now),
        )
        for folder in self._children:
            # It is not finished without them.
            self._dropped.happened(folder, now)
        self._dropped.finish_some(now, self._folder_quiet_s)

    def hold(self, now: float, lacks: str) -> None:
        """Begin nothing, because the disk `lacks` something: what is quiet waits for that."""
        said = f"{lacks}: nothing new is begun; it is taken when there is room"
        waiting = Waiting(why="disk", detail=said)
        for track in self._settler.due(now):
            if track.drop.user:
                self._settler.busy(track, waiting, now, quiet_s=_LOOK_FOR_ROOM_S)

    def _take_up(self, room: Room, bundle: Bundle, now: float) -> bool:
        """Claim `bundle`, if it is ready; says whether more may be claimed for its user."""
        # Of very many a part, for each takes memory.
        if self._under_way[room.user] >= room.most:
            return False
        if any(track.claiming for track in bundle.tracks):
            return True
        why = next(
            (room.faults[t.drop.path] for t in bundle.tracks if t.drop.path in room.faults), None
        )
        with aside.fence("claim", bundle.head.drop.path, clears=False) as fenced:
            if why is None:
                self._claim_if_ready(bundle, now)
        if fenced.failed or why is not None:
            self._put_aside(bundle.tracks, fenced.why or why or "", now, fenced.next_at)
        return True

    def _put_aside(
        self, tracks: tuple[Track, ...], why: str, now: float, next_at: float = 0.0
    ) -> None:
        """Let `tracks` wait until they are tried again."""
        for track in tracks:
            self._settler.busy(track, scan.set_aside(why), now, quiet_s=max(next_at - now, _SOON_S))

    def _put_room_aside(self, room: Room, now: float) -> None:
        tracks = [t for t in self._settler.of_user(room.user) if t.drop.path in room.due]
        self._put_aside(tuple(tracks), room.why or "", now, room.retry_at)

    def _claim_if_ready(self, bundle: Bundle, now: float) -> None:
        for track in bundle.tracks:
            track.part_of = bundle.head.drop.path if track is not bundle.head else None
        marker = self._marker_for(bundle)
        own = self._of(bundle.head.drop.user)
        if own.done_marker and marker is None:
            return
        # Nothing says that all files of such a set are there: only time tells.
        quiet_s = own.folder_quiet_s if bundle.group.is_open_ended else 0.0
        ready_at = max(self._settler.ready_at(track, quiet_s=quiet_s) for track in bundle.tracks)
        if ready_at > now and marker is None:
            for track in bundle.tracks:
                self._settler.until(track, ready_at)
            return
        late = self._settler.is_late(bundle.changed_at, now, bundle.head.drop.user)
        if bundle.group.missing is not None and not late and marker is None:
            parts = bundle.group.parts
            whole = lacking.layout(parts) if parts else ""
            came = "".join(f"; {one}" for one in self._came_before(bundle))
            detail = f"missing {bundle.group.missing}{came}{whole}"
            for track in bundle.tracks:
                self._settler.lacking(
                    track,
                    Waiting(why="incomplete", detail=detail),
                    changed_at=bundle.changed_at,
                )
            return
        if self._is_as_seen(bundle, now):
            self._begin(bundle, marker, now, overdue=late or marker is not None)

    def _came_before(self, bundle: Bundle) -> tuple[str, ...]:
        """What is to be said of a missing file that arrived without the others, and was taken for an image of its own."""
        name = bundle.group.missing
        before = self._images_of(bundle.head.drop.user, name) if name and "/" not in name else []
        return tuple(
            f"{name} arrived earlier without the others, and was taken for an image of its own: {id_}. Drop all files of the "
            "slide once more, together"
            for id_ in before[:1]
        )

    def _is_as_seen(self, bundle: Bundle, now: float) -> bool:
        """One more look: whether nothing has changed since the scan."""
        same = True
        for track in bundle.tracks:
            try:
                found = os.stat(self._spool.inbox / track.drop.path, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                self._settler.claimed(track)
                same = False
                continue
            except OSError as error:
                why = Waiting(why="unreadable", detail=f"it cannot be looked at ({error.strerror})")
                self._settler.busy(track, why, now, quiet_s=_LOOK_AGAIN_S)
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

    def _begin(self, bundle: Bundle, marker: Drop | None, now: float, *, overdue: bool) -> None:
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
        parent = None
        dropped_in = None if self._goes_alone(bundle) else bundle.folder
        if dropped_in is not None and self._may_be_an_image(bundle):
            head = bundle.head.drop
            if not os.access(self._spool.inbox / os.path.dirname(head.path), os.W_OK | os.X_OK):
                # Or an uploaded file would stand for a folder out of which nothing can be taken.
                refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                self._put_off(bundle, waits.fault(refused), now)
                return
            try:
                parent = self._folders.parent(dropped_in, head.user, head.project)
            except OSError as error:
                self._to_mend = True
                self._put_off(bundle, waits.fault(error), now)
                return
            self._dropped.happened(dropped_in, now)
        folder = bundle.group.folder
        own = bundle.folder is None or bundle.head.drop.path in self._markers
        parcel = Parcel(
            members=members,
            warnings=(*self._came_before(bundle), *filter(None, [bundle.arrived_in_parts])),
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

    def _goes_alone(self, bundle: Bundle) -> bool:
        """Whether it could not be taken while its folder was open, and the folder is done with.

        An uploaded file that stands for the folder again would wait for nothing but it, at each try.
        """
        if bundle.folder is None or self._folders.is_open(bundle.folder):
            return False
        return self._dropped.was_left(bundle.head)

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

    def _not_claimed(self, running: _Running, why: str) -> None:
        """In a thread of `Turns`: its claim did not even begin, or could not say how it ended."""
        running.outcome = RuntimeError(why)
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
        again, self._again = self._again, []
        for running in again:
            ready = aside.may_try("claim", running.bundle.head.drop.path)
            (self._ended if ready else self._again).append(running)
        while self._ended and len(claimed) < _ENDED_AT_A_TIME:
            running = self._ended.popleft()
            bundle = running.bundle
            if running not in again:
                self._under_way[bundle.head.drop.user] -= 1
            with aside.fence("claim", bundle.head.drop.path) as fenced:
                done = self._ended_with(running, now)
                if done is not None:
                    claimed.append(done)
                    if bundle.folder is not None and running.parcel.parent is not None:
                        self._children.setdefault(bundle.folder, []).append(done.id)
                        self._dropped.happened(bundle.folder, now)
            if fenced.failed and isinstance(running.outcome, str):
                # It has left its inbox, and is only to be taken up.
                self._again.append(running)
            elif fenced.failed:
                # What it left half-done is put right, and then it is tried again.
                self._to_mend = True
                self._put_aside(bundle.tracks, fenced.why, now, fenced.next_at)
        self._name_children()
        return claimed

    def _name_children(self) -> None:
        """Let each dropped folder know what was claimed out of it."""
        for folder in list(self._children):
            if aside.may_try("folder", f"{folder}/"):
                with aside.fence("folder", f"{folder}/"):
                    self._folders.claimed(folder, self._children[folder])
                    del self._children[folder]

    def _ended_with(self, running: _Running, now: float) -> Claimed | None:
        """What a claim has brought; None where the drop stays where it is."""
        bundle, result = running.bundle, running.outcome
        if isinstance(result, OSError):
            self._to_mend = True
            result = waits.fault(result)
        if isinstance(result, BaseException) or result is None:
            raise result or RuntimeError("a claim without an outcome")
        if isinstance(result, Waiting):
            self._put_off(bundle, result, now)
            return None
        for track in bundle.tracks:
            self._settler.claimed(track)
        return Claimed(
            id=result,
            user=bundle.head.drop.user,
            name=bundle.head.drop.name,
            size_bytes=running.parcel.size_bytes,
            settled_s=now - bundle.changed_at,
        )

    def mend(self) -> list[Claimed]:
        """Finish or undo what a fault of the machine has left of claims; gives the finished ones."""
        if not self._to_mend or self._under_way.total():
            return []
        self._to_mend = False
        outcomes = claim.recover(self._spool, self._config.storage)
        self.kept = {id_: said for id_, said in outcomes.items() if said.startswith("kept")}
        finished = []
        for id_, said in outcomes.items():
            if said != "finished":
                continue
            with aside.fence("claim", id_):
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
                case "other_filesystem" | "unreadable":
                    self._settler.busy(track, waiting, now, quiet_s=_LOOK_AGAIN_S)
                case "not_permitted":
                    # Somebody must mend it: the longer it waits, the rarer it is tried.
                    pause_s = max(_SOON_S, (now - bundle.changed_at) / 10)
                    self._settler.busy(track, waiting, now, quiet_s=min(_LOOK_AGAIN_S, pause_s))
                case "not_an_image":
                    self._settler.stuck(track, waiting)
                case _:
                    self._settler.busy(track, waiting, now)

    def next_due(self) -> float | None:
        """When a drop has been quiet long enough next, or a folder may be finished."""
        more = time.monotonic() if self._rooms.has_more or self._ended else None
        times = [self._settler.next_due(), self._dropped.next_at(), more]
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
            and not (self._to_mend or self._again or self._children)
            and not self._sweep.under_way
            and not self._rooms.busy
            and not self._dropped.any_to_finish(now, self._folder_quiet_s)
            and not any(
                track.due_at is not None
                and track.waiting is not _PAUSED
                and not (track.waiting and track.waiting.why in waits.HOPELESS)
                and (not track.incomplete or track.due_at - now < patience_s)
                for track in self._settler.tracks
            )
        )

    def waiting_counts(self, now: float) -> tuple[Counter[str], dict[str, float], int]:
        """How many drops wait and the oldest for how many seconds, by reason; all their bytes."""
        if now >= self._count_at:
            began = time.monotonic()
            self._counts = waits.counts(self._settler, now, self._folders.is_open)
            self._count_at = now + _COUNT_SHARE * (time.monotonic() - began)
        return self._counts

    def waiting(self, now: float) -> list[dict[str, Any]]:
        """What lies in the inboxes longest, why, and since when, ready for JSON."""
        return waits.listed(self._settler, now, self._now(), self._folders.is_open)

    def left(self, now: float) -> list[dict[str, Any]]:
        """What people left lately in folders of which nothing more is taken, in rows like those."""
        wall = self._now()
        since = wall - timedelta(days=self._config.feedback.status_days)
        return waits.left(self._settler, now, wall, self._folders.is_open, since=since)

    def stop(self) -> None:
        """Finish the claims that run; no new one starts."""
        self._rooms.stop()
        self._turns.stop()


def _looks_like_an_image(probe: Probe) -> bool:
    """Whether a format claims it, or would if it were whole."""
    absent = completeness.missing(probe.descriptor, probe.size_bytes)
    return absent is not None or formats.is_an_image(probe)
