"""The interface of anything that decodes: the same for a process here and for a cluster elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from cytowatch.config import Config
from cytowatch.model import CheckRoom, Outcome, Progress
from cytowatch.record.entries import Manifest
from cytowatch.record.status import Status

__all__ = ["Decoders", "Decoding"]


class Decoding(Protocol):
    """One decoder process for one uploaded file's whole way; leaving it ends it."""

    #: 0 for one on another machine.
    pid: int
    start_time: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def run(
        self,
        status: Status,
        manifest: Manifest,
        *,
        out: Path,
        progress: Progress,
        check_room: CheckRoom,
        check_disk: Callable[[], None],
        stop: threading.Event | None,
    ) -> Outcome:
        """Run the stage of `status`, which may ask for room on the disk."""
        ...

    def end(self) -> int:
        """End it; after that, nothing changes its output."""
        ...


class Decoders(Protocol):
    """Where decoder processes come from. `start` and `ensure_alive` are for the main thread only."""

    #: Whether both Landlock and seccomp confine them.
    sandboxed: bool

    def start(self) -> None:
        """Get ready to fork."""

    def ensure_alive(self) -> None:
        """Get ready again, if the process that forks has died."""

    def reconfigure(self, config: Config) -> None:
        """Give `config` to decoders that begin from now on."""

    def fork(self, directory: Path, out: str) -> Decoding:
        """A decoder that works in `directory` and may only write below `out`. For any thread."""
        ...

    def stop(self) -> None:
        """End all of it."""
