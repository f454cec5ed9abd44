"""The way of one uploaded file through its stages, with one sandboxed child for all of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

import structlog

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.decoder import answers, unchanged
from cytowatch.decoder.answers import ClaimedFaultError
from cytowatch.decoder.child import Child, ChildCrashed, Stopped, record
from cytowatch.decoder.cluster import RemoteChild
from cytowatch.decoder.pace import ChildTimedOut
from cytowatch.engine import duplicates
from cytowatch.engine.doubts import is_real
from cytowatch.engine.treatment import Observer, Treatment
from cytowatch.model import Outcome
from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry
from cytowatch.record.errors import DeploymentError, IngestError, TransientError, stage_error
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.transitions import enter
from cytowatch.transitions.enter import Place
from cytowatch.tree.room import FEW_INODES, Amount, OverdrawnError, can_never_fit, never_fits
from cytowatch.tree.spool import Spool

__all__ = ["Observer", "Treatment", "give_up", "treat"]


#: So many times more often than a decoder may crash on it a file may be cut off by the daemon's end.
_CUT_OFF_FACTOR = 10
#: And so many times more often it may report a fault of the machine that cannot be found.
_CLAIMS_FACTOR = 3


def treat(with_: Treatment, id_: UploadedFileId) -> None:
    """Take the uploaded file `id_` as far as it goes.

    Raises
    ------
    TransientError
        A fault of the machine; it is to be tried again later.
    Stopped
        The daemon stops; the attempt does not count.
    """
    try:
        _treat_found(with_, id_)
    except (OSError, IngestError) as error:
        if not with_.spool.is_there():
            raise TransientError("offline", "the tree is not there") from error
        if isinstance(error, OSError) and durable.is_transient(error):
            said = f"{error.strerror}: {error.filename or id_}"
            raise TransientError(durable.why_of(error), said) from error
        if isinstance(error, PermissionError):
            # Of the decoder's files only what it names is opened, and that is refused elsewhere.
            raise TransientError("not_permitted", _refused(with_.spool, error)) from error
        raise


def _refused(spool: Spool, error: PermissionError) -> str:
    """Where the tree does not let the daemon write, and what is to be done."""
    # Of a rename the folder that it leads into: it is the one that more than one file needs.
    named = os.path.dirname(error.filename2) if error.filename2 else error.filename
    where = spool.shown(os.fsdecode(named)) if named else "the tree"
    return (
        f"{where} cannot be written ({error.strerror}): give it to the user of cytowatch; "
        "then it goes on by itself"
    )


def _treat_found(with_: Treatment, id_: UploadedFileId) -> None:
    found = with_.spool.find(id_)
    if found is None:
        if not with_.spool.is_there():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(with_.spool.root))
        return
    status, path = found
    try:
        place = Place(status=status, path=path, manifest=manifest.read(path))
    except (ManifestError, FileNotFoundError) as error:
        rebuilt = enter.rebuilt(path, id_, str(error), now=with_.now())
        place = Place(status=status, path=path, manifest=rebuilt)
        wrong = DeploymentError("manifest_damaged", str(error), retryable=True)
        _end(with_, place, wrong)
        return
    if enter.is_folder(place.manifest):
        return
    duplicates.register(with_, place)
    if duplicates.is_to_be_linked(with_, place):
        duplicates.wait_for_first(with_, place)
    _treat(with_, _taken_up(with_, place))


def give_up(with_: Treatment, id_: UploadedFileId, said: str) -> None:
    """End the uploaded file `id_` as an error: whatever is done with it meets an unexpected error, `said`.

    Raises
    ------
    OSError
        The machine does not let it; it is tried again later.
    """
    found = with_.spool.find(id_)
    if found is None or found[0].is_final:
        return
    status, path = found
    kind = DeploymentError if status is Status.UPLOADED else stage_error(status)
    wrong = kind("unexpected", said, retryable=True)

    def fail(at: Place) -> Place:
        return enter.fail(with_.spool, at, wrong, now=with_.now())

    try:
        _move(with_, Place(status=status, path=path, manifest=manifest.read(path)), fail)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - what its manifest says may be the very cause
        if (found := with_.spool.find(id_)) is None or found[0] is not status:
            return
        rebuilt = enter.rebuilt(path, id_, said, now=with_.now())
        _move(with_, Place(status=status, path=path, manifest=rebuilt), fail)


def _taken_up(with_: Treatment, place: Place) -> Place:
    """Count the attempt that begins now; the one that is too many ends the uploaded file.

    An attempt that was counted and never came to an end was cut off by the daemon's own end: a
    power cut, an upgrade, a kill. The daemon never decodes, so that is hardly ever the file's
    fault, and it takes many more of them than of crashes that were seen.
    """
    if place.status is Status.UPLOADED or place.status.is_final:
        return place
    place = enter.tidy(with_.spool, place, now=with_.now())
    if place.manifest["phase"] == "publishing":
        return place
    counted = place.manifest["attempts"]
    if counted < _CUT_OFF_FACTOR * with_.config.engine.max_attempts:
        return enter.attempt(place)
    wrong = stage_error(place.status)(
        "crashed_repeatedly",
        f"cytowatch itself ended {counted} times while it was in this stage",
        retryable=True,
    )
    return _end(with_, place, wrong)


def _treat(with_: Treatment, place: Place) -> None:
    while not place.status.is_final:
        if place.manifest["phase"] == "publishing":
            _move(with_, place, lambda at: _accept(with_, at, Outcome(status=Status.EXTRACTED), ""))
            return
        if place.status is Status.UPLOADED:
            place = _move(
                with_,
                place,
                lambda at: enter.begin(with_.spool, at, Status.DETECTING_FORMAT, now=with_.now()),
            )
        if duplicates.is_to_be_linked(with_, place):
            try:
                # In this order: it may be published between the two looks, and never goes back.
                duplicates.wait_for_first(with_, place)
            except TransientError:
                enter.withdraw(place)
                raise
            first = duplicates.first_of(with_, place)
            try:
                same = first is not None and duplicates.proven(with_, place, first)
            except IngestError as wrong:
                _end(with_, place, wrong)
                return
            if first is not None and same:
                _link(with_, place, first)
                return
            if place.manifest["duplicate_of"] is not None and first is not None:
                place = enter.parted(place)
            if duplicates.lacks_pyramid(place):
                _end(with_, place, duplicates.GONE)
                return
        place = _with_child(with_, place)


def _with_child(with_: Treatment, place: Place) -> Place:
    """All stages from `place` on in one child; gives where it is when that child is gone."""
    place = enter.tidy(with_.spool, place, now=with_.now())
    out = f"out.{place.manifest['attempts']}"
    (place.path / out).mkdir(mode=0o750)
    try:
        with with_.zygote.fork(place.path, out) as child:
            record(place.path, child)
            while not place.status.is_final:
                at = place
                place = _move(with_, at, lambda at: _stage(with_, at, child, out))
                if duplicates.is_to_be_linked(with_, place):
                    return place
                if not place.status.is_final:
                    with_.between_stages()
            return place
    except ChildCrashed as crash:
        return _crashed(with_, _again(with_, place), crash)
    except ClaimedFaultError as fault:
        return _doubted(with_, _again(with_, place), fault)
    except Stopped:
        enter.withdraw(_again(with_, place))
        raise
    except (TransientError, OSError):
        _let_go(with_, _again(with_, place))
        raise


def _again(with_: Treatment, place: Place) -> Place:
    """`place` as it is on disk now."""
    found = with_.spool.find(UploadedFileId(place.manifest["id"]))
    if found is None:
        return place
    return Place(status=found[0], path=found[1], manifest=manifest.read(found[1]))


def _stage(with_: Treatment, place: Place, child: Child | RemoteChild, out: str) -> Place:
    try:
        most_children = with_.config.limits.archive_max_entries
        outcome = _run(with_, place, child, out)
        answers.check(place.status, place.manifest, outcome, most_children=most_children)
        return _accept(with_, place, outcome, out)
    except IngestError as error:
        # Whatever ends it, nobody writes any more into what is thrown away.
        child.end()
        if not with_.spool.is_there():
            raise
        if error.reason == "unexpected":
            with_.observer.unforeseen(place.manifest["id"], error)
        elif notes := getattr(error, "__notes__", None):
            with_.observer.said(place.manifest["id"], "\n".join(notes))
        return enter.fail(with_.spool, place, error, now=with_.now())
    except ChildTimedOut as late:
        said = "it was not done after" if late.reason == "timed_out" else "nothing moved for"
        wrong = stage_error(place.status)(
            late.reason, f"{said} {late.limit_s:g} s, so it was ended", retryable=True
        )
        return enter.fail(with_.spool, place, wrong, now=with_.now())
    finally:
        with_.room.release(place.manifest["id"])


def _run(with_: Treatment, place: Place, child: Child | RemoteChild, out: str) -> Outcome:
    try:
        return child.run(
            place.status,
            place.manifest,
            out=place.path / out,
            progress=lambda share: with_.observer.progressed(place, share),
            check_room=lambda need_bytes, need_inodes=0: _reserve(
                with_, place, out, Amount(bytes=need_bytes, inodes=max(FEW_INODES, need_inodes))
            ),
            check_disk=lambda: _check_disk(with_, place, out),
            stop=with_.stop,
        )
    except ClaimedFaultError as fault:
        if fault.why == "disk":
            # It may be full of what this very one has written.
            _check_disk(with_, place, out)
        raise


def _check_disk(with_: Treatment, place: Place, out: str) -> None:
    """Break it off where it fills the disk with what it did not ask for; the last time that is its error."""
    rows = place.manifest["files"]
    accepted = sum(row["size_bytes"] for row in rows if row["path"].startswith("derived/"))
    made = [place.path / out, place.path / "derived"]
    try:
        with_.room.check(
            place.manifest["id"], made, settings=with_.config.storage, accepted_bytes=accepted
        )
    except OverdrawnError as over:
        if with_.doubts.overdrew(place.manifest["id"]) < with_.config.engine.max_attempts:
            raise
        raise stage_error(place.status)("output_too_large", over.detail, retryable=True) from over


def _reserve(with_: Treatment, place: Place, out: str, need: Amount) -> None:
    if can_never_fit(place.path, need):
        raise never_fits(place.status, need)
    with_.room.reserve(place.manifest["id"], place.path / out, need, settings=with_.config.storage)


def _doubted(with_: Treatment, place: Place, fault: ClaimedFaultError) -> Place:
    """The decoder reports a fault of the machine: one that is found is waited out, others are counted.

    Raises
    ------
    TransientError
        It is to be tried again.
    """
    spare_bytes = with_.config.storage.reserve_bytes
    if not is_real(fault.why, place.path, place.manifest["files"], spare_bytes=spare_bytes):
        claims = with_.doubts.claimed(place.manifest["id"])
        if claims >= _CLAIMS_FACTOR * with_.config.engine.max_attempts:
            wrong = stage_error(place.status)(
                "faults_repeatedly",
                f"its decoder reported a fault of the machine {claims} times, and none was found: "
                f"{fault.detail}",
                retryable=True,
            )
            return _end(with_, place, wrong)
    _let_go(with_, place)
    raise fault


def _let_go(with_: Treatment, place: Place) -> None:
    """Take back the attempt, and the room that it took: while it waits, others need that.

    In this order, as a full disk has none for the manifest.
    """
    with suppress(OSError):
        enter.clear(with_.spool, place)
    enter.withdraw(place)


def _accept(with_: Treatment, place: Place, outcome: Outcome, out: str) -> Place:
    outcome = _held_against_hash(with_, place, outcome)
    duplicate_of = duplicates.duplicate_of(with_, place, outcome)
    refused = (
        with_.config.storage.duplicates == "reject" and place.status is Status.DETECTING_FORMAT
    )
    if duplicate_of is not None and refused:
        return enter.reject(with_.spool, place, outcome, duplicate_of, now=with_.now())
    heavy = _gives_up_source(with_.config, outcome.status)
    if heavy:
        enter.plan_to_lighten(with_.spool, place)
    after = enter.accept(
        with_.spool,
        place,
        outcome,
        out,
        now=with_.now(),
        settings=with_.config.storage,
        limits=with_.config.limits,
        duplicate_of=duplicate_of,
    )
    if not heavy:
        return after
    try:
        return enter.lighten(with_.spool, after)
    except OSError as fault:
        # It is published all the same; its source goes when the daemon ends or starts.
        structlog.get_logger().warning("source_kept", path=str(after.path), error=fault.strerror)
        return after


def _held_against_hash(with_: Treatment, place: Place, outcome: Outcome) -> Outcome:
    """The outcome, before what was received is published: it has the bytes that were hashed."""
    if not outcome.status.is_success or place.manifest["phase"] == "publishing":
        return outcome

    def progress(share: float) -> None:
        if with_.stop.is_set():
            raise Stopped("the daemon stops")
        with_.observer.progressed(place, share)

    known: list[FileEntry] = outcome.changes.get("files", place.manifest["files"])
    files = unchanged.check_sources(place.status, place.path, known, progress=progress)
    if files == known:
        return outcome
    return Outcome(status=outcome.status, changes={**outcome.changes, "files": files})


def _gives_up_source(config: Config, status: Status) -> bool:
    """Whether the source goes when an uploaded file is published as `status`."""
    match status:
        case Status.EXTRACTED:
            return not config.extract.keep_archive
        case Status.CONVERTED:
            return not config.convert.keep_source
        case _:
            return False


def _link(with_: Treatment, place: Place, first: Place) -> None:
    for leftover in enter.out_directories(place.path):
        with_.spool.discard(leftover)
    if place.status is Status.CONVERTING and not enter.is_linked(place):
        skip = Outcome(status=Status.DEPLOYING)
        place = _move(with_, place, lambda at: _accept(with_, at, skip, "out.0"))
    _move(with_, place, lambda at: enter.link(with_.spool, at, first, now=with_.now()))


def _crashed(with_: Treatment, place: Place, crash: ChildCrashed) -> Place:
    """The child died: once more, or never again when it did so too often."""
    cause = crash.signal or (
        "the loss of its worker" if crash.exit_code is None else f"exit code {crash.exit_code}"
    )
    with_.observer.crashed(place, crash.signal or "none")
    attempts = place.manifest["attempts"]
    if attempts >= with_.config.engine.max_attempts:
        times = "once" if attempts == 1 else f"{attempts} times"
        wrong = stage_error(place.status)(
            "crashed_repeatedly",
            f"the decoder crashed {times} on it, last by {cause}: the file is damaged, "
            "or of a kind that this decoder cannot read",
        )
        return _end(with_, place, wrong)
    with_.observer.retried(place)
    return enter.attempt(place)


def _move(with_: Treatment, place: Place, step: Callable[[Place], Place]) -> Place:
    began = with_.monotonic()
    after = step(place)
    with_.observer.entered(place, after, with_.monotonic() - began)
    if after.status.is_final:
        with_.contents.release(after.manifest["id"])
        with_.doubts.forget(after.manifest["id"])
    return after


def _end(with_: Treatment, place: Place, wrong: IngestError) -> Place:
    return _move(with_, place, lambda at: enter.fail(with_.spool, at, wrong, now=with_.now()))
