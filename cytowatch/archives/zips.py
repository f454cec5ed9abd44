"""Reading a zip that somebody else made: everything that it states is doubted.

A hostile archive is refused whole, before anything is unpacked; a damaged member is passed over.

Source: PKWARE APPNOTE 6.3.10; the attacks known as zip slip, overlap bomb and quine.
"""

from __future__ import annotations

import bisect
import itertools
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from cytowatch.archives import directory, encodings, packed
from cytowatch.archives.common import Budget, Names, checked_path, is_icon
from cytowatch.archives.directory import LOCAL_BYTES, WRAP, Entry
from cytowatch.record.errors import ExtractionError

__all__ = ["Archive", "Member", "members", "opened", "unpack"]

_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A zip in `file`; `encoding` is how names are read that state none."""

    file: BinaryIO
    encoding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file in an archive; `path` is checked, with ``/`` between its parts.

    `raw` is how the zip writes the last part of the path, and no other member lies before `end`.
    """

    path: str
    raw: bytes
    size_bytes: int
    entry: Entry
    end: int


@contextmanager
def opened(file: BinaryIO, *, encoding: str = encodings.AUTO) -> Iterator[Archive]:
    """The zip in `file`, whose names are read as `extract.names` says."""
    yield Archive(file=file, encoding=encoding)


def members(archive: Archive, budget: Budget) -> list[Member]:
    """Every file of `archive`, in the order of its directory.

    Raises
    ------
    ExtractionError
        It is hostile, damaged as a whole, or larger than the limits allow; the reason says which.
    """
    found = directory.read(archive.file, most_entries=budget.limits.archive_max_entries)
    _check_overlap(found.entries)
    decoded = encodings.decoded(found.entries, archive.encoding)
    bounds = sorted([*(entry.at for entry in found.entries), found.at, archive.file.seek(0, 2)])
    names = Names()
    files = []
    for entry, name in zip(found.entries, decoded, strict=True):
        shown = ascii(name.text)[1:-1][:200]
        _check_kind(entry, shown)
        # Some programs list the folder that they packed as "/".
        is_root = name.text in ("/", "\\") and not entry.size_bytes
        if is_root or is_icon(name.text):
            continue
        path = checked_path(name.text, guessed=name.guessed)
        # Programs of Windows may write "\\" between the parts of a name, and behind a folder's.
        ends = ("/", "\\") if not entry.size_bytes else "/"
        # Some programs say it only by attributes.
        is_folder = name.text.endswith(ends) or (entry.is_folder and not entry.size_bytes)
        names.add(path, is_folder=is_folder)
        if not is_folder:
            # What begins behind every bound has none of its own.
            after = bisect.bisect_right(bounds, entry.at)
            files.append(
                Member(
                    path=path,
                    raw=name.tail(path.rpartition("/")[2]),
                    size_bytes=entry.size_bytes,
                    entry=entry,
                    end=bounds[min(after, len(bounds) - 1)],
                )
            )
    budget.check(sum(one.size_bytes for one in files))
    return files


def unpack(
    archive: Archive,
    member: Member,
    target: BinaryIO,
    *,
    budget: Budget,
    progress: Callable[[int], None],
    room: Callable[[int], None] = lambda _: None,
) -> int:
    """Write the bytes of `member` to `target`; gives how many there were.

    Parameters
    ----------
    room
        Asked for each 4 GiB that come out beyond what is stated.

    Raises
    ------
    ExtractionError
        With those before it is more than the limits allow, no matter what it stated.
    DamagedMember
        It is cut short, does not fit its checksum, or is packed in a way that is not supported.
    OSError
        It cannot be written.
    """
    written = 0
    allowed = member.size_bytes
    for chunk in packed.chunks(archive.file, member.entry, member.end):
        written += len(chunk)
        budget.spend(len(chunk))
        while written > allowed:
            room(WRAP)
            allowed += WRAP
        target.write(chunk)
        progress(budget.spent_bytes)
    return written


def _check_kind(entry: Entry, shown: str) -> None:
    kind = stat.S_IFMT(entry.mode)
    if entry.flags & _ENCRYPTED:
        raise ExtractionError("encrypted", f"the member {shown} is encrypted")
    if kind == stat.S_IFLNK:
        raise ExtractionError("link", f"the member {shown} is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ExtractionError("special_file", f"the member {shown} is not a regular file")


def _check_overlap(entries: tuple[Entry, ...]) -> None:
    """Members that share bytes unpack to far more than the archive holds."""
    for before, after in itertools.pairwise(sorted(entries, key=lambda entry: entry.at)):
        if before.at + LOCAL_BYTES + before.packed_bytes > after.at:
            raise ExtractionError("overlapping_entries", "two of its members share the same bytes")
