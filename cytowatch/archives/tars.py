"""Reading a tar that somebody else made, packed or not, once from its beginning to its end.

Source: POSIX.1-2001, pax interchange format; the attacks named for Python's tarfile.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from cytowatch.archives.common import Budget, DamagedMember, Names, checked_path
from cytowatch.record.errors import ExtractionError
from cytowatch.record.quoting import quoting

__all__ = ["Member", "members", "opened", "unpack"]

_CHUNK_BYTES = 1 << 20
#: What Python's tarfile and its decompressor raise over damaged bytes.
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file in a tar; `path` is as stated, checked.

    A hard link is a `copy_of` the earlier member at that path.
    """

    path: str
    size_bytes: int
    info: tarfile.TarInfo
    copy_of: str | None = None


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
    # A gzip may consist of several (RFC 1952, 2.2), of which tarfile itself reads the first only.
    stream = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
    try:
        with tarfile.open(
            fileobj=stream, mode="r|", errorlevel=2, encoding="utf-8", errors="surrogateescape"
        ) as archive:
            yield archive
    except RecursionError as error:
        # Each header that describes the next one takes tarfile one call deeper.
        raise ExtractionError(
            "damaged_archive", "the tar cannot be read (too many headers describe one member)"
        ) from error
    except _DAMAGE as error:
        raise ExtractionError(
            "damaged_archive", quoting("the tar cannot be read", error)
        ) from error


def members(archive: tarfile.TarFile, budget: Budget) -> Iterator[Member]:
    """Every file of `archive`; each is unpacked before the next one is asked for.

    Raises
    ------
    ExtractionError
        It is hostile, or larger than the limits allow; the reason says in which way.
    """
    names = Names()
    sizes: dict[str, int] = {}
    most = budget.limits.archive_max_entries
    for number, info in enumerate(archive):
        # In a stream tarfile keeps every header that it has seen.
        archive.members = []  # type: ignore[attr-defined]
        if number >= most:
            raise ExtractionError(
                "too_many_entries", f"it holds more than the {most:,} members allowed"
            )
        shown = ascii(info.name)[1:-1][:200]
        if info.issym():
            raise ExtractionError("link", f"the member {shown} is a symbolic link")
        if not (info.isreg() or info.isdir() or info.islnk()):
            raise ExtractionError("special_file", f"the member {shown} is not a regular file")
        if info.size < 0:
            raise ExtractionError("damaged_archive", f"the member {shown} has a size below 0")
        path = checked_path(info.name)
        names.add(path, is_folder=info.isdir())
        if info.isdir():
            continue
        copy_of = _linked(info, sizes) if info.islnk() else None
        sizes[path] = info.size if copy_of is None else sizes[copy_of]
        budget.check(budget.spent_bytes + sizes[path])
        yield Member(path=path, size_bytes=sizes[path], info=info, copy_of=copy_of)
    _read_end(archive, budget)


def _linked(info: tarfile.TarInfo, earlier: Mapping[str, int]) -> str:
    """The path of the earlier member that a hard link is another name of.

    Source: POSIX.1-2001, ustar: the linkname of type 1 is a file that was archived before it.
    """
    try:
        path = checked_path(info.linkname)
    except ExtractionError:
        path = ""
    if path not in earlier:
        shown = ascii(info.name)[1:-1][:200]
        raise ExtractionError(
            "link", f"the member {shown} is a link to something that is not before it in the tar"
        )
    return path


def _read_end(archive: tarfile.TarFile, budget: Budget) -> None:
    """Read the rest, because the last checksum of a gzip is behind it; a block of zeros must begin it.

    Where that block is missing the archive may have been cut between two members.
    """
    stream = cast("BinaryIO", archive.fileobj)
    while chunk := stream.read(_CHUNK_BYTES):
        budget.spend(len(chunk))
    if stream.tell() < archive.offset + tarfile.BLOCKSIZE:
        raise ExtractionError("damaged_archive", "the tar ends without its closing block of zeros")


def unpack(
    archive: tarfile.TarFile,
    member: Member,
    target: BinaryIO,
    *,
    budget: Budget,
    progress: Callable[[int], None],
) -> int:
    """Write the bytes of `member`, which is not a copy, to `target`; gives how many there were.

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
        raise DamagedMember("damaged: it is not a regular file")
    while chunk := source.read(_CHUNK_BYTES):
        written += len(chunk)
        budget.spend(len(chunk))
        target.write(chunk)
        progress(budget.spent_bytes)
    if written != member.size_bytes:
        raise DamagedMember("damaged: it is shorter than it says")
    return written
