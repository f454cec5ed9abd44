"""The source of decoder processes: one zygote, which has loaded the decoders, forks each of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytowatch.config import Config, to_mapping
from cytowatch.decoder import sandbox
from cytowatch.decoder.ends import signal_name
from cytowatch.decoder.process import Decoder
from cytowatch.record.errors import CytowatchError, TransientError

__all__ = ["Zygote", "settings_of"]

_START_TIMEOUT_S = 60.0
#: A fork takes milliseconds; a zygote that is stopped must not delay the end of the daemon.
_ANSWER_TIMEOUT_S = 5.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.001, 0.1


def _why_not(said: bytes | None, process: subprocess.Popen[bytes]) -> str | None:
    """Why it did not start, if it did not. `said` is its last message; None if it said nothing in the time allowed."""
    if said is None:
        return f"it said nothing for {_START_TIMEOUT_S:g} s"
    if said:
        failed = json.loads(said).get("failed")
        return None if failed is None else str(failed)
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(_ANSWER_TIMEOUT_S)
        return f"it ended by {signal_name(-code)}" if code < 0 else f"it ended with code {code}"
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
        enforced = sandbox.enforced()
        #: Whether both Landlock and seccomp confine the decoders.
        self.sandboxed = bool(enforced["holds"])
        #: Whether seccomp does, so that no decoder can start another process.
        self.filtered = bool(enforced["calls"])

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self._process.pid if self._process else None

    def reconfigure(self, config: Config) -> None:
        """Decoders that are forked from now on get `config`."""
        self._config = config
        self._settings = json.dumps(settings_of(config))

    def start(self) -> None:
        """Start it and wait until it has loaded the decoders.

        Raises
        ------
        TransientError
            It does not start.
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
                    # Nothing is imported from the directory in which the daemon was started.
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

    def fork(self, directory: Path, out: str) -> Decoder:
        """A decoder process that works in `directory` and may only write below `out`. For any thread.

        Raises
        ------
        TransientError
            The zygote is gone, or the kernel cannot start another process.
        """
        channel, pid, started = self.process(directory, out)
        return Decoder(self, channel, pid, started, self._config)

    def process(
        self, directory: Path, out: str, *, nice: int = sandbox.NICE
    ) -> tuple[socket.socket, int, int]:
        """The same, for any kind of process that the zygote's module serves: its channel, its pid, when it started.

        If `out` is empty, it cannot write anything. `reap` or `bury` it at the end.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            answer = self._ask(
                {
                    "fork": os.fspath(directory),
                    "out": out,
                    "nice": nice,
                    "config": self._settings,
                },
                [theirs.fileno()],
            )
        if "pid" not in answer:
            ours.close()
            raise TransientError(
                "zygote", f"no decoder process could be forked: {answer.get('error')}"
            )
        return ours, answer["pid"], answer["start_time"]

    def reap(self, pid: int) -> int:
        """Kill `pid` with its whole group and everything it started; return its wait status."""
        pause_s = _FIRST_PAUSE_S
        # Ends when the process or the zygote is gone.
        while True:
            try:
                answer = self._ask({"reap": pid}, [])
            except TransientError:
                return int(signal.SIGKILL)
            if answer:
                return int(answer.get("status", 0))
            # The zygote does not wait, because other processes must be forked meanwhile.
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    def bury(self, pid: int) -> None:
        """Kill `pid` with its whole group, which has nothing left to do, without waiting for its end."""
        with self._lock, suppress(OSError):
            if self._channel is not None:
                self._channel.settimeout(_ANSWER_TIMEOUT_S)
                self._channel.send(json.dumps({"bury": pid}).encode())

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        with self._lock:
            if self._channel is None:
                raise TransientError("zygote", "the process that starts decoders is gone")
            try:
                self._channel.settimeout(_ANSWER_TIMEOUT_S)
                socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)
                answer = self._channel.recv(1 << 16)
            except TimeoutError as error:
                # A late answer would be taken for the next one, so a new zygote is used from now on.
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
    """The configuration for a decoder, without what it need not know: the addresses of the hooks."""
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
        # Rows of a wide image are tens of megabytes. Freed memory is kept for the next rows; otherwise the
        # kernel would have to zero each page again.
        "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
        "PYTHONPATH": os.pathsep.join(_import_path()),
    }
    if threads != "auto":
        found["VIPS_CONCURRENCY"] = str(threads)
    return found


def _import_path() -> list[str]:
    """The import path of this process, without its current directory."""
    own = os.fspath(Path(__file__).resolve().parents[2])
    others = (path for path in sys.path if os.path.isabs(path) and path != os.getcwd())
    return [own, *others]
