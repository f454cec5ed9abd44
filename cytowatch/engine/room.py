"""Room on the disk: what stages in work may still write is kept for them, so that all of them fit.

Each stage says how much it may write at most before it begins; what it has written since counts
no more, for the disk's own free bytes have gone down by it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cytowatch import trees
from cytowatch.errors import IngestError, TransientError, stage_error
from cytowatch.status import Status

__all__ = ["Room", "can_never_fit", "free_bytes", "never_fits", "written_bytes"]


def free_bytes(path: Path) -> int:
    """What anybody may still write to the filesystem of `path`, in bytes."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def written_bytes(path: Path) -> int:
    """What the tree at `path` takes of the disk, in bytes; 0 if there is none."""
    return trees.disk_bytes(path)


def can_never_fit(path: Path, need_bytes: int) -> bool:
    """Whether the whole filesystem of `path`, emptied, would be too small for `need_bytes`."""
    found = os.statvfs(path)
    return need_bytes > found.f_blocks * found.f_frsize


def never_fits(status: Status, need_bytes: int) -> IngestError:
    """The error of a stage that asks for more room than the disk has."""
    return stage_error(status)(
        "larger_than_disk",
        f"it may need {need_bytes:,} bytes of room, which is more than the whole disk has",
        retryable=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    out: Path
    most_bytes: int

    def left_bytes(self) -> int:
        return max(0, self.most_bytes - written_bytes(self.out))


class Room:
    """Guards that stages which run at the same time do not count on the same free bytes.

    Safe from any thread. `free` tells the free bytes of the disk.
    """

    def __init__(self, free: Callable[[], int]) -> None:
        self._free = free
        self._lock = threading.Lock()
        self._claims: dict[str, _Claim] = {}

    def reserve(self, id_: str, out: Path, need_bytes: int, *, spare_bytes: int) -> None:
        """Keep `need_bytes` more for what `id_` writes into `out`; `spare_bytes` stay free in any case.

        Raises
        ------
        TransientError
            There is too little: it waits until there is room, or until another one is done.
        """
        with self._lock:
            others = sum(c.left_bytes() for key, c in self._claims.items() if key != id_)
            free = self._free()
            if free - others - need_bytes < spare_bytes:
                kept = f", {others:,} are reserved for what is in work" if others else ""
                raise TransientError(
                    "disk",
                    f"up to {need_bytes:,} bytes are needed, {free:,} are free, "
                    f"of which {spare_bytes:,} are kept in reserve{kept}",
                )
            self._claims[id_] = _Claim(out=out, most_bytes=written_bytes(out) + need_bytes)

    def release(self, id_: str) -> None:
        """The stage of `id_` is over."""
        with self._lock:
            self._claims.pop(id_, None)

    def reserved_bytes(self) -> int:
        """What all stages in work may still write."""
        with self._lock:
            return sum(claim.left_bytes() for claim in self._claims.values())
