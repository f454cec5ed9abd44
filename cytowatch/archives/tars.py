"""Reading a tar that somebody else made, packed or not, once from its beginning to its end.

Source: POSIX.1-2001, pax interchange format; the attacks named for Python's tarfile.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tarfile import HeaderError, InvalidHeaderError  # type: ignore[attr-defined]
from typing import BinaryIO, cast

from cytowatch.archives.common import (
    Budget,
    DamagedMember,
    Names,
    checked_path,
    is_icon,
)
from cytowatch.record.errors import ExtractionError
from cytowatch.record.quoting import quoting

__all__ = ["Member", "members", "opened", "unpack"]

_CHUNK_BYTES = 1 << 20
#: Members that only describe the tar or the next member: a label of the volume (GNU), an access list (Solaris).
_NOTES = frozenset({b"V", b"A"})
#: A folder with a list of what it held, of an incremental backup; the rest of a file from an earlier volume (GNU).
_LISTED_FOLDER, _CONTINUED = b"D", b"M"
_MAGIC, _MAGIC_AT = b"ustar", 257
#: So many members behind the end are named.
_MOST_NAMED = 100
#: What Python's tarfile and its decompressor raise over damaged bytes.
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file in a tar; `path` is as stated, checked.

    A hard link is a `copy_of` the earlier member at that path. What lies `behind` the end of the tar can only be
    named, and its path is not checked.
    """

    path: str
    size_bytes: int
    info: tarfile.TarInfo
    copy_of: str | None = None
    behind: bool = False


class _Header(tarfile.TarInfo):
    """Guards that a damaged header is not taken for the end of the tar, as tarfile does behind the first one."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Header:
        """The next header; raises `damaged_archive` for a damaged one that is not the first."""
        try:
            return super().fromtarfile(tarfile)
        except InvalidHeaderError as error:
            if not tarfile.offset:
                raise
            raise ExtractionError(
                "damaged_archive", "the tar cannot be read: a header in the middle of it is damaged"
            ) from error


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
            fileobj=stream,
            mode="r|",
            errorlevel=2,
            encoding="utf-8",
            errors="surrogateescape",
            tarinfo=_Header,
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
        if info.type in _NOTES or is_icon(info.name):
            continue
        if info.type == _CONTINUED:
            raise ExtractionError(
                "spanned", f"it is one of several volumes, and {shown} begins in an earlier one"
            )
        is_folder = info.isdir() or info.type == _LISTED_FOLDER
        if info.issym():
            raise ExtractionError("link", f"the member {shown} is a symbolic link")
        if not (info.isreg() or is_folder or info.islnk()):
            raise ExtractionError("special_file", f"the member {shown} is not a regular file")
        if info.size < 0:
            raise ExtractionError("damaged_archive", f"the member {shown} has a size below 0")
        path = checked_path(info.name)
        names.add(path, is_folder=is_folder)
        if is_folder:
            continue
        copy_of = _linked(info, sizes) if info.islnk() else None
        sizes[path] = info.size if copy_of is None else sizes[copy_of]
        budget.check(budget.spent_bytes + sizes[path])
        yield Member(path=path, size_bytes=sizes[path], info=info, copy_of=copy_of)
    for info in _behind(archive, budget):
        yield Member(path=info.name, size_bytes=0, info=info, behind=True)


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


def _behind(archive: tarfile.TarFile, budget: Budget) -> list[tarfile.TarInfo]:
    """Members behind the end of the tar, which every program passes over: of another one that was joined to it.

    The last checksum of a gzip is behind it too.

    Raises
    ------
    ExtractionError
        `damaged_archive`: no block of zeros ends it, so it may have been cut between two members.
    """
    stream = cast("BinaryIO", archive.fileobj)
    found: list[tarfile.TarInfo] = []
    begins = True
    while chunk := stream.read(_CHUNK_BYTES):
        budget.spend(len(chunk))
        if begins and (rest := chunk.lstrip(b"\0")):
            # The first of them may be of a tar without any mark.
            found += _headers(chunk, [(len(chunk) - len(rest)) // tarfile.BLOCKSIZE])
            begins = False
        found += _headers(chunk, _marked(chunk))
    if stream.tell() < archive.offset + tarfile.BLOCKSIZE:
        raise ExtractionError("damaged_archive", "the tar ends without its closing block of zeros")
    return list({one.name: one for one in found}.values())[:_MOST_NAMED]


def _marked(chunk: bytes) -> Iterator[int]:
    """The blocks in `chunk` that have the mark of a header."""
    at = chunk.find(_MAGIC)
    while at >= 0:
        if at % tarfile.BLOCKSIZE == _MAGIC_AT:
            yield at // tarfile.BLOCKSIZE
        at = chunk.find(_MAGIC, at + 1)


def _headers(chunk: bytes, blocks: Iterable[int]) -> Iterator[tarfile.TarInfo]:
    """The headers of files among `blocks`, by their checksums."""
    for number in blocks:
        block = chunk[number * tarfile.BLOCKSIZE :][: tarfile.BLOCKSIZE]
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (HeaderError, ValueError):
            continue
        if info.isreg():
            yield info


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
    if member.behind:
        raise DamagedMember(
            "damaged: it lies behind the end of the tar, as where two were joined; drop each by itself"
        )
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
