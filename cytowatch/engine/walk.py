"""The stages of one uploaded file in one decoder process: what is asked of it, and what becomes of its answer."""

from __future__ import annotations

from cytowatch.decoder import facts, unchanged
from cytowatch.decoder.answers import ClaimedFaultError
from cytowatch.decoder.decoding import Decoding
from cytowatch.decoder.ends import Stopped
from cytowatch.decoder.pace import DecoderTimedOut
from cytowatch.decoder.recorded import record
from cytowatch.engine import duplicates
from cytowatch.engine.duplicates import Go
from cytowatch.engine.treatment import Treatment
from cytowatch.model import Outcome
from cytowatch.record.entries import FileEntry
from cytowatch.record.errors import IngestError, stage_error
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.transitions import correct
from cytowatch.tree.room import FEW_INODES, Amount, OverdrawnError, can_never_fit, never_fits

__all__ = ["Walk"]


class Walk:
    """Guards where the uploaded file is while a decoder process treats it, no matter what ends the walk."""

    def __init__(self, with_: Treatment, place: Place) -> None:
        self._with = with_
        self._moves = with_.transitions
        self._place = place
        self._out = f"out.{place.manifest['attempts']}"

    @property
    def place(self) -> Place:
        """Where the last step has put it."""
        return self._place

    def on_disk(self) -> Place:
        """Where it is now, no matter what broke off a step; where it was last if it is gone."""
        found = self._moves.spool.find(UploadedFileId(self._place.manifest["id"]))
        if found is None:
            return self._place
        return Place.read(found[1], found[0])

    def clear(self) -> None:
        """Let nothing lie about that an earlier attempt has left, and make room for this one's output."""
        self._place = correct.tidy(self._moves.spool, self._place, now=self._moves.now())
        (self._place.path / self._out).mkdir(mode=0o750)

    def go(self) -> None:
        """Do all stages from here on; a duplicate that is to be linked, or waited for, goes no further."""
        with self._with.decoders.fork(self._place.path, self._out) as decoding:
            record(self._place.path, decoding)
            while not self._place.status.is_final:
                self._place = self._stage(self._place, decoding)
                if not isinstance(duplicates.decide(self._with, self._place), Go):
                    return
                if not self._place.status.is_final:
                    self._with.between_stages()

    def _stage(self, place: Place, decoding: Decoding) -> Place:
        began = self._moves.monotonic()
        try:
            outcome = self._run(place, decoding)
            return self._accept(place, outcome, began)
        except IngestError as error:
            # No matter what ends it, nothing is written any more into what is thrown away.
            decoding.end()
            if not self._moves.spool.is_there():
                raise
            if error.reason == "unexpected":
                self._moves.observer.unforeseen(place.manifest["id"], error)
            elif notes := getattr(error, "__notes__", None):
                self._moves.observer.said(place.manifest["id"], "\n".join(notes))
            return self._moves.fail(place, error, began=began)
        except DecoderTimedOut as late:
            said = "it was not done after" if late.reason == "timed_out" else "nothing moved for"
            wrong = stage_error(place.status)(
                late.reason, f"{said} {late.limit_s:g} s, so it was ended", retryable=True
            )
            return self._moves.fail(place, wrong, began=began)
        finally:
            self._with.room.release(place.manifest["id"])

    def _run(self, place: Place, decoding: Decoding) -> Outcome:
        """What the decoder process answers, believed as far as `answers` goes."""
        id_, out = place.manifest["id"], place.path / self._out
        room, settings = self._with.room, self._moves.config

        def check_room(need_bytes: int, need_inodes: int = 0) -> None:
            need = Amount(bytes=need_bytes, inodes=max(FEW_INODES, need_inodes))
            if can_never_fit(place.path, need):
                raise never_fits(place.status, need)
            room.reserve(id_, out, need, settings=settings.storage)

        rows = place.manifest["files"]
        accepted = sum(row["size_bytes"] for row in rows if row["path"].startswith("derived/"))

        def check_disk() -> None:
            """Break it off where it fills the disk with what it did not ask for; the last time that is its error."""
            made = [out, place.path / "derived"]
            try:
                room.check(id_, made, settings=settings.storage, accepted_bytes=accepted)
            except OverdrawnError as over:
                if place.manifest["attempts"] < settings.engine.max_attempts:
                    raise
                raise stage_error(place.status)(
                    "output_too_large", over.detail, retryable=True
                ) from over

        def progress(share: float) -> None:
            self._moves.observer.progressed(place, share)

        try:
            outcome = decoding.run(
                place.status,
                place.manifest,
                out=out,
                progress=progress,
                check_room=check_room,
                check_disk=check_disk,
                stop=self._with.stop,
            )
        except ClaimedFaultError as fault:
            if fault.why == "disk":
                # It may be full of what this very one has written.
                check_disk()
            raise
        most = settings.limits.archive_max_entries
        facts.check(place.status, place.manifest, outcome, most_children=most)
        return outcome

    def _accept(self, place: Place, outcome: Outcome, began: float) -> Place:
        outcome = self._held_against_hash(place, outcome)
        duplicate_of = duplicates.of(self._with, place, outcome)
        refuses = self._moves.config.storage.duplicates == "reject"
        if duplicate_of is not None and refuses and place.status is Status.DETECTING_FORMAT:
            return self._moves.reject(place, outcome, duplicate_of, began=began)
        return self._moves.accept(place, outcome, self._out, duplicate_of=duplicate_of, began=began)

    def _held_against_hash(self, place: Place, outcome: Outcome) -> Outcome:
        """The outcome, before what was received is published: it has the bytes that were hashed."""
        if not outcome.status.is_success:
            return outcome

        def progress(share: float) -> None:
            if self._with.stop.is_set():
                raise Stopped("the daemon stops")
            self._moves.observer.progressed(place, share)

        known: list[FileEntry] = outcome.changes.get("files", place.manifest["files"])
        files = unchanged.check_sources(place.status, place.path, known, progress=progress)
        if files == known:
            return outcome
        return Outcome(status=outcome.status, changes={**outcome.changes, "files": files})
