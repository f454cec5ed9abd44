"""The way of one uploaded file: taken up, led through its stages, and ended by what may go wrong."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from cytowatch import durable
from cytowatch.decoder.answers import ClaimedFaultError
from cytowatch.decoder.ends import DecoderCrashed, Stopped
from cytowatch.engine import duplicates
from cytowatch.engine.doubts import is_real
from cytowatch.engine.duplicates import Gone, Linked, Wait
from cytowatch.engine.treatment import Treatment
from cytowatch.engine.walk import Walk
from cytowatch.record.errors import DeploymentError, IngestError, TransientError, stage_error
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place, is_folder, is_linked
from cytowatch.record.quoting import quoting
from cytowatch.record.status import Status
from cytowatch.transitions import correct, enter
from cytowatch.tree.room import OverdrawnError
from cytowatch.tree.spool import Spool

__all__ = ["Treatment", "give_up", "treat"]


#: So many times more often than a decoder may crash on it a file may be cut off by the daemon's end.
_CUT_OFF_FACTOR = 10
#: And so many times more often it may be tried while it reports a fault of the machine that cannot be found.
_CLAIMS_FACTOR = 3


def treat(with_: Treatment, id_: UploadedFileId) -> Place | None:
    """Take the uploaded file `id_` as far as it goes; gives where it is then, None if it is gone.

    Raises
    ------
    TransientError
        A fault of the machine; it is to be tried again later.
    Stopped
        The daemon stops; the attempt does not count.
    """
    try:
        return _treat_found(with_, id_)
    except (OSError, IngestError) as error:
        if not with_.transitions.spool.is_there():
            raise TransientError("offline", "the tree is not there") from error
        if isinstance(error, OSError) and durable.is_transient(error):
            said = f"{error.strerror}: {error.filename or id_}"
            raise TransientError(durable.why_of(error), said) from error
        if isinstance(error, PermissionError):
            # Of the decoder's files only what it names is opened, and that is refused elsewhere.
            raise TransientError(
                "not_permitted", _refused(with_.transitions.spool, error)
            ) from error
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


def _treat_found(with_: Treatment, id_: UploadedFileId) -> Place | None:
    spool = with_.transitions.spool
    found = spool.find(id_)
    if found is None:
        if not spool.is_there():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(spool.root))
        return None
    status, path = found
    try:
        place = Place.read(path, status)
    except (ManifestError, FileNotFoundError) as error:
        wrong = DeploymentError(
            "manifest_damaged", quoting("its manifest cannot be read", error), retryable=True
        )
        place = _rebuilt(with_, status, path, id_, str(error))
        return _let_rest(with_, with_.transitions.fail(place, wrong))
    if is_folder(place.manifest):
        return None
    duplicates.register(with_, place)
    return _let_rest(with_, _treat(with_, place))


def _rebuilt(with_: Treatment, status: Status, path: Path, id_: UploadedFileId, said: str) -> Place:
    made = correct.rebuilt(path, id_, said, now=with_.transitions.now())
    return Place(status=status, path=path, manifest=made)


def _let_rest(with_: Treatment, place: Place) -> Place:
    """Forget what was kept of it while it was in work, once it is not."""
    if place.status.is_final:
        with_.contents.release(place.manifest["id"])
        with_.doubts.forget(place.manifest["id"])
    return place


def give_up(with_: Treatment, id_: UploadedFileId, said: str) -> None:
    """End the uploaded file `id_` as an error: anything that is done with it meets an unexpected error, `said`.

    Raises
    ------
    OSError
        The machine does not let it; it is tried again later.
    """
    spool = with_.transitions.spool
    found = spool.find(id_)
    if found is None or found[0].is_final:
        return
    status, path = found
    kind = DeploymentError if status is Status.UPLOADED else stage_error(status)
    wrong = kind("unexpected", said, retryable=True)
    try:
        place = Place.read(path, status)
        _let_rest(with_, with_.transitions.fail(place, wrong))
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - what its manifest says may be the very cause
        if (found := spool.find(id_)) is None or found[0] is not status:
            return
        _let_rest(with_, with_.transitions.fail(_rebuilt(with_, status, path, id_, said), wrong))


def _taken_up(with_: Treatment, place: Place) -> Place:
    """Count the attempt that begins now; the one that is too many ends the uploaded file.

    An attempt that was counted and never ended was cut off by the daemon's own end: a
    power cut, an upgrade, a kill. The daemon never decodes, so that is hardly ever the file's
    fault, and it takes many more of them than of crashes that were seen.
    """
    if place.status is Status.UPLOADED or place.status.is_final:
        return place
    moves = with_.transitions
    place = correct.tidy(moves.spool, place, now=moves.now())
    if place.manifest["phase"] == "publishing":
        return place
    counted = place.manifest["attempts"]
    if counted < _CUT_OFF_FACTOR * moves.config.engine.max_attempts:
        return enter.attempt(place)
    wrong = stage_error(place.status)(
        "crashed_repeatedly",
        f"cytowatch itself ended {counted} times while it was in this stage",
        retryable=True,
    )
    return moves.fail(place, wrong)


def _treat(with_: Treatment, place: Place) -> Place:
    """Take `place` as far as it goes; a duplicate is waited for before an attempt is counted."""
    moves, taken_up = with_.transitions, False
    while not place.status.is_final:
        decision = duplicates.decide(with_, place)
        if isinstance(decision, Wait):
            if taken_up:
                enter.withdraw(place)
            said = f"{decision.first} has the same content and is still in work"
            raise TransientError("duplicate", said)
        if not taken_up:
            place, taken_up = _taken_up(with_, place), True
        elif place.manifest["phase"] == "publishing":
            place = moves.hand_out_the_rest(place)
        elif place.status is Status.UPLOADED:
            place = moves.begin(place)
        elif isinstance(decision, Linked):
            place = _linked(with_, place, decision.first)
        elif isinstance(decision, Gone):
            place = moves.fail(place, duplicates.GONE)
        else:
            place = _decoded(with_, place)
    return place


def _linked(with_: Treatment, place: Place, first: Place) -> Place:
    """Show it by links to `first` if their bytes agree; else it goes its own way."""
    try:
        same = duplicates.proven(with_, place, first)
    except IngestError as wrong:
        return with_.transitions.fail(place, wrong)
    except (TransientError, Stopped, OSError):
        enter.withdraw(place)
        raise
    if same:
        return _link(with_, place, first)
    if duplicates.lacks_pyramid(place):
        return with_.transitions.fail(place, duplicates.GONE)
    return enter.parted(place)


def _link(with_: Treatment, place: Place, first: Place) -> Place:
    moves = with_.transitions
    for leftover in correct.out_directories(place.path):
        moves.spool.discard(leftover)
    if place.status is Status.CONVERTING and not is_linked(place):
        place = moves.pass_over_conversion(place)
    return moves.link(place, first)


def _decoded(with_: Treatment, place: Place) -> Place:
    """All stages from `place` on in one decoder process; gives where it is when that is gone."""
    walk = Walk(with_, place)
    walk.clear()
    try:
        walk.go()
    except DecoderCrashed as crash:
        if crash.signal == "SIGBUS":
            with_.transitions.observer.crashed(walk.on_disk(), crash.signal)
            return _doubted(with_, walk.on_disk(), ClaimedFaultError("input_output", _UNREAD))
        return _crashed(with_, walk.on_disk(), crash)
    except ClaimedFaultError as fault:
        return _doubted(with_, walk.on_disk(), fault)
    except Stopped:
        enter.withdraw(walk.on_disk())
        raise
    except OverdrawnError:
        _give_back_room(with_, walk.on_disk())
        raise
    except (TransientError, OSError):
        _let_go(with_, walk.on_disk())
        raise
    return walk.place


def _doubted(with_: Treatment, place: Place, fault: ClaimedFaultError) -> Place:
    """The decoder reports a fault of the machine: one that is found is waited out, others are counted.

    Raises
    ------
    TransientError
        It is to be tried again.
    """
    settings = with_.transitions.config
    spare_bytes = settings.storage.reserve_bytes
    if is_real(fault.why, place.path, place.manifest["files"], spare_bytes=spare_bytes):
        _let_go(with_, place)
        raise fault
    attempts = place.manifest["attempts"]
    if attempts >= _CLAIMS_FACTOR * settings.engine.max_attempts:
        wrong = stage_error(place.status)(
            "faults_repeatedly",
            f"in the last of {attempts} attempts its decoder reported a fault of the machine, "
            f"and none was found: {fault.detail}",
            retryable=True,
        )
        return with_.transitions.fail(place, wrong)
    _give_back_room(with_, place)
    raise fault


def _let_go(with_: Treatment, place: Place) -> None:
    """Take back the attempt, and the room that it took.

    In this order, as a full disk has none for the manifest.
    """
    _give_back_room(with_, place)
    enter.withdraw(place)


#: By that signal a process is ended for a page of a mapped file that the disk cannot give: libvips maps files.
_UNREAD = "it was ended by SIGBUS, as where a part of a file cannot be read from the disk"
#: What a crash means, by its signal.
_MEANS = {
    "": "the file is damaged, or of a kind that this decoder cannot read",
    "SIGSYS": "the sandbox ended it for a forbidden system call, so the file may be an attack; if sound files end like "
    "this, the libraries of this machine use a call that the filter does not know",
}


def _give_back_room(with_: Treatment, place: Place) -> None:
    """Remove what was made: while it waits, others need the room. The attempt stays counted, over restarts too."""
    with suppress(OSError):
        correct.clear(with_.transitions.spool, place)


def _crashed(with_: Treatment, place: Place, crash: DecoderCrashed) -> Place:
    """The decoder process died: once more, or never again when it did so too often."""
    moves = with_.transitions
    cause = crash.signal or (
        "the loss of its worker" if crash.exit_code is None else f"exit code {crash.exit_code}"
    )
    moves.observer.crashed(place, crash.signal or "none")
    attempts = place.manifest["attempts"]
    if attempts >= moves.config.engine.max_attempts:
        times = "once" if attempts == 1 else f"{attempts} times"
        wrong = stage_error(place.status)(
            "crashed_repeatedly",
            f"the decoder crashed {times} on it, last by {cause}: {_MEANS.get(cause, _MEANS[''])}",
        )
        return moves.fail(place, wrong)
    moves.observer.retried(place)
    return enter.attempt(place)
