"""Reading a tar that somebody else made, packed or not, once from its beginning to its end.

Source: POSIX.1-2001, pax interchange format; the attacks named for Python's tarfile.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal

from cytowatch.archives.common import Budget, DamagedMember, Names, checked_path
from cytowatch.errors import ExtractionError

__all__ = ["Member", "members", "opened", "unpack"]

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file in a tar; `path` is as stated, checked."""

    path: str
    size_bytes: int
    info: tarfile.TarInfo

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@contextmanager
def opened(file: BinaryIO) -> Iterator[tarfile.TarFile]:
    """The tar in `file`, to be read once.

    Raises
    ------
    ExtractionError
        `damaged_archive`: it cannot be read, or ends too early.
    """
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    try:
        mode: Literal["r|gz", "r|"] = "r|gz" if packed else "r|"
        archive = tarfile.open(fileobj=file, mode=mode, errorlevel=2)  # noqa: SIM115 - see below
    except (tarfile.TarError, EOFError, zlib.error, ValueError, TypeError) as error:
        # The last one is what tarfile makes of a gzip header that ends too soon.
        raise ExtractionError("damaged_archive", f"the tar cannot be read: {error}") from error
    try:
        with archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise ExtractionError("damaged_archive", f"the tar cannot be read: {error}") from error


def members(archive: tarfile.TarFile, budget: Budget) -> Iterator[Member]:
    """Every file of `archive`; each is unpacked before the next one is asked for.

    Raises
    ------
    ExtractionError
        It is hostile, or larger than the limits allow; the reason says in which way.
    """
    names = Names()
    most = budget.limits.archive_max_entries
    for number, info in enumerate(archive):
        # In a stream tarfile keeps every header that it has seen.
        archive.members = []  # type: ignore[attr-defined]
        if number >= most:
            raise ExtractionError(
                "too_many_entries", f"it holds more than {most:,} members, which are allowed"
            )
        shown = ascii(info.name)[1:-1][:200]
        if info.issym() or info.islnk():
            raise ExtractionError("link", f"the member {shown} is a link")
        if not (info.isreg() or info.isdir()):
            raise ExtractionError("special_file", f"the member {shown} is no regular file")
        path = checked_path(info.name)
        names.add(path, is_folder=info.isdir())
        if info.isdir():
            continue
        budget.check(budget.spent_bytes + info.size)
        yield Member(path=path, size_bytes=info.size, info=info)


def unpack(
    archive: tarfile.TarFile,
    member: Member,
    target: BinaryIO,
    *,
    budget: Budget,
    progress: Callable[[int], None],
) -> int:
    """Write the bytes of `member` to `target`; gives how many there were.

    Raises
    ------
    ExtractionError
        With those before it is more than the limits allow.
    DamagedMember
        It is shorter than it says.
    OSError
        It cannot be written.
    """
    written = 0
    source = archive.extractfile(member.info)
    if source is None:
        raise DamagedMember("no regular file")
    while chunk := source.read(_CHUNK_BYTES):
        written += len(chunk)
        budget.spend(len(chunk))
        target.write(chunk)
        progress(budget.spent_bytes)
    if written != member.size_bytes:
        raise DamagedMember("damaged: it is shorter than it says")
    return written
