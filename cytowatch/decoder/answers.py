"""Messages between the daemon and a decoder process, encoded and decoded here in both directions.

A decoder process may have been taken over by the file that it reads. So nothing that it says is used before
it is checked. This module checks the size before parsing, then shape, numbers, texts and words; `facts` compares what it
says about the uploaded file with what the daemon knows. The same holds for the answers of a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cytowatch import durable, outside
from cytowatch.decoder.ends import DecoderCrashed
from cytowatch.decoder.pace import DecoderTimedOut
from cytowatch.model import Outcome
from cytowatch.outside import OutsideError
from cytowatch.record import reasons
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import IngestError, TransientError, stage_error
from cytowatch.record.status import FOLLOWERS, Status

__all__ = [
    "IN_FILE",
    "LARGEST_BYTES",
    "ClaimedFaultError",
    "most_bytes_in_file",
    "of_end",
    "of_error",
    "of_fault",
    "of_outcome",
    "read_in_file",
    "refused",
    "room_asked_for",
    "sandboxed",
    "share",
    "understood",
]

#: A larger answer is written to a file, and the message names it.
LARGEST_BYTES = outside.SMALL_BYTES
#: The name of that file in ``out.<attempt>``.
IN_FILE = "answer.json"
#: An answer in a file has a row per file of a set, or an id per member of an archive; a scene of an image
#: takes some 3,000 bytes.
_IN_FILE_BYTES = 16 << 20
_BYTES_PER_ROW = 512
#: An empty list of two bytes takes 64 bytes of memory, so their number is bounded before they are made.
_VALUES_PER_ROW = 32
_VALUES = 1 << 20

#: The keys that each stage may set; a decoder that was taken over cannot set any other.
_MAY_CHANGE = {
    Status.DETECTING_FORMAT: {"format", "sha256", "files", "warnings", "images"},
    Status.EXTRACTING_DATA: {"children", "skipped", "files", "warnings"},
    Status.CONVERTING: {"images", "files", "sha256", "conversion", "warnings"},
    Status.DEPLOYING: {"images", "files", "verification", "warnings"},
}

#: The faults that a decoder process can meet; any other word becomes `other`.
_FAULTS = {"disk", "input_output", "processes"}
#: Faults that a worker of a cluster meets outside the decoder process.
_FAULTS_OF_A_WORKER = {"root", "zygote"}

_LONGEST_DETAIL = 2000
_LONGEST_TEXT = 4000
_LONGEST_TRACE = 8000
#: What wait(2) says of a process that has ended.
_LARGEST_STATUS = 0xFFFF
#: The most space that anything can ask for, in bytes or inodes: more than any filesystem has.
_MOST_ROOM = 1 << 60


class ClaimedFaultError(TransientError):
    """A decoder process reports a fault of the machine, which is not confirmed yet."""


def of_outcome(outcome: Outcome, *, sandboxed: bool | None = None) -> dict[str, Any]:
    """The message that holds `outcome`; that of a worker says whether its decoders are `sandboxed`."""
    found = {"status": outcome.status.name, "changes": dict(outcome.changes)}
    more = {} if sandboxed is None else {"sandboxed": sandboxed}
    return {"outcome": found, **more}


def of_end(end: DecoderCrashed | DecoderTimedOut) -> dict[str, Any]:
    """The message of a worker whose decoder process has come to an `end` without an answer."""
    match end:
        case DecoderCrashed():
            return {"crashed": end.wait_status}
        case DecoderTimedOut():
            return {"timed_out": [end.reason, end.limit_s]}


def sandboxed(message: Mapping[str, Any]) -> bool | None:
    """Whether the decoders of the worker that answers are in a sandbox; None where it does not say."""
    said = message.get("sandboxed")
    return said if isinstance(said, bool) else None


def of_error(error: IngestError) -> dict[str, Any]:
    """The message that holds `error`, with its notes as the trace."""
    said: dict[str, Any] = {
        "error": {"reason": error.reason, "detail": error.detail, "retryable": error.retryable}
    }
    if notes := getattr(error, "__notes__", None):
        said["trace"] = "\n".join(notes)[-_LONGEST_TRACE:]
    return said


def of_fault(why: str, detail: str) -> dict[str, Any]:
    """The message that a fault of the machine stopped the stage."""
    return {"transient": {"why": why, "detail": detail}}


def share(said: object) -> float:
    """The share of a stage that is done, 0.0 to 1.0.

    Raises
    ------
    OutsideError
        It is not such a number.
    """
    return outside.number(said, least=0.0, most=1.0)


def room_asked_for(message: Mapping[str, Any]) -> tuple[int, int]:
    """(bytes, inodes) that a stage may write.

    Raises
    ------
    OutsideError
        They are not numbers that any disk can have.
    """
    found = []
    for key in ("need_bytes", "need_inodes"):
        said = message.get(key, 0)
        if not isinstance(said, int):
            raise OutsideError(f"{key} is not a whole number")
        found.append(int(outside.number(said, least=0, most=_MOST_ROOM)))
    return found[0], found[1]


def understood(status: Status, message: Mapping[str, Any], *, of_worker: bool = False) -> Outcome:
    """The outcome in the answer to the stage of `status`, with all its texts made safe to show.

    Parameters
    ----------
    of_worker
        A worker of a cluster answers; it knows more faults than a decoder process does, and how that ended.

    Raises
    ------
    IngestError
        The stage's own error; or `output_refused`, or `unexpected` if the answer makes no sense.
    ClaimedFaultError
        A fault of the machine that the decoder process reports.
    TransientError
        A fault that the worker itself met.
    DecoderCrashed, DecoderTimedOut
        The decoder process of the worker gave no answer.
    """
    match message:
        case {"crashed": int(wait_status)} if of_worker and 0 <= wait_status <= _LARGEST_STATUS:
            raise DecoderCrashed(wait_status)
        case {
            "timed_out": [("timed_out" | "no_progress") as reason, int() | float() as limit_s]
        } if of_worker:
            raise DecoderTimedOut(reason, limit_s)
        case {"outcome": {"status": str(name), "changes": dict(changes)}}:
            return _outcome(status, name, changes)
        case {"transient": {"why": str(why), "detail": detail}}:
            said = outside.text(detail, most=_LONGEST_DETAIL)
            if of_worker and why in _FAULTS_OF_A_WORKER:
                raise TransientError(why, said)
            raise ClaimedFaultError(why if why in _FAULTS else "other", said)
        case {"error": {"reason": str(reason), "detail": detail, "retryable": retryable}}:
            raise _error(status, reason, detail, retryable is True, message.get("trace"))
    raise stage_error(status)("unexpected", "the decoder gave an answer that cannot be read")


def _error(
    status: Status, reason: str, detail: object, retryable: bool, trace: object
) -> IngestError:
    said = outside.text(detail, most=_LONGEST_DETAIL)
    if reasons.of(reason) is None:
        said = f"unknown reason {outside.text(reason, most=60)!r}: {said}"
        reason = "unexpected"
    wrong = stage_error(status)(reason, said, retryable=retryable)
    if isinstance(trace, str):
        lines = trace[-_LONGEST_TRACE:].split("\n")
        wrong.add_note("\n".join(outside.text(line, most=_LONGEST_TRACE) for line in lines))
    return wrong


def _outcome(status: Status, name: str, changes: dict[str, Any]) -> Outcome:
    if name not in Status.__members__:
        raise refused(status, f"there is no status {outside.text(name, most=60)!r}")
    following = Status[name]
    if following not in FOLLOWERS[status] or following.is_error:
        raise refused(status, f"{following.name} cannot follow {status.name}")
    if set(changes) - _MAY_CHANGE[status]:
        strange = sorted(outside.text(key, most=60) for key in set(changes) - _MAY_CHANGE[status])
        raise refused(status, f"it may not set {', '.join(strange[:5])}")
    try:
        return Outcome(status=following, changes=cast("dict[str, Any]", _safe(changes)))
    except OutsideError as error:
        raise refused(status, str(error)) from None


def _safe(value: object, depth: int = outside.DEPTH) -> object:
    """`value` with every text shortened, and everything escaped that a terminal would act on.

    Raises
    ------
    OutsideError
        It is nested too deeply, or holds what JSON does not.
    """
    if depth < 0:
        raise OutsideError("its answer is nested too deeply")
    match value:
        case str():
            # Most texts are short and plain, and a set has hundreds of thousands of them.
            plain = len(value) <= _LONGEST_TEXT and value.isprintable()
            return value if plain else outside.text(value, most=_LONGEST_TEXT)
        case None | bool():
            return value
        case int() | float():
            outside.number(value, least=-(1 << 63), most=(1 << 63) - 1)
            return value
        case dict():
            return {
                outside.text(key, most=200): _safe(one, depth - 1) for key, one in value.items()
            }
        case list():
            return [_safe(one, depth - 1) for one in value]
    raise OutsideError(f"its answer holds a {type(value).__name__}")


def most_bytes_in_file(status: Status, known: Manifest, *, most_children: int) -> int:
    """The most bytes that an answer in a file may have, by what is known about the uploaded file."""
    return _IN_FILE_BYTES + _BYTES_PER_ROW * _rows(status, known, most_children)


def _rows(status: Status, known: Manifest, most_children: int) -> int:
    return most_children if status is Status.EXTRACTING_DATA else len(known["files"])


def read_in_file(
    out: Path, status: Status, known: Manifest, *, most_children: int
) -> dict[str, Any]:
    """The answer that a decoder process wrote to `IN_FILE` in `out`, which is removed.

    Raises
    ------
    OutsideError
        It is not a regular file, too large, or not usable as JSON.
    OSError
        A fault of the machine.
    """
    most = most_bytes_in_file(status, known, most_children=most_children)
    try:
        with durable.directory(out) as folder:
            data = outside.read_file(IN_FILE, most_bytes=most, at=folder)
            os.unlink(IN_FILE, dir_fd=folder)
    except OSError as error:
        if durable.is_transient(error):
            raise
        raise OutsideError(f"{IN_FILE} cannot be read: {error.strerror}") from error
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > _VALUES + _VALUES_PER_ROW * _rows(status, known, most_children):
        raise OutsideError(f"not usable as JSON: {values:,} values")
    found = outside.parse_json(data)
    if not isinstance(found, dict):
        raise OutsideError("not usable: it is not a JSON object")
    return found


def refused(status: Status, detail: str) -> IngestError:
    """The error of a stage that made something it may not make."""
    return stage_error(status)("output_refused", f"the stage's output was refused: {detail}")
