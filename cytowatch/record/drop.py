"""A drop: what lies in an inbox, and why it waits."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Drop", "Fingerprint", "Waiting", "fingerprint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a look at a dropped file shows without opening it; any difference is a change."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One file that lies in an inbox; `path` is relative to ``inbox/``, as the system spells it."""

    user: str
    path: str
    project: str | None
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(self.path)

    @property
    def room(self) -> str:
        """Where drops belong to the same user and project: ``ann`` or ``ann/@project``."""
        return self.path.split("/", 1)[0] if self.project is None else self._project_room

    @property
    def _project_room(self) -> str:
        return "/".join(self.path.split("/", 2)[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why a drop stays where it is: a word for metrics, a sentence for people.

    With `once_quiet` it counts only when nothing about the drop has changed for a while.
    """

    why: str
    detail: str
    once_quiet: bool = False


def fingerprint(found: os.stat_result) -> Fingerprint:
    """What of `found` changes whenever someone writes."""
    return Fingerprint(
        device=found.st_dev,
        inode=found.st_ino,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        blocks=found.st_blocks,
    )
