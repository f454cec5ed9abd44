"""In the decoder process: run the stages that the daemon asks for, and report the result of each."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.decoder import answers, wire
from cytowatch.model import CheckRoom, Outcome, UploadedFile
from cytowatch.record.errors import IngestError, TransientError, stage_error
from cytowatch.record.quoting import plain, quoting
from cytowatch.record.status import Status

__all__ = ["serve"]

_PROGRESS_EVERY_S = 0.1
#: How many errors behind an error are written to the log.
_MOST_CAUSES = 5


def serve(
    channel: socket.socket,
    out: str,
    config: Config,
    stages: Mapping[Status, Callable[[UploadedFile], Outcome]],
) -> None:
    """Answer requests until the daemon closes its end."""
    while (request := wire.receive(channel, most_bytes=wire.LARGEST_REQUEST_BYTES)) is not None:
        status = Status[request["status"]]
        file = UploadedFile(
            manifest=request["manifest"],
            out=out,
            config=config,
            progress=_throttled(channel),
            check_room=_asking(channel),
        )
        answer = _answer(stages[status], status, file)
        wire.send(channel, _encoded(status, answer, out))
        if _is_last(answer):
            # The daemon waits until this process is gone, so leave the processor to it.
            return


def _is_last(answer: dict[str, Any]) -> bool:
    """Whether the daemon asks for nothing more after `answer`."""
    outcome = answer.get("outcome")
    return outcome is None or Status[outcome["status"]].is_final


def _encoded(status: Status, answer: dict[str, Any], out: str) -> bytes:
    """The answer as a message; if it is too large, it is written to a file and the message names that."""
    try:
        data = wire.encoded(answer)
    except (TypeError, ValueError, RecursionError) as error:
        return wire.encoded(_unexpected(status, error))
    if len(data) <= answers.LARGEST_BYTES:
        return data
    try:
        with open(f"{out}/{answers.IN_FILE}", "wb") as file:
            file.write(data)
    except OSError as error:
        return wire.encoded(answers.of_fault(durable.why_of(error), os.strerror(error.errno or 0)))
    return wire.encoded({"answer_in": answers.IN_FILE})


def _throttled(channel: socket.socket) -> Callable[[float], None]:
    last = 0.0

    def progress(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_S:
            last = now
            wire.send(channel, {"progress": min(1.0, max(0.0, share))})

    return progress


def _asking(channel: socket.socket) -> CheckRoom:
    """Ask the daemon for room: it knows what else is in work on the same disk."""

    def check_room(need_bytes: int, need_inodes: int = 0) -> None:
        wire.send(channel, {"need_bytes": need_bytes, "need_inodes": need_inodes})
        answer = wire.receive(channel, most_bytes=wire.LARGEST_REQUEST_BYTES)
        if answer is None or "refused" in answer:
            raise TransientError("disk", str((answer or {}).get("refused", "the daemon is gone")))

    return check_room


def _answer(
    stage: Callable[[UploadedFile], Outcome], status: Status, file: UploadedFile
) -> dict[str, Any]:
    try:
        outcome = stage(file)
    except TransientError as error:
        return answers.of_fault(error.why, error.detail)
    except IngestError as error:
        # A library that starts no thread fails as with a damaged image.
        if any(durable.says_no_thread(str(one)) for one in (error, *_causes(error))):
            return _no_thread()
        _note_what_was_said(error)
        return answers.of_error(error)
    except MemoryError:
        return answers.of_error(_out_of_memory(status, file.config))
    except OSError as error:
        if durable.is_transient(error):
            said = os.strerror(error.errno or 0)
            return answers.of_fault(durable.why_of(error), said)
        return _unexpected(status, error)
    except Exception as error:  # noqa: BLE001 - anything that a decoder raises is this file's error
        if "out of memory" in str(error).lower():
            return answers.of_error(_out_of_memory(status, file.config))
        # Libraries raise errors of their own for a full disk, with the system's words in them.
        if durable.says_full(str(error)):
            return answers.of_fault("disk", "no space is left for its output")
        if durable.says_no_thread(str(error)):
            return _no_thread()
        return _unexpected(status, error)
    return answers.of_outcome(outcome)


def _out_of_memory(status: Status, config: Config) -> IngestError:
    return stage_error(status)(
        "out_of_memory",
        f"it needs more than the {config.sandbox.memory_bytes:,} bytes of memory that a decoder "
        "may use (sandbox.memory_bytes)",
        retryable=True,
    )


def _note_what_was_said(error: IngestError) -> None:
    """For the log: everything a library said; the detail quotes a line of it."""
    for cause in _causes(error):
        error.add_note(f"{type(cause).__name__}: {cause}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    for _ in range(_MOST_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _no_thread() -> dict[str, Any]:
    return answers.of_fault(
        "processes",
        "no further thread or process is allowed: see TasksMax of the unit, or the container's limit of pids",
    )


def _unexpected(status: Status, error: Exception) -> dict[str, Any]:
    found = stage_error(status)(
        "unexpected",
        quoting("an unexpected error occurred", f"{type(error).__name__}: {plain(error)}"),
    )
    found.add_note(traceback.format_exc()[-8000:])
    return answers.of_error(found)
