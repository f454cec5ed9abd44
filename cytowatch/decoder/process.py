"""The daemon's side of the sandboxed decoders: fork one, ask it for a stage, end it."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from cytowatch.config import Config
from cytowatch.decoder import answers, facts, unchanged, wire
from cytowatch.decoder.ends import DecoderCrashed, Stopped
from cytowatch.decoder.gone import Doomed
from cytowatch.decoder.pace import Pace
from cytowatch.model import CheckRoom, Outcome, Progress
from cytowatch.outside import OutsideError
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import TransientError, stage_error
from cytowatch.record.status import Status

__all__ = ["Decoder", "Reaper"]

_LOOK_AT_STOP_S = 0.1
_LOOK_AT_DISK_S = 1.0
#: More threads than any decoder needs. The kernel and the unit's TasksMax count them together with all others, and
#: no limit of a single process bounds them: RLIMIT_NPROC counts all those of a user.
_MOST_THREADS = max(128, 4 * (os.cpu_count() or 1))


class Reaper(Protocol):
    """The parent of a decoder process, which ends it and waits until it is gone."""

    #: Whether the filter of system calls confines the decoders, so that none can start another process.
    filtered: bool

    def reap(self, pid: int) -> int:
        """Kill `pid` with its whole group and everything it started; return its wait status."""
        ...

    def bury(self, pid: int) -> None:
        """The same for a process that has nothing left to do, without waiting for its end."""
        ...


class Decoder:
    """One sandboxed decoder process for all stages of one uploaded file; leaving the context kills its group."""

    def __init__(
        self,
        reaper: Reaper,
        channel: socket.socket,
        pid: int,
        started: int,
        config: Config,
    ) -> None:
        self._reaper = reaper
        self._channel = channel
        self._config = config
        self._doomed = Doomed(pid)
        self._still = False
        self._reaped = False
        self._refused = False
        self._stop: threading.Event | None = None
        self.pid = pid
        self.start_time = started

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._still or self._reaped:
            self.end()
            return
        # Its output is published; this only waits for its memory, which the next one may need.
        self._reaped = True
        self._doomed.wait_gone(self._stops)
        self._doomed.close()
        self._reaper.bury(self.pid)

    def end(self) -> int:
        """Kill it with its group and wait until it is gone; return its wait status.

        After that, nothing changes its output. A second call does nothing.

        Raises
        ------
        Stopped
            It is not gone, and the daemon stops.
        """
        if self._reaped:
            return 0
        self._reaped = True
        # Before its channel is closed, or it might end by itself with a code that says nothing.
        self._doomed.kill()
        self._channel.close()
        gone = self._doomed.wait_gone(self._stops)
        self._doomed.close()
        if not gone and self._stops():
            self._reaper.bury(self.pid)
            raise Stopped("the daemon stops")
        return self._reaper.reap(self.pid)

    def _halt(self) -> None:
        """Kill it and wait until nothing can change its output any more.

        Raises
        ------
        Stopped
            The daemon stops.
        """
        if self._reaped or self._still:
            return
        if not self._reaper.filtered:
            # It may have started other processes.
            self.end()
            return
        self._channel.close()
        self._doomed.kill()
        self._still = self._doomed.wait_still(self._stops)
        if not self._still:
            self.end()

    def _stops(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def run(
        self,
        status: Status,
        manifest: Manifest,
        *,
        out: Path,
        progress: Progress,
        check_room: CheckRoom = lambda _need_bytes, _need_inodes=0: None,
        check_disk: Callable[[], None] = lambda: None,
        stop: threading.Event | None = None,
    ) -> Outcome:
        """Run the stage of `status`, which may ask for room on the disk.

        When this returns after the last stage, the process can no longer do anything; after an error it is gone.

        Parameters
        ----------
        out
            Where its ``out.<attempt>`` is now.
        check_disk
            Called every second during the stage, no matter what the decoder process says.

        Raises
        ------
        IngestError, TransientError
            The stage raised it, as `answers.understood` says; or `check_room` or `check_disk` did;
            or the derived output does not match the answer.
        DecoderCrashed, DecoderTimedOut
            It did not answer, and is gone.
        Stopped
            `stop` was set meanwhile.
        """
        limits = self._config.engine
        self._stop = stop
        pace = Pace(limits.stage_timeout_s, limits.no_progress_s, now=time.monotonic())
        self._refused = False
        try:
            message = self._answer(status, manifest, pace, progress, check_room, check_disk, stop)
            if "answer_in" in message:
                most = self._config.limits.archive_max_entries
                message = answers.read_in_file(out, status, manifest, most_children=most)
            outcome = answers.understood(status, message)
        except (wire.ProtocolError, OutsideError) as error:
            self.end()
            raise stage_error(status)(
                "unexpected", f"the decoder's answer makes no sense: {error}"[:500]
            ) from None
        except answers.ClaimedFaultError as fault:
            self.end()
            if self._refused:
                # We refused it the room that it asked for.
                raise TransientError(fault.why, fault.detail) from None
            raise
        except BaseException:
            self.end()
            raise
        if outcome.status.is_final:
            self._halt()
            outcome = self._hashed(status, manifest, outcome, out, pace, progress, stop)
        return outcome

    def _hashed(
        self,
        status: Status,
        manifest: Manifest,
        outcome: Outcome,
        out: Path,
        pace: Pace,
        progress: Progress,
        stop: threading.Event | None,
    ) -> Outcome:
        """The outcome with the hashes of the derived output; until now a thread of the decoder process could write to it."""

        def look() -> None:
            if stop is not None and stop.is_set():
                raise Stopped("the daemon stops")
            if pace.whole_left_s <= 0:
                raise pace.passed()

        if "files" not in outcome.changes:
            # Nothing was made; the stage verified what is already published.
            return outcome
        most = self._config.limits.archive_max_entries
        facts.check(status, manifest, outcome, most_children=most)
        derived = out.parent / "derived"
        files = unchanged.with_hashes(
            status,
            derived if derived.exists() else out,
            outcome.changes["files"],
            progress=progress,
            look=look,
        )
        return Outcome(status=outcome.status, changes={**outcome.changes, "files": files})

    def _answer(
        self,
        status: Status,
        manifest: Manifest,
        pace: Pace,
        progress: Progress,
        check_room: CheckRoom,
        check_disk: Callable[[], None],
        stop: threading.Event | None,
    ) -> dict[str, Any]:
        """The message that ends the stage; all messages before it are handled here."""

        def give_up() -> bool:
            return pace.left_s <= 0 or (stop is not None and stop.is_set())

        # A process that stops in the middle of a message must not block this thread.
        self._channel.settimeout(_LOOK_AT_STOP_S)
        try:
            wire.send(self._channel, {"status": status.name, "manifest": manifest}, give_up=give_up)
        except TimeoutError:
            pass
        except OSError:
            raise DecoderCrashed(self.end()) from None
        looked_at = time.monotonic()
        while True:
            left = pace.left_s
            if left <= 0:
                raise pace.passed()
            if stop is not None and stop.is_set():
                raise Stopped("the daemon stops")
            self._check_threads(status)
            if time.monotonic() - looked_at > _LOOK_AT_DISK_S:
                looked_at = time.monotonic()
                check_disk()
            if not select.select([self._channel], [], [], min(left, _LOOK_AT_STOP_S))[0]:
                continue
            try:
                data = wire.frame(self._channel, most_bytes=answers.LARGEST_BYTES, give_up=give_up)
            except TimeoutError:
                continue
            if data is None:
                raise DecoderCrashed(self.end())
            pace.heard(len(data), time.monotonic())
            message = wire.parsed(data)
            if "progress" in message:
                share = answers.share(message["progress"])
                pace.moved(share, time.monotonic())
                progress(share)
            elif "need_bytes" in message:
                need = answers.room_asked_for(message)
                self._say_of_room(check_room, need, give_up)
            else:
                return message

    def _check_threads(self, status: Status) -> None:
        """End the stage if its decoder takes threads that everything else needs."""
        try:
            # Its link count is the number of threads plus two: fs/proc/base.c, proc_task_getattr.
            count = os.stat(f"/proc/{self.pid}/task").st_nlink - 2
        except OSError:
            # It has ended, or /proc is hidden from us.
            return
        if count > _MOST_THREADS:
            raise stage_error(status)(
                "unexpected",
                f"its decoder made {count:,} threads, more than the {_MOST_THREADS:,} allowed",
            )

    def _say_of_room(
        self, check_room: CheckRoom, need: tuple[int, int], give_up: Callable[[], bool]
    ) -> None:
        try:
            check_room(*need)
        except TransientError as error:
            self._refused = True
            answer = {"refused": error.detail}
        else:
            answer = {}
        with suppress(OSError):
            wire.send(self._channel, answer, give_up=give_up)
