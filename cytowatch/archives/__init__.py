"""Archives: everything that they say of themselves is doubted.

A hostile archive is refused whole; a damaged member is passed over. What is unpacked gets names
of our own, and the names that were stated are only shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from cytowatch import durable
from cytowatch.archives import tars, zips
from cytowatch.archives.common import Budget, DamagedMember
from cytowatch.archives.encodings import AUTO

__all__ = ["AUTO", "Budget", "DamagedMember", "Unpacked", "unpack"]

_CHUNK_BYTES = 1 << 20
#: Its file, its ``<id>/``, the folder of its source, its manifest.
_INODES_OF_A_MEMBER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """One member: the path that the archive states, and the `file` where it is now.

    What of the path could not be decoded stands in it as lone surrogates. `raw` is how the archive
    writes the last part of it.
    """

    path: str
    raw: bytes
    file: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taker:
    """Guards that each member gets a file of its own, or is passed over with a reason."""

    folder: str
    wanted: Callable[[str], bool]
    done: dict[str, Unpacked]
    passed: list[tuple[str, str]]

    def take(self, path: str, raw: bytes, write: Callable[[BinaryIO], int]) -> None:
        """Let `write` fill the file of the member at `path`, if it is wanted."""
        if not self.wanted(path):
            self.passed.append((path, "ignored"))
            return
        file = f"{self.folder}/{len(self.done) + len(self.passed):06}"
        try:
            with open(file, "xb") as target:
                size_bytes = write(target)
        except DamagedMember as error:
            durable.empty(file)
            self.passed.append((path, str(error)))
            return
        self.done[path] = Unpacked(path=path, raw=raw, file=file, size_bytes=size_bytes)


def unpack(
    archive: str,
    kind: str,
    folder: str,
    *,
    budget: Budget,
    wanted: Callable[[str], bool],
    room: Callable[[int, int], None],
    progress: Callable[[float], None],
    encoding: str = AUTO,
) -> tuple[list[Unpacked], list[tuple[str, str]]]:
    """Unpack the `archive`, a ``zip`` or ``tar``, into `folder`: (members, passed over with why).

    Parameters
    ----------
    wanted
        Whether a path is unpacked at all.
    room
        Asked before anything is written whether so many bytes and so many inodes fit, where that is
        known before.
    encoding
        How names in a zip are read that state no encoding: ``auto`` guesses.

    Raises
    ------
    ExtractionError
        It is hostile, too large, or damaged as a whole.
    OSError
        It cannot be written.
    """
    os.makedirs(folder, mode=0o750)
    taker = _Taker(folder=folder, wanted=wanted, done={}, passed=[])
    with open(archive, "rb") as stream:
        if kind == "tar":
            share = lambda _: progress(stream.tell() / max(1, budget.archive_bytes))  # noqa: E731
            _untar(stream, taker, budget, share)
        else:
            _unzip(stream, taker, budget, room, progress, encoding)
    return list(taker.done.values()), taker.passed


def _untar(
    stream: BinaryIO, taker: _Taker, budget: Budget, progress: Callable[[int], None]
) -> None:
    with tars.opened(stream) as tar:
        for member in tars.members(tar, budget):

            def write(target: BinaryIO, member: tars.Member = member) -> int:
                if member.copy_of is not None:
                    return _copy(taker.done.get(member.copy_of), target, budget, progress)
                return tars.unpack(tar, member, target, budget=budget, progress=progress)

            raw = os.fsencode(member.path.rpartition("/")[2])
            taker.take(member.path, raw, write)


def _copy(
    first: Unpacked | None, target: BinaryIO, budget: Budget, progress: Callable[[int], None]
) -> int:
    """Write the bytes of `first` once more, which count once more as well."""
    if first is None:
        raise DamagedMember("damaged: it is a copy of a member that was passed over")
    with open(first.file, "rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            budget.spend(len(chunk))
            target.write(chunk)
            progress(budget.spent_bytes)
    return first.size_bytes


def _unzip(
    stream: BinaryIO,
    taker: _Taker,
    budget: Budget,
    room: Callable[[int, int], None],
    progress: Callable[[float], None],
    encoding: str,
) -> None:
    with zips.opened(stream, encoding=encoding) as archive:
        found = zips.members(archive, budget)
        total = max(1, sum(one.size_bytes for one in found))
        room(total, _INODES_OF_A_MEMBER * len(found))
        for member in found:

            def write(target: BinaryIO, member: zips.Member = member) -> int:
                return zips.unpack(
                    archive,
                    member,
                    target,
                    budget=budget,
                    progress=lambda count: progress(min(1.0, count / total)),
                    room=lambda more: room(more, 0),
                )

            taker.take(member.path, member.raw, write)
