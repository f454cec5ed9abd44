"""What treating needs besides the uploaded file, and who is told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from cytowatch.config import Config
from cytowatch.decoder.child import Zygote
from cytowatch.decoder.cluster import Cluster
from cytowatch.engine.doubts import Doubts
from cytowatch.engine.firsts import Contents
from cytowatch.record.names import UploadedFileId
from cytowatch.transitions.enter import Place
from cytowatch.tree.index.index import Index
from cytowatch.tree.room import Room
from cytowatch.tree.spool import Spool

__all__ = ["Observer", "Treatment"]


class Observer(Protocol):
    """Who is told what happens to uploaded files: metrics, logs, the live view."""

    def entered(self, before: Place, after: Place, seconds: float) -> None:
        """`before` became `after`; the stage took `seconds`."""

    def progressed(self, place: Place, share: float) -> None:
        """The stage of `place` is done to `share`, 0.0 to 1.0."""

    def crashed(self, place: Place, signal: str) -> None:
        """The child that treated `place` died of `signal`."""

    def retried(self, place: Place) -> None:
        """The stage of `place` begins anew."""

    def said(self, id_: str, words: str) -> None:
        """All that a library said of `id_`, of which the detail quotes a line."""

    def unforeseen(self, id_: str, error: BaseException) -> None:
        """A defect, ours or a library's, was met while `id_` was in work."""

    def held_up(self, id_: UploadedFileId, why: str, detail: str) -> None:
        """A fault of the machine makes `id_` wait; it goes on by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What treating needs besides the uploaded file; `between_stages` may take its thread a while."""

    spool: Spool
    config: Config
    zygote: Zygote | Cluster
    observer: Observer
    index: Index
    contents: Contents
    room: Room
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    stop: threading.Event
    between_stages: Callable[[], None] = lambda: None
    #: What is counted per uploaded file while this process runs.
    doubts: Doubts = field(default_factory=Doubts)
