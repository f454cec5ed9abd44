"""On a worker of a cluster: one stage of one uploaded file, in the same sandboxed process as anywhere.

The worker mounts the root that the daemon has; ``$CYTOWATCH_ROOT`` says where; without it,
the path is the same as the daemon's. Nothing is renamed here, and no manifest is written.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from cytowatch import durable
from cytowatch.config import Config, from_mapping
from cytowatch.decoder import answers
from cytowatch.decoder.ends import DecoderCrashed
from cytowatch.decoder.forks import Zygote
from cytowatch.decoder.pace import DecoderTimedOut
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import IngestError, TransientError
from cytowatch.record.status import Status
from cytowatch.tree import room
from cytowatch.tree.room import Amount

__all__ = ["progress_name", "run_stage"]

_TELL_EVERY_S = 0.5


class BegunBefore(Exception):
    """Another worker has begun this very attempt, and was or was not lost."""


def progress_name(out: str) -> str:
    """The file in ``<id>/`` that states how much of the stage is done."""
    return f"progress.{out}"


class _Keeper:
    """Guards the zygote of this process. A thread that never ends starts it, because a zygote ends with its thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: queue.SimpleQueue[tuple[Config, str, Future[Zygote]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def zygote(self, config: Config, stages: str) -> Zygote:
        """A zygote that is alive."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="zygote", daemon=True)
                self._thread.start()
        wanted: Future[Zygote] = Future()
        self._asked.put((config, stages, wanted))
        return wanted.result()

    def _keep(self) -> None:
        made: dict[str, Zygote] = {}
        while True:
            config, stages, wanted = self._asked.get()
            try:
                if stages not in made:
                    made[stages] = Zygote(config, stages=stages)
                    made[stages].start()
                made[stages].ensure_alive()
                made[stages].reconfigure(config)
                wanted.set_result(made[stages])
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                made.pop(stages, None)
                wanted.set_exception(error)


_keeper = _Keeper()


def run_stage(request: dict[str, Any]) -> dict[str, Any]:
    """The result of one stage: an outcome, an error, a fault of the machine, or the end of the process.

    Raises
    ------
    BegunBefore
        This attempt was begun by another worker.
    """
    config = from_mapping(request["config"])
    root = Path(os.environ.get("CYTOWATCH_ROOT") or config.root)
    directory = root / request["inside"]
    out, status = request["out"], Status[request["status"]]
    try:
        _mark(directory, request["token"])
        zygote = _keeper.zygote(config, request["stages"])
        disk = _Disk(directory, out, status, request["manifest"], config)
        with zygote.fork(directory, out) as decoder:
            told = _Told(directory / progress_name(out))
            outcome = decoder.run(
                status,
                request["manifest"],
                out=directory / out,
                progress=told,
                check_room=disk.check_room,
                check_disk=disk.check,
            )
    except (DecoderCrashed, DecoderTimedOut) as end:
        return answers.of_end(end)
    except TransientError as fault:
        return answers.of_fault(fault.why, f"on {os.uname().nodename}: {fault.detail}")
    except IngestError as error:
        return answers.of_error(error)
    except FileNotFoundError as error:
        said = f"on {os.uname().nodename}: {error.filename} is not there: is the root mounted?"
        return answers.of_fault("root", said)
    return answers.of_outcome(outcome, sandboxed=zygote.sandboxed)


def _mark(directory: Path, token: str) -> None:
    """Mark that the attempt of `token` has begun, which can be done only once."""
    try:
        os.close(
            os.open(
                directory / f"begun.{token}",
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                0o640,
            )
        )
    except FileExistsError:
        raise BegunBefore(directory.name) from None


class _Disk:
    """Limits what one stage may write here, as the daemon does for a decoder process on its own machine."""

    def __init__(
        self, directory: Path, out: str, status: Status, manifest: Manifest, config: Config
    ) -> None:
        self._directory, self._out, self._status = directory, directory / out, status
        self._settings = config.storage
        self._room = room.Room(lambda: room.free(directory))
        rows = manifest["files"]
        self._accepted = sum(
            row["size_bytes"] for row in rows if row["path"].startswith("derived/")
        )

    def check_room(self, need_bytes: int, need_inodes: int = 0) -> None:
        """Reserve the room that the stage asks for."""
        need = Amount(bytes=need_bytes, inodes=max(room.FEW_INODES, need_inodes))
        if room.can_never_fit(self._directory, need):
            raise room.never_fits(self._status, need)
        self._room.reserve(self._out.name, self._out, need, settings=self._settings)

    def check(self) -> None:
        """Stop the stage if it fills the disk beyond what it asked for, or if the daemon has given it up.

        Raises
        ------
        FileNotFoundError
            Its output is gone: the daemon has thrown it away, or this machine has lost the root.
        """
        os.stat(self._out)
        self._room.check(
            self._out.name,
            [self._out, self._directory / "derived"],
            settings=self._settings,
            accepted_bytes=self._accepted,
        )


class _Told:
    """Write the share that is done, now and then, to a file that the daemon sees."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = float("-inf")

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self._at < _TELL_EVERY_S:
            return
        self._at = now
        try:
            durable.replace_file(self._path, json.dumps({"share": share}))
        except OSError as error:
            if not durable.is_full(error) and error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
