"""Reading a zip that somebody else made: everything that it says of itself is doubted.

A hostile archive is refused whole, before anything is unpacked; a damaged member is passed over.

Source: PKWARE APPNOTE 6.3.10; the attacks known as zip slip, overlap bomb and quine.
"""

from __future__ import annotations

import itertools
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO

from cytowatch.archives.common import Budget, DamagedMember, Names, checked_path
from cytowatch.errors import ExtractionError

__all__ = ["Member", "members", "opened", "unpack"]

_CHUNK_BYTES = 1 << 20
#: What Python's zipfile and its decompressors raise over damaged bytes.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error, OverflowError,
)  # fmt: skip
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1
_END = b"PK\5\6"
_END_BYTES = 22
#: The end of the directory with the longest comment.
_LONGEST_TAIL_BYTES = _END_BYTES + 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file in an archive; `path` is as stated, checked, with ``/`` between its parts."""

    path: str
    size_bytes: int
    info: zipfile.ZipInfo

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def opened(file: BinaryIO) -> zipfile.ZipFile:
    """The archive in `file`.

    Raises
    ------
    ExtractionError
        `damaged_archive`: it has no readable directory. `spanned`: it is one part of several.
        `doubled_directory`: it has two, and programs differ in which they believe.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise ExtractionError("damaged_archive", f"the zip cannot be read: {error}") from error
    _check_end(file, archive)
    return archive


def _check_end(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """There is one end of one directory, wherever no member's data lie."""
    size = file.seek(0, 2)
    tail_at = max(0, size - _LONGEST_TAIL_BYTES)
    tail = _read(file, tail_at, size)
    # As zipfile looks for it: an end without a comment first, else the last mark of one.
    plain = tail[-_END_BYTES:].startswith(_END) and tail.endswith(b"\0\0")
    end = tail_at + (len(tail) - _END_BYTES if plain else tail.rfind(_END))
    _, this_disk, directory_disk = struct.unpack_from("<4sHH", tail, end - tail_at)
    if this_disk not in (0, 0xFFFF) or directory_disk not in (0, 0xFFFF):
        raise ExtractionError("spanned", "it is one part of an archive that is split over several")
    entries = archive.infolist()
    if any(entry.header_offset < 0 for entry in entries):
        raise ExtractionError("damaged_archive", "a member of the zip lies before its beginning")
    begin = min((entry.header_offset for entry in entries), default=archive.start_dir)
    last = begin
    if entries:
        final = max(entries, key=lambda entry: entry.header_offset)
        local = _read(file, final.header_offset, final.header_offset + _LOCAL_HEADER_BYTES)
        if len(local) == _LOCAL_HEADER_BYTES:
            data_at = final.header_offset + len(local) + sum(struct.unpack_from("<HH", local, 26))
            last = data_at + final.compress_size
    for start, stop in ((0, begin), (last, end), (end + 4, size)):
        near = max(start, stop - _LONGEST_TAIL_BYTES)
        if _has_end(_read(file, near, stop)):
            raise ExtractionError(
                "doubled_directory", "it has two directories, and programs differ in which they use"
            )


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(max(0, stop - start))


def _has_end(data: bytes) -> bool:
    """Whether the end of a directory is in `data`, right behind that directory."""
    at = data.find(_END)
    while at >= 0:
        if len(data) - at >= _END_BYTES:
            directory_bytes, comment_bytes = struct.unpack_from("<I4xH", data, at + 12)
            begins = at - directory_bytes
            empty = directory_bytes == 0 and at + _END_BYTES + comment_bytes <= len(data)
            if empty or (begins >= 0 and data.startswith(b"PK\1\2", begins)):
                return True
        at = data.find(_END, at + 1)
    return False


def members(archive: zipfile.ZipFile, budget: Budget) -> list[Member]:
    """Every file of `archive`, in the order of its directory.

    Raises
    ------
    ExtractionError
        It is hostile, or larger than the limits allow; the reason says in which way.
    """
    entries = archive.infolist()
    most = budget.limits.archive_max_entries
    if len(entries) > most:
        raise ExtractionError(
            "too_many_entries", f"it holds {len(entries):,} members, {most:,} are allowed"
        )
    _check_overlap(entries)
    names = Names()
    found = []
    for entry in entries:
        path = _path(entry)
        # Programs of Windows may write "\\" between the parts of a name, and behind a folder's.
        is_folder = entry.filename.endswith(("/", "\\"))
        names.add(path, is_folder=is_folder)
        if not is_folder:
            found.append(Member(path=path, size_bytes=entry.file_size, info=entry))
    budget.check(sum(one.size_bytes for one in found))
    return found


def unpack(
    archive: zipfile.ZipFile,
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
        With those before it is more than the limits allow, whatever it stated.
    DamagedMember
        It is cut short, does not fit its checksum, or is packed in an unknown way.
    OSError
        It cannot be written.
    """
    written = 0
    try:
        with archive.open(member.info) as source:
            while chunk := _next(source):
                written += len(chunk)
                budget.spend(len(chunk))
                target.write(chunk)
                progress(budget.spent_bytes)
    except _DAMAGE as error:
        raise DamagedMember(f"damaged: {error}") from error
    except (NotImplementedError, RuntimeError) as error:
        raise DamagedMember(f"packed in an unknown way: {error}") from error
    return written


def _next(source: IO[bytes]) -> bytes:
    """The next bytes of a member.

    Raises
    ------
    DamagedMember
        bz2 says so by an OSError without a number, which no disk ever gives.
    """
    try:
        return source.read(_CHUNK_BYTES)
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedMember(f"damaged: {error}") from error


def _path(entry: zipfile.ZipInfo) -> str:
    stated = entry.orig_filename
    shown = ascii(stated)[1:-1][:200]
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.flag_bits & _ENCRYPTED:
        raise ExtractionError("encrypted", f"the member {shown} is encrypted: send it without")
    if kind == stat.S_IFLNK:
        raise ExtractionError("link", f"the member {shown} is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ExtractionError("special_file", f"the member {shown} is no regular file")
    return checked_path(stated)


def _check_overlap(entries: list[zipfile.ZipInfo]) -> None:
    """Members that share bytes unpack to far more than the archive holds."""
    for before, after in _pairs(sorted(entries, key=lambda entry: entry.header_offset)):
        if before.header_offset + _LOCAL_HEADER_BYTES + before.compress_size > after.header_offset:
            raise ExtractionError("overlapping_entries", "two of its members share the same bytes")


def _pairs(
    entries: list[zipfile.ZipInfo],
) -> Iterator[tuple[zipfile.ZipInfo, zipfile.ZipInfo]]:
    yield from itertools.pairwise(entries)
