"""Work: what has settled is claimed, what was claimed is treated, what is asked for is done."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from cytowatch import aside
from cytowatch.admin import requests
from cytowatch.admin.remove import expired, remove
from cytowatch.inbox.claims import Claimed
from cytowatch.lifecycle import clock
from cytowatch.lifecycle.leaps import Leaps
from cytowatch.lifecycle.parts import Parts
from cytowatch.lifecycle.presence import Presence
from cytowatch.record import manifest, names
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree import pauses
from cytowatch.tree.pauses import Pauses

__all__ = ["Work"]

#: How often errors are looked through for those that have been kept long enough.
_PRUNE_EVERY_S = 60.0
#: So long of each turn requests are answered, however many there are.
_REQUESTS_S = 0.2


class Work:
    """Guards what an admin holds back, and when errors were pruned; for the main thread only."""

    def __init__(self, parts: Parts, presence: Presence) -> None:
        self._parts = parts
        self._presence = presence
        self._pruned_at = float("-inf")
        self._leaps = Leaps(parts.spool.state)
        self.pauses = Pauses()
        #: Requests that were answered, and of which the daemon has not taken note up to now.
        self._unfollowed: list[requests.Answered] = []

    def begin_some(self, now: float) -> None:
        """Claim what is due and start what waits, as far as the disk and the pauses let it."""
        parts = self._parts
        lacks = self._presence.lacking_room()
        if lacks is not None:
            parts.intake.hold(now, lacks)
            return
        self.pauses = pauses.read(parts.spool)
        parts.engine.hold(self.pauses)
        parts.intake.claim_due(now, self.pauses)
        parts.engine.start_some(now)

    def collect(self, now: float) -> None:
        """Take up some of what was claimed."""
        self._take_up(self._parts.intake.collect(now), now)

    def collect_all(self, now: float) -> None:
        """Take up all of it; in a turn only some are taken up."""
        while arrived := self._parts.intake.collect(now):
            self._take_up(arrived, now)

    def mend(self, now: float) -> None:
        """Finish or undo claims that a fault interrupted, or report why that cannot be done."""
        parts = self._parts
        self._take_up(parts.intake.mend(), now)
        for id_, why in parts.intake.kept.items():
            parts.health.fault("kept", f"state/tmp/{id_}: {why}")
        if not parts.intake.kept:
            parts.health.clear("kept")

    def do_requests(self, now: float) -> None:
        """Do what commands have asked for, and take up what they sent back to a stage."""
        parts, until = self._parts, time.monotonic() + _REQUESTS_S
        for done in requests.answer_all(parts.spool, parts.index, now=clock.now()):
            parts.log.info("requested", **done.request, **done.answer)
            self._unfollowed.append(done)
            if time.monotonic() >= until:
                # The others have their answers with the next turn, which comes at once.
                parts.outside.asked.wake()
                break
        for done in list(self._unfollowed):
            about = str(done.request.get("id", done.name))
            if aside.may_try("uploaded_file", about):
                with aside.fence("uploaded_file", about):
                    self._follow(done)
                    self._unfollowed.remove(done)
        if now - self._pruned_at <= _PRUNE_EVERY_S:
            return
        self._pruned_at = now
        parts.ledger.look_for_returned(parts.spool, clock.now())
        requests.sweep(parts.spool, now_s=time.time())
        days = parts.config.storage.keep_errors_days
        if days <= 0:
            return
        wall = clock.now()
        self._leaps.look(wall, now)
        age_s = partial(self._leaps.age_s, now=wall)
        for status, old in list(expired(parts.spool, age_s=age_s, days=days)):
            with aside.fence("uploaded_file", old):
                remove(parts.spool, old, parts.index, even_linked=True)
                parts.log.info("expired", id=old, days=days)
                parts.ledger.left(status, old)

    def _take_up(self, arrived: list[Claimed], now: float) -> None:
        parts = self._parts
        parts.ledger.arrived([claimed.id for claimed in arrived])
        for claimed in arrived:
            parts.ledger.claimed(claimed.id, claimed.settled_s)
            parts.engine.submit(claimed.user, claimed.id, claimed.size_bytes)
            with aside.fence("uploaded_file", claimed.id):
                self._tell_claimed(claimed)
            # A free thread must not wait for the next turn of the loop.
            if parts.engine.busy < parts.engine.count:
                parts.engine.start_some(now)
        parts.engine.start_some(now)

    def _tell_claimed(self, claimed: Claimed) -> None:
        self._parts.metrics.received_bytes.inc(claimed.size_bytes)
        self._parts.log.info(
            "claimed",
            id=claimed.id,
            user=claimed.user,
            name=names.printable(claimed.name),
            bytes=claimed.size_bytes,
            seconds=round(claimed.settled_s, 3),
        )

    def _follow(self, done: requests.Answered) -> None:
        """Take note of what was done to an uploaded file, and take it up if it was sent back."""
        parts = self._parts
        if done.request.get("do") == "reindex":
            parts.indexing.begin()
        if "error" in done.answer or done.before is None:
            return
        if done.request["do"] in ("link", "unlink"):
            # It stays where it is.
            return
        id_ = UploadedFileId(done.request["id"])
        parts.ledger.left(done.before, id_)
        if done.request["do"] == "return":
            parts.ledger.look_for_returned(parts.spool, clock.now())
        if done.request["do"] == "retry" and done.answer["said"] != "inbox":
            parts.ledger.arrived([id_], Status[done.answer["said"]])
            found = parts.spool.find(id_)
            if found is not None:
                parts.engine.submit(_user_of(found[1]), id_)


def _user_of(path: Path) -> str:
    try:
        return manifest.read(path)["user"]
    except (OSError, ManifestError):
        # The order of turns matters less than that each turn comes.
        return "unknown"
