"""The small records that stages, engine and inbox pass to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cytowatch.config import Config
from cytowatch.record.entries import Manifest
from cytowatch.record.status import Status

__all__ = [
    "SCRATCH",
    "CheckRoom",
    "Mpp",
    "Outcome",
    "Progress",
    "UploadedFile",
]

#: The folder in ``out.<attempt>`` for what decoders cannot keep in memory; it goes with the attempt.
SCRATCH = "scratch"
#: Told the share of the stage that is done, 0.0 to 1.0; may be called as often as one likes.
Progress = Callable[[float], None]


class CheckRoom(Protocol):
    """Asked before so many bytes and inodes at most are written; raises TransientError if they do not fit.

    Anyone who states no inodes needs a few: those of a pyramid and its pictures.
    """

    def __call__(self, need_bytes: int, need_inodes: int = 0, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Mpp:
    """Pixel size of level 0 in micrometres per pixel."""

    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """What a stage is given. It runs in ``<id>/``: every path is relative to that directory.

    `out` is the only place where it may write (``out.<attempt>``).
    """

    manifest: Manifest
    out: str
    config: Config
    progress: Progress = field(default=lambda _share: None)
    #: Asked before a stage writes so much at most; raises TransientError if it does not fit.
    check_room: CheckRoom = field(default=lambda _need_bytes, _need_inodes=0: None)

    @property
    def source(self) -> str:
        """The path of the (first) source file, as ``source/CMU-1.svs``."""
        return next(file["path"] for file in self.manifest["files"] if file["role"] == "source")

    @property
    def slug(self) -> str:
        """The name in its safe form, without an extension: the end of the id."""
        return self.manifest["id"].split("-", 3)[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a stage returns: the status that follows, and the keys of the manifest that it found."""

    status: Status
    changes: Mapping[str, Any] = field(default_factory=dict)
