"""The daemon's side of the sandboxed children: fork one, ask it for a stage, be rid of it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from cytowatch.config import Config, to_mapping
from cytowatch.decoder import answers, sandbox, unchanged, wire
from cytowatch.decoder.pace import ChildTimedOut, Pace
from cytowatch.decoder.recorded import kill_recorded, record
from cytowatch.model import CheckRoom, Outcome, Progress
from cytowatch.outside import OutsideError
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import CytowatchError, TransientError, stage_error
from cytowatch.record.status import Status

__all__ = [
    "Child",
    "ChildCrashed",
    "ChildTimedOut",
    "Stopped",
    "Zygote",
    "kill_recorded",
    "record",
    "settings_of",
]

_LOOK_AT_STOP_S = 0.1
_LOOK_AT_DISK_S = 1.0
_START_TIMEOUT_S = 60.0
#: A fork takes milliseconds; a zygote that is stopped must not hold up the end of the daemon.
_ANSWER_TIMEOUT_S = 5.0
#: More threads than any decoder needs. The kernel, and TasksMax of the unit, count them with all others', and
#: no limit of a process bounds its own: RLIMIT_NPROC counts a user's.
_MOST_THREADS = max(128, 4 * (os.cpu_count() or 1))


class ChildCrashed(CytowatchError):
    """The child ended without an answer; `signal` names what killed it, if anything did."""

    def __init__(self, status: int) -> None:
        self.wait_status = status
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self.signal = _signal_name(number) if number else None
        self.exit_code = os.WEXITSTATUS(status) if number is None else None
        super().__init__(self.signal or f"exit code {self.exit_code}")


def _signal_name(number: int) -> str:
    """A name such as SIGSEGV; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


class Stopped(CytowatchError):
    """The daemon stops; the stage was broken off."""


def _why_not(said: bytes | None, process: subprocess.Popen[bytes]) -> str | None:
    """Why it did not come up, if it did not, from what it `said` last: None for nothing in all its time."""
    if said is None:
        return f"it said nothing for {_START_TIMEOUT_S:g} s"
    if said:
        failed = json.loads(said).get("failed")
        return None if failed is None else str(failed)
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(_ANSWER_TIMEOUT_S)
        return f"it ended by {_signal_name(-code)}" if code < 0 else f"it ended with code {code}"
    return "it closed its channel"


class Zygote:
    """Guards one zygote process. `start` and `ensure_alive` are for the main thread only.

    The kernel kills it when the thread that started it ends, so it never outlives the daemon.
    """

    def __init__(self, config: Config, *, stages: str = "cytowatch.stages") -> None:
        self._config = config
        self._settings = json.dumps(settings_of(config))
        self._stages = stages
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        #: Whether both walls hold the decoders: Landlock and seccomp.
        self.sandboxed = bool(sandbox.enforced()["holds"])

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self._process.pid if self._process else None

    def reconfigure(self, config: Config) -> None:
        """Children that are forked from now on get `config`."""
        self._config = config
        self._settings = json.dumps(settings_of(config))

    def start(self) -> None:
        """Start it and wait until it has loaded the decoders.

        Raises
        ------
        TransientError
            It does not come up.
        CytowatchError
            This kernel cannot sandbox, and the configuration demands it.
        """
        if self._config.sandbox.require and not self.sandboxed:
            raise CytowatchError(
                "this kernel cannot sandbox a decoder (no Landlock), and sandbox.require is true"
            )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    # Nothing is imported from wherever the daemon was started.
                    "-P",
                    "-m",
                    "cytowatch.decoder.zygote",
                    str(theirs.fileno()),
                    self._stages,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("CYTOWATCH_DEBUG") else subprocess.DEVNULL,
                env=_environment(self._config),
                start_new_session=True,
            )
        ours.settimeout(_START_TIMEOUT_S)
        try:
            ready = ours.recv(1 << 16)
        except TimeoutError:
            ready = None
        if (why := _why_not(ready, self._process)) is not None:
            ours.close()
            self._process.kill()
            self._process.wait()
            said = f"the process that starts decoders does not come up: {why}"
            raise TransientError("zygote", said)
        ours.settimeout(None)
        self._channel = ours

    def ensure_alive(self) -> None:
        """Start another one if it has died."""
        if self._process is not None and self._process.poll() is None:
            return
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
        with suppress(TransientError):
            self.start()

    def stop(self) -> None:
        """End it; children that still run are killed with it."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def fork(self, directory: Path, out: str) -> Child:
        """A child that stands in `directory` and may write below `out` only. For any thread.

        Raises
        ------
        TransientError
            The zygote is gone, or the kernel has no process left.
        """
        channel, pid, started = self.process(directory, out)
        return Child(self, channel, pid, started, self._config)

    def process(self, directory: Path, out: str) -> tuple[socket.socket, int, int]:
        """The same, for anything that the zygote's module does: the child's channel, its pid, when it started.

        Nothing can be written where `out` is empty. `reap` or `bury` it at the end.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            answer = self._ask(
                {"fork": os.fspath(directory), "out": out, "config": self._settings},
                [theirs.fileno()],
            )
        if "pid" not in answer:
            ours.close()
            raise TransientError("zygote", f"no child could be forked: {answer.get('error')}")
        return ours, answer["pid"], answer["start_time"]

    def reap(self, pid: int) -> int:
        """Kill `pid` with its whole group and give its wait status."""
        try:
            return int(self._ask({"reap": pid}, []).get("status", 0))
        except TransientError:
            return int(signal.SIGKILL)

    def bury(self, pid: int) -> None:
        """Kill `pid` with its whole group, which has nothing left to do; its end is not waited for."""
        with suppress(TransientError):
            self._ask({"bury": pid}, [])

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        with self._lock:
            if self._channel is None:
                raise TransientError("zygote", "the process that starts decoders is gone")
            try:
                self._channel.settimeout(_ANSWER_TIMEOUT_S)
                socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)
                answer = self._channel.recv(1 << 16)
            except TimeoutError as error:
                # A late answer would be taken for the next one's, so it is another one from now on.
                if self._process is not None:
                    self._process.kill()
                raise TransientError(
                    "zygote", "the process that starts decoders does not answer, and was ended"
                ) from error
            except OSError as error:
                raise TransientError("zygote", f"it does not answer: {error}") from error
        if not answer:
            raise TransientError("zygote", "the process that starts decoders is gone")
        found: dict[str, Any] = json.loads(answer)
        return found


def settings_of(config: Config) -> dict[str, Any]:
    """What a decoder need not know it is not told: whom the hooks tell."""
    return {**to_mapping(config), "hooks": []}


def _environment(config: Config) -> dict[str, str]:
    threads = config.engine.threads_per_worker
    found = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "CYTOWATCH_PARENT": str(os.getpid()),
        "VIPS_BLOCK_UNTRUSTED": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # Rows of a wide image are tens of megabytes: what is freed is kept for the next ones, or the
        # kernel would have to zero each page of them again.
        "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
        "PYTHONPATH": os.pathsep.join(_import_path()),
    }
    if threads != "auto":
        found["VIPS_CONCURRENCY"] = str(threads)
    return found


def _import_path() -> list[str]:
    """Where this process imports from, without the folder that it happens to stand in."""
    own = os.fspath(Path(__file__).resolve().parents[2])
    others = (path for path in sys.path if os.path.isabs(path) and path != os.getcwd())
    return [own, *others]


class Child:
    """One sandboxed child, for one uploaded file's whole way; leaving it kills its group."""

    def __init__(
        self,
        zygote: Zygote,
        channel: socket.socket,
        pid: int,
        started: int,
        config: Config,
    ) -> None:
        self._zygote = zygote
        self._channel = channel
        self._config = config
        self._reaped = False
        self._refused = False
        self.pid = pid
        self.start_time = started

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> int:
        """Kill it with its group and wait until it is gone; gives its wait status.

        From then on nothing changes what it made. A second time does nothing.
        """
        if self._reaped:
            return 0
        self._reaped = True
        self._channel.close()
        return self._zygote.reap(self.pid)

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
        """Let the child do the stage of `status`; it may ask for room on the disk.

        After the last stage, or an error, it is gone when this returns.

        Parameters
        ----------
        out
            Where its ``out.<attempt>`` is now.
        check_disk
            Called every second meanwhile, no matter what the child says.

        Raises
        ------
        IngestError, TransientError
            What the stage raised, as `answers.understood` says; or what `check_room` or `check_disk` raised;
            or what was derived is not what the answer says.
        ChildCrashed, ChildTimedOut
            The child gave no answer; it is gone.
        Stopped
            `stop` was set meanwhile.
        """
        limits = self._config.engine
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
                # It was refused the room that it asked for, by us.
                raise TransientError(fault.why, fault.detail) from None
            raise
        except BaseException:
            self.end()
            raise
        if outcome.status.is_final:
            self.end()
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
        """The outcome with the hashes of what was derived: until now a thread of the child could write to it."""

        def look() -> None:
            if stop is not None and stop.is_set():
                raise Stopped("the daemon stops")
            if pace.whole_left_s <= 0:
                raise pace.passed()

        if "files" not in outcome.changes:
            # Nothing was made: what is published already is verified.
            return outcome
        most = self._config.limits.archive_max_entries
        answers.check(status, manifest, outcome, most_children=most)
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
        """The message that ends the stage; what comes before it is dealt with."""

        def give_up() -> bool:
            return pace.left_s <= 0 or (stop is not None and stop.is_set())

        # A child that stops in the middle of a message must not hold this thread.
        self._channel.settimeout(_LOOK_AT_STOP_S)
        try:
            wire.send(self._channel, {"status": status.name, "manifest": manifest}, give_up=give_up)
        except TimeoutError:
            pass
        except OSError:
            raise ChildCrashed(self.end()) from None
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
                raise ChildCrashed(self.end())
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
        """One decoder must not take the threads that everybody else needs."""
        try:
            # Its number of links is two more than there are threads: fs/proc/base.c, proc_task_getattr.
            count = os.stat(f"/proc/{self.pid}/task").st_nlink - 2
        except OSError:
            # It has ended, or /proc is hidden from us.
            return
        if count > _MOST_THREADS:
            raise stage_error(status)(
                "unexpected",
                f"its decoder made {count:,} threads, of which {_MOST_THREADS:,} are allowed",
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
