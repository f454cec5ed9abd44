"""``engine.kind = "dask"``: the same stage in the same sandboxed process, on any free machine.

Only the daemon renames, counts and publishes. A worker of the cluster mounts the same root, runs one
stage of one uploaded file in a decoder process of its own, and sends back the answer. It leaves a mark
before it begins. If the first worker is lost and the scheduler gives the stage to a second one, the
second finds the mark and refuses: the daemon counts the attempt and begins again in another
``out.<attempt>/``. Anything that a lost worker still writes goes to a directory that is no longer read.

Source: distributed.dask.org (worker resources, resilience)
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytowatch import outside
from cytowatch.config import Config
from cytowatch.decoder import answers, remote
from cytowatch.decoder.ends import DecoderCrashed, Stopped
from cytowatch.decoder.forks import settings_of
from cytowatch.model import CheckRoom, Outcome, Progress
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import RootError, TransientError
from cytowatch.record.status import Status

__all__ = ["Cluster"]

_LOOK_EVERY_S = 0.1
_CONNECT_TIMEOUT_S = 5.0
_CONNECT_EVERY_S = 5.0


class Cluster:
    """Guards one connection to a scheduler; it takes the place that a `Zygote` has for local work.

    Raises
    ------
    RootError
        dask is not installed.
    """

    def __init__(self, config: Config, root: Path, *, stages: str = "cytowatch.stages") -> None:
        if importlib.util.find_spec("distributed") is None:
            raise RootError(
                'engine.kind = "dask", and distributed is not installed: pip install cytowatch[dask]'
            )
        self._config = config
        self._root = root
        self._stages = stages
        self._lock = threading.Lock()
        self._client: Any = None
        self._connecting = threading.Thread()
        self._tried_at = float("-inf")
        self._closed = threading.Event()
        #: Whether Landlock held the decoders that answered last, on the machines where they ran.
        self.sandboxed = True

    @property
    def pid(self) -> int | None:
        """No process of this machine."""
        return None

    def reconfigure(self, config: Config) -> None:
        """Stages that begin from now on are done by `config`."""
        self._config = config

    def start(self) -> None:
        """Begin to connect. Meanwhile the daemon continues, and work that needs the cluster waits."""
        self.ensure_alive()
        self._connecting.join(_CONNECT_TIMEOUT_S + 1.0)

    def ensure_alive(self) -> None:
        """Connect again if the scheduler is gone; never blocks."""
        if self._client is not None or self._connecting.is_alive():
            return
        if time.monotonic() - self._tried_at < _CONNECT_EVERY_S:
            return
        self._tried_at = time.monotonic()
        self._connecting = threading.Thread(target=self._connect, name="dask", daemon=True)
        self._connecting.start()

    def _connect(self) -> None:
        # Imported here: only a site with a cluster has it installed.
        import distributed

        with suppress(OSError, TimeoutError, ValueError):
            client = distributed.Client(
                self._config.engine.scheduler, timeout=_CONNECT_TIMEOUT_S, set_as_default=False,
                name="cytowatch",
            )  # fmt: skip
            with self._lock:
                self._client = client
            if self._closed.is_set():
                self._drop(client)

    def _drop(self, client: Any) -> None:
        """Forget a connection that no longer works."""
        with self._lock:
            if self._client is client:
                self._client = None
        with suppress(Exception):
            client.close(timeout=1.0)

    def stop(self) -> None:
        """Close the connection; results of what still runs on the cluster are ignored."""
        self._closed.set()
        if self._client is not None:
            self._drop(self._client)

    def fork(self, directory: Path, out: str) -> RemoteDecoder:
        """A decoder for the uploaded file at `directory`, on any machine that has room.

        Raises
        ------
        TransientError
            The scheduler is not to be reached.
        """
        return RemoteDecoder(self, os.path.relpath(directory, self._root), directory, out)

    def submit(self, request: dict[str, Any]) -> tuple[Any, Any]:
        """(client, future) of a stage that is given to the cluster.

        Raises
        ------
        TransientError
            The scheduler is not to be reached.
        """
        client = self._client
        if client is None or client.status != "running":
            if client is not None:
                self._drop(client)
            raise TransientError(
                "scheduler", f"the scheduler at {self._config.engine.scheduler} does not answer"
            )
        try:
            future = client.submit(
                remote.run_stage, {**request, "config": settings_of(self._config), "stages": self._stages},
                pure=False, retries=0, resources={"cytowatch": 1},
            )  # fmt: skip
        except Exception as error:
            self._drop(client)
            raise TransientError("scheduler", f"it takes no work: {error}"[:200]) from error
        return client, future

    def lost(self, client: Any) -> bool:
        """Whether the scheduler of `client` no longer answers; if so, the connection is dropped."""
        # After any exception, the connection can no longer be used.
        with suppress(Exception):
            if client.status == "running":
                client.run_on_scheduler(_nothing)
                return False
        self._drop(client)
        return True


def _nothing() -> None:
    """A call that a working scheduler answers at once."""


class RemoteDecoder:
    """Runs the stages of one uploaded file on other machines; each stage is given to the cluster by itself."""

    pid = 0
    start_time = 0

    def __init__(self, cluster: Cluster, inside: str, directory: Path, out: str) -> None:
        self._cluster = cluster
        self._inside = inside
        self._directory = directory
        self._out = out
        self._future: Any = None

    def __enter__(self) -> RemoteDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> int:
        """Let go of what runs elsewhere: a stage that has answered is over, and its process is gone."""
        future, self._future = self._future, None
        if future is not None:
            with suppress(Exception):
                future.cancel(force=True)
        return 0

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
        """As `Decoder.run`, except that the worker itself looks for room on the disk.

        Raises
        ------
        IngestError, TransientError, DecoderCrashed, DecoderTimedOut, Stopped
            As `Decoder.run` does; `TransientError` as well when the scheduler is gone.
        """
        # The directory moves with the status; the worker finds it by its last name.
        name = self._directory.name
        request = {
            "token": secrets.token_hex(8), "inside": f"stages/{status.directory}/{name}", "out": self._out, "status": status.name,
            "manifest": manifest,
        }  # fmt: skip
        client, self._future = self._cluster.submit(request)
        told = f"stages/{status.directory}/{name}/{remote.progress_name(self._out)}"
        answer = self._wait(client, stop, progress, self._cluster._root / told, check_disk)
        return self._understood(status, answer)

    def _wait(
        self,
        client: Any,
        stop: threading.Event | None,
        progress: Progress,
        told: Path,
        check_disk: Callable[[], None],
    ) -> dict[str, Any]:
        asked_at = time.monotonic()
        while not self._future.done():
            if stop is not None and stop.is_set():
                raise Stopped("the daemon stops")
            time.sleep(_LOOK_EVERY_S)
            with suppress(OSError, KeyError, outside.OutsideError):
                progress(answers.share(outside.read_json(told)["share"]))
            if time.monotonic() - asked_at > _CONNECT_EVERY_S:
                asked_at = time.monotonic()
                check_disk()
                if self._cluster.lost(client):
                    break
        try:
            answer: dict[str, Any] = self._future.result(timeout=_CONNECT_TIMEOUT_S)
        except Exception as error:
            if self._cluster.lost(client):
                raise TransientError(
                    "scheduler", "the scheduler is gone; it waits for it"
                ) from error
            # The worker is gone, or a second worker refused a stage that the first had begun.
            crash = DecoderCrashed(0)
            crash.exit_code = None
            raise crash from error
        return answer

    def _understood(self, status: Status, answer: dict[str, Any]) -> Outcome:
        if (held := answers.sandboxed(answer)) is not None:
            self._cluster.sandboxed = held
        return answers.understood(status, answer, of_worker=True)
