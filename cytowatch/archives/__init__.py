"""Archives: everything that they say of themselves is doubted.

A hostile archive is refused whole; a damaged member is passed over. What is unpacked gets names
of our own, and the names that were stated are only told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from cytowatch.archives import tars, zips
from cytowatch.archives.common import Budget, DamagedMember

__all__ = ["Budget", "DamagedMember", "Unpacked", "unpack"]

#: Its file, its ``<id>/``, the folder of its source, its manifest.
_INODES_OF_A_MEMBER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """One member: the path that the archive states, and where it is now."""

    path: str
    file: str
    size_bytes: int


def unpack(
    archive: str,
    kind: str,
    folder: str,
    *,
    budget: Budget,
    wanted: Callable[[str], bool],
    room: Callable[[int, int], None],
    progress: Callable[[float], None],
) -> tuple[list[Unpacked], list[tuple[str, str]]]:
    """Unpack the `archive`, a ``zip`` or ``tar``, into `folder`: (members, passed over with why).

    Parameters
    ----------
    wanted
        Whether a path is unpacked at all.
    room
        Asked before anything is written whether so many bytes and so many inodes fit, where that is
        known before.

    Raises
    ------
    ExtractionError
        It is hostile, too large, or damaged as a whole.
    OSError
        It cannot be written.
    """
    os.makedirs(folder, mode=0o750)
    done: list[Unpacked] = []
    passed: list[tuple[str, str]] = []

    def take(path: str, write: Callable[[BinaryIO], int]) -> None:
        if not wanted(path):
            passed.append((path, "ignored"))
            return
        file = f"{folder}/{len(done) + len(passed):06}"
        try:
            with open(file, "xb") as target:
                size_bytes = write(target)
        except DamagedMember as error:
            os.unlink(file)
            passed.append((path, str(error)))
            return
        done.append(Unpacked(path=path, file=file, size_bytes=size_bytes))

    with open(archive, "rb") as stream:
        if kind == "tar":
            with tars.opened(stream) as tar:
                share = lambda _: progress(stream.tell() / max(1, budget.archive_bytes))  # noqa: E731
                for member in tars.members(tar, budget):
                    take(
                        member.path,
                        lambda target, m=member: tars.unpack(  # type: ignore[misc]
                            tar, m, target, budget=budget, progress=share
                        ),
                    )
        else:
            with zips.opened(stream) as packed:
                found = zips.members(packed, budget)
                total = max(1, sum(one.size_bytes for one in found))
                room(total, _INODES_OF_A_MEMBER * len(found))
                for one in found:
                    take(
                        one.path,
                        lambda target, m=one: zips.unpack(  # type: ignore[misc]
                            packed,
                            m,
                            target,
                            budget=budget,
                            progress=lambda count: progress(count / total),
                        ),
                    )
    return done, passed
