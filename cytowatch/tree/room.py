"""Room on the disk, in bytes and in inodes, which is reserved for what stages in work may still write.

Before it begins, each stage states how much it may write at most. Bytes that it has written since no
longer count, because the disk's free room has already shrunk by them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cytowatch.durable import trees
from cytowatch.record.errors import IngestError, TransientError, stage_error
from cytowatch.record.status import Status

if TYPE_CHECKING:
    # Commands start faster without this import.
    from cytowatch.config.keys import Storage

__all__ = [
    "FEW_INODES",
    "Amount",
    "Free",
    "OverdrawnError",
    "Room",
    "can_never_fit",
    "free",
    "never_fits",
    "spare",
    "too_little",
    "written",
]

#: The most inodes that a stage uses for anything but an archive: directories, a pyramid, pictures, a manifest.
FEW_INODES = 16
#: A small filesystem has few inodes, so at most this share of them is kept in reserve.
_PART_IN_RESERVE = 10
#: Tolerance for a stage's pictures, logs and a wrong estimate; anything more beyond its demand is room of others.
_MARGIN_BYTES = 256 << 20
_MARGIN_INODES = 1000
#: If no reserve is configured, a disk with less than this is full.
_FULL_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Bytes and inodes: what is needed, reserved or written."""

    bytes: int = 0
    inodes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(bytes=self.bytes + other.bytes, inodes=self.inodes + other.inodes)

    def __sub__(self, other: Amount) -> Amount:
        """The difference, but never less than zero."""
        return Amount(
            bytes=max(0, self.bytes - other.bytes), inodes=max(0, self.inodes - other.inodes)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """The free room; `inodes` and `all_inodes` are None if the filesystem has no limit."""

    bytes: int
    inodes: int | None = None
    all_inodes: int | None = None


def free(path: Path) -> Free:
    """The free room on the filesystem of `path`.

    btrfs and some network filesystems count no inodes and state 0 of 0.

    Source: statvfs(3)
    """
    found = os.statvfs(path)
    left = found.f_bavail * found.f_frsize
    if not found.f_files:
        return Free(bytes=left)
    return Free(bytes=left, inodes=found.f_favail, all_inodes=found.f_files)


def spare(settings: Storage, there: Free) -> Amount:
    """The reserve that is always kept free."""
    inodes = 0
    if there.all_inodes is not None:
        inodes = min(settings.reserve_inodes, there.all_inodes // _PART_IN_RESERVE)
    return Amount(bytes=settings.reserve_bytes, inodes=inodes)


def too_little(there: Free, need: Amount, kept: Amount, others: Amount | None = None) -> str | None:
    """Why `need` does not fit beside what is `kept` free and what `others` may write; None if it does."""
    reserved = others or Amount()
    for unit, left, wanted, spared, taken in (
        ("bytes", there.bytes, need.bytes, kept.bytes, reserved.bytes),
        ("inodes", there.inodes, need.inodes, kept.inodes, reserved.inodes),
    ):
        if left is None or left - taken - wanted >= spared:
            continue
        more = f", {taken:,} are reserved for what is in work and for uploads" if taken else ""
        said = f"up to {wanted:,} {unit} are needed, {left:,} are free" if wanted else (
            f"{left:,} {unit} are free"
        )  # fmt: skip
        return f"{said}, and {spared:,} must stay free as the reserve{more}"
    return None


def can_never_fit(path: Path, need: Amount) -> bool:
    """Whether the filesystem of `path` would be too small for `need` even if it were empty."""
    found = os.statvfs(path)
    too_many = bool(found.f_files) and need.inodes > found.f_files
    return too_many or need.bytes > found.f_blocks * found.f_frsize


def never_fits(status: Status, need: Amount) -> IngestError:
    """The error of a stage that asks for more room than the disk has."""
    return stage_error(status)(
        "larger_than_disk",
        f"it may need room for {need.bytes:,} bytes and {need.inodes:,} inodes, which is more than the "
        "whole disk has",
        retryable=True,
    )


def written(path: Path) -> Amount:
    """The room that the tree at `path` takes on the disk; zero if there is none."""
    size_bytes, count, _ = trees.disk_use(path)
    return Amount(bytes=size_bytes, inodes=count)


class OverdrawnError(TransientError):
    """A stage has written more than it asked for, and the disk is down to its reserve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    out: Path
    most: Amount

    def left(self) -> Amount:
        return self.most - written(self.out)


class Room:
    """Ensures that stages which run at the same time do not count on the same free room.

    Safe from any thread. `free` returns the free room of the disk, `announced` the bytes of it that uploads
    through the panel may still write.
    """

    def __init__(self, free: Callable[[], Free], announced: Callable[[], int] = lambda: 0) -> None:
        self._free = free
        self._announced = announced
        self._lock = threading.Lock()
        self._claims: dict[str, _Claim] = {}

    def reserve(self, id_: str, out: Path, need: Amount, *, settings: Storage) -> None:
        """Reserve `need` for what `id_` writes into `out`, beside the reserve of `settings`.

        Raises
        ------
        TransientError
            There is too little; it waits until there is room, or until another one is done.
        """
        with self._lock:
            others = sum(
                (claim.left() for key, claim in self._claims.items() if key != id_),
                self.announced(),
            )
            there = self._free()
            if lacks := too_little(there, need, spare(settings, there), others):
                raise TransientError("disk", lacks)
            self._claims[id_] = _Claim(out=out, most=written(out) + need)

    def check(
        self, id_: str, made: Sequence[Path], *, settings: Storage, accepted_bytes: int = 0
    ) -> None:
        """Stop `id_` if it has written more into `made` than it asked for and the disk is down to its reserve.

        Parameters
        ----------
        accepted_bytes
            The bytes that an earlier stage made, and that were accepted.

        Raises
        ------
        OverdrawnError
            It is stopped, its output is removed, and it waits; otherwise no other stage could begin.
        """
        there = self._free()
        kept = spare(settings, there)
        no_bytes = there.bytes < max(kept.bytes, _FULL_BYTES)
        no_inodes = there.inodes is not None and there.inodes < kept.inodes
        if not no_bytes and not no_inodes:
            return
        with self._lock:
            claim = self._claims.get(id_)
        asked = claim.most if claim is not None else Amount()
        found = [trees.disk_use(path) for path in made]
        took = Amount(
            bytes=max(0, sum(one[0] for one in found) - accepted_bytes),
            inodes=sum(one[1] for one in found),
        )
        # On a small disk, the few inodes are shared as well.
        margin = min(_MARGIN_BYTES, max(_FULL_BYTES, there.bytes))
        if no_bytes and took.bytes > asked.bytes + margin:
            raise OverdrawnError(
                "disk",
                f"it has written {took.bytes:,} bytes, of which it asked for {asked.bytes:,}, and "
                f"{there.bytes:,} are free",
            )
        if no_inodes and took.inodes > asked.inodes + _MARGIN_INODES:
            raise OverdrawnError(
                "disk",
                f"it has made {took.inodes:,} files, of which it asked for {asked.inodes:,}, and "
                f"{there.inodes:,} inodes are free",
            )
        if not all(one[2] for one in found):
            raise OverdrawnError(
                "disk", "it has made a tree that is deeper or larger than any stage needs"
            )

    def release(self, id_: str) -> None:
        """Release the reservation of `id_`, whose stage is over."""
        with self._lock:
            self._claims.pop(id_, None)

    def reserved(self) -> Amount:
        """The room that all stages in work may still use."""
        with self._lock:
            return sum((claim.left() for claim in self._claims.values()), Amount())

    def announced(self) -> Amount:
        """What uploads through the panel may still write."""
        return Amount(bytes=self._announced())
