"""The claims that are under way, their outcomes, and what a fault left of them.

They run in threads of their own, because an fsync of 40 GB takes a while.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from cytowatch import aside
from cytowatch.config import Config
from cytowatch.inbox import claim, waits
from cytowatch.inbox.claim import Claiming, Parcel
from cytowatch.inbox.dropped import Dropped
from cytowatch.inbox.folders import Folders
from cytowatch.inbox.later import Later
from cytowatch.inbox.packing import Packing, Unmovable
from cytowatch.inbox.readiness import Ready
from cytowatch.inbox.settle import Settler
from cytowatch.inbox.turns import Turns
from cytowatch.record import manifest
from cytowatch.record.drop import Waiting
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status

__all__ = ["Claimed", "Claims"]

_CLAIMS_AT_A_TIME = 5
_CLAIMS_OF_ONE = 4
#: The most claims whose outcomes are taken up in one turn of the main loop.
_ENDED_AT_A_TIME = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A drop that has become an uploaded file."""

    id: UploadedFileId
    user: str
    name: str
    size_bytes: int
    settled_s: float


@dataclass(slots=True, kw_only=True, eq=False)
class _Running:
    """A claim that is under way, or has ended with an outcome."""

    ready: Ready
    parcel: Parcel
    quiet_for_s: float
    outcome: UploadedFileId | Waiting | BaseException | None = None


class Claims:
    """Ensures that every claim is counted until its outcome is taken up; for the main thread only.

    Parameters
    ----------
    with_
        What every claim needs; its leases are those of the filesystem of the inboxes.
    wake
        Called from other threads when there is something for the main loop.
    """

    def __init__(
        self,
        with_: Claiming,
        settler: Settler,
        packing: Packing,
        later: Later,
        *,
        folders: Folders,
        dropped: Dropped,
        wake: Callable[[], None],
    ) -> None:
        self._with = with_
        self._settler = settler
        self._packing = packing
        self._later = later
        self._folders = folders
        self._dropped = dropped
        self._wake = wake
        self._turns = Turns(
            self._claim, failed=self._not_claimed, threads=_CLAIMS_AT_A_TIME, of_one=_CLAIMS_OF_ONE
        )
        #: The number of claims under way, by user; and those that have ended.
        self._under_way: Counter[str] = Counter()
        self._ended: deque[_Running] = deque()
        #: Outcomes that could not be taken up, and children that are not yet in the manifest of their folder.
        self._again: list[_Running] = []
        self._children: dict[str, list[str]] = {}
        #: Whether a fault may have left something half-done. Nothing new begins before that is repaired.
        self.to_mend = False
        #: What a fault left in ``state/tmp`` and could not be put right yet, by id: why.
        self.kept: dict[str, str] = {}

    def reconfigure(self, config: Config) -> None:
        """Use other settings for claims from now on."""
        self._with = replace(self._with, config=config)

    def of(self, user: str) -> int:
        """The number of claims under way for `user`."""
        return self._under_way[user]

    @property
    def busy(self) -> bool:
        """Whether something is under way, or waits to be repaired or noted."""
        return bool(self._under_way.total() or self.to_mend or self._again or self._children)

    @property
    def has_more(self) -> bool:
        """Whether some have ended and wait for the next turn."""
        return bool(self._ended)

    def begin(self, ready: Ready, now: float) -> None:
        """Claim what is `ready`, when it is the turn of its user."""
        bundle = ready.bundle
        try:
            parcel = self._packing.parcel(ready, now)
        except OSError as error:
            self.to_mend |= not isinstance(error, Unmovable)
            self._later.put_off(bundle, waits.fault(error), now)
            return
        quiet_for_s = float("inf") if ready.marker is not None else now - bundle.changed_at
        for track in bundle.tracks:
            track.claiming = True
        user = bundle.head.drop.user
        self._under_way[user] += 1
        self._turns.put(user, _Running(ready=ready, parcel=parcel, quiet_for_s=quiet_for_s))

    def _claim(self, running: _Running) -> None:
        """In a thread of `Turns`."""
        try:
            running.outcome = claim.claim(
                self._with,
                running.parcel,
                quiet_for_s=running.quiet_for_s,
                overdue=running.ready.overdue,
            )
        except BaseException as error:  # noqa: BLE001 - `collect` raises it where it is heard
            running.outcome = error
        self._ended.append(running)
        self._wake()

    def _not_claimed(self, running: _Running, why: str) -> None:
        """In a thread of `Turns`: the claim did not even begin, or could not report how it ended."""
        running.outcome = RuntimeError(why)
        self._ended.append(running)
        self._wake()

    def collect(self, now: float) -> list[Claimed]:
        """The outcomes of the claims that have ended since the last call."""
        claimed: list[Claimed] = []
        again, self._again = self._again, []
        for running in again:
            ready = aside.may_try("claim", running.ready.bundle.head.drop.path)
            (self._ended if ready else self._again).append(running)
        while self._ended and len(claimed) < _ENDED_AT_A_TIME:
            running = self._ended.popleft()
            bundle = running.ready.bundle
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
                # It has left its inbox, and only has to be taken up.
                self._again.append(running)
            elif fenced.failed:
                # What it left half-done is put right, and then it is tried again.
                self.to_mend = True
                self._later.put_aside(bundle.tracks, fenced.why, now, fenced.next_at)
        self._name_children()
        return claimed

    def _name_children(self) -> None:
        """Note in each dropped folder what was claimed out of it."""
        for folder in list(self._children):
            if aside.may_try("folder", f"{folder}/"):
                with aside.fence("folder", f"{folder}/"):
                    self._folders.claimed(folder, self._children[folder])
                    del self._children[folder]

    def keep_folders_open(self, now: float) -> None:
        """Let no dropped folder end before everything that was claimed out of it is noted."""
        for folder in self._children:
            self._dropped.happened(folder, now)

    def _ended_with(self, running: _Running, now: float) -> Claimed | None:
        """The result of a claim; None if the drop stays where it is."""
        bundle, result = running.ready.bundle, running.outcome
        if isinstance(result, OSError):
            self.to_mend = True
            result = waits.fault(result)
        if isinstance(result, BaseException) or result is None:
            raise result or RuntimeError("a claim without an outcome")
        if isinstance(result, Waiting):
            self._later.put_off(bundle, result, now)
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

    def mend_kept(self) -> None:
        """Try once more to repair what could not be repaired."""
        self.to_mend |= bool(self.kept)

    def mend(self) -> list[Claimed]:
        """Finish or undo the claims that a fault of the machine left half-done; return the finished ones."""
        if not self.to_mend or self._under_way.total():
            return []
        self.to_mend = False
        outcomes = claim.recover(self._with.spool, self._with.config.storage)
        self.kept = {id_: said for id_, said in outcomes.items() if said.startswith("kept")}
        finished = []
        for id_, said in outcomes.items():
            if said != "finished":
                continue
            with aside.fence("claim", id_):
                found = manifest.read(self._with.spool.stage(Status.UPLOADED) / id_)
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

    def stop(self) -> None:
        """Finish the running claims, and start no new one."""
        self._turns.stop()
