"""The directory of a zip: where every member begins, and what is stated of it.

The macOS Finder writes no zip64: it states sizes, offsets and the number of members modulo 2^32 and
2^16; the number is not read. Offsets are put right here, by the headers of the members themselves; sizes are stated as they
are, because only unpacking shows them.

Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.16, 4.5.3 and 4.6.9;
https://github.com/thejoshwolfe/yauzl/issues/69 (what the Finder writes)
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from cytowatch.archives.alike import alike
from cytowatch.formats.structure import zip_end
from cytowatch.record.errors import ExtractionError

__all__ = ["LOCAL_BYTES", "WRAP", "Directory", "Entry", "data_begin", "read"]

#: A field of 32 bits that is too small begins again at 0.
WRAP = 1 << 32
#: The fixed part of the header in front of each member.
LOCAL_BYTES = 30
_LOCAL = b"PK\3\4"
_ENTRY = b"PK\1\2"
_ENTRY_BYTES = 46
_SIGNATURE = b"PK\5\5"
_DOS_FOLDER = 0x10
#: What the first part of a split zip begins with.
_SPLIT = b"PK\7\10"
_END64 = b"PK\6\6"
_END64_BYTES = 56
_LOCATOR = b"PK\6\7"
_LOCATOR_BYTES = 20
#: The end of the directory with the longest comment.
_LONGEST_TAIL_BYTES = zip_end.BYTES + 0xFFFF
_LARGEST_DIRECTORY = 1 << 30
_ZIP64 = 1
_ONE_PART = "it is one part of an archive that is split over several"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the directory states of one member.

    `at` is where its own header begins in the file. `is_folder` is what its attributes say. With `wide` its sizes have 64 bits and are meant
    as they stand; without, they may be what is left of larger ones.
    """

    name: bytes
    flags: int
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    at: int
    mode: int
    is_folder: bool = False
    extra: bytes
    wide: bool

    def fields(self) -> Iterator[tuple[int, bytes]]:
        """Its extra fields, as (id, data)."""
        yield from _fields(self.extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Every member in the order of the directory, and where in the file the directory begins."""

    entries: tuple[Entry, ...]
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """The record at the end: where it is, and what it states."""

    at: int
    length: int
    offset: int
    #: Where the directory ends.
    stop: int


def read(file: BinaryIO, *, most_entries: int) -> Directory:
    """The directory of the zip in `file`.

    Raises
    ------
    ExtractionError
        `damaged_archive`: it cannot be read. `spanned`: it is one part of several.
        `too_many_entries`: more than `most_entries`. `doubled_directory`: it has two, and programs
        differ in which they use.
    """
    size = file.seek(0, 2)
    end = _end(file, size)
    begin = end.stop - end.length
    if begin < 0 or end.length > _LARGEST_DIRECTORY:
        raise _damaged("its directory is larger than the file")
    stated = list(_entries(_read(file, begin, end.stop), most_entries))
    entries = _placed(file, stated, begin, begin - end.offset)
    _check_single(file, entries, begin, end, size)
    return Directory(entries=tuple(entries), at=begin)


def data_begin(file: BinaryIO, entry: Entry) -> int:
    """Where the packed bytes of `entry` begin.

    Raises
    ------
    ValueError
        There is no header of a member of that name.
    """
    local = _read(file, entry.at, entry.at + LOCAL_BYTES)
    if len(local) < LOCAL_BYTES or not local.startswith(_LOCAL):
        raise ValueError("its header is not where the directory says")
    name, extra = struct.unpack_from("<HH", local, 26)
    own = file.read(name)
    if own != entry.name and not alike(own, entry.name):
        raise ValueError("its header bears another name than the directory")
    return entry.at + LOCAL_BYTES + int(name) + int(extra)


def _end(file: BinaryIO, size: int) -> _End:
    tail_at = max(0, size - _LONGEST_TAIL_BYTES)
    tail = _read(file, tail_at, size)
    inside = zip_end.last_end(tail)
    if inside < 0:
        if _read(file, 0, len(_SPLIT)) == _SPLIT:
            raise ExtractionError("spanned", _ONE_PART)
        raise _damaged("it has no directory at its end")
    disk, first, length, offset = struct.unpack_from("<HH4xII", tail, inside + 4)
    if disk not in (0, 0xFFFF) or first not in (0, 0xFFFF):
        raise ExtractionError("spanned", _ONE_PART)
    at = tail_at + inside
    narrow = _End(at=at, length=length, offset=offset, stop=at)
    return _wide_end(file, narrow) or narrow


def _wide_end(file: BinaryIO, end: _End) -> _End | None:
    """The end of a zip64, if there is one in front of `end`."""
    locator = _read(file, max(0, end.at - _LOCATOR_BYTES), end.at)
    if len(locator) < _LOCATOR_BYTES or not locator.startswith(_LOCATOR):
        return None
    _, stated, disks = struct.unpack_from("<IQI", locator, 4)
    if disks > 1:
        raise ExtractionError("spanned", _ONE_PART)
    # Bytes in front of the archive move it away from where the locator says that it is.
    for at in (end.at - _LOCATOR_BYTES - _END64_BYTES, stated):
        record = _read(file, at, at + _END64_BYTES) if 0 <= at < end.at else b""
        if len(record) == _END64_BYTES and record.startswith(_END64):
            length, offset = struct.unpack_from("<QQ", record, 40)
            return _End(at=end.at, length=length, offset=offset, stop=at)
    raise _damaged("the end of its zip64 directory is missing")


def _entries(data: bytes, most: int) -> Iterator[Entry]:
    at = 0
    for number in range(len(data)):
        if at >= len(data) or data.startswith(_SIGNATURE, at):
            return
        if number >= most:
            raise ExtractionError(
                "too_many_entries", f"it holds more than the {most:,} members allowed"
            )
        if not data.startswith(_ENTRY, at) or at + _ENTRY_BYTES > len(data):
            raise _damaged("its directory is damaged")
        flags, method = struct.unpack_from("<HH", data, at + 8)
        crc, packed, size, name, extra, comment = struct.unpack_from("<IIIHHH", data, at + 16)
        attributes, offset = struct.unpack_from("<II", data, at + 38)
        begin = at + _ENTRY_BYTES
        at = begin + name + extra + comment
        if at > len(data):
            raise _damaged("its directory is damaged")
        yield _widened(
            Entry(
                name=data[begin : begin + name],
                flags=flags,
                method=method,
                crc=crc,
                packed_bytes=packed,
                size_bytes=size,
                at=offset,
                mode=attributes >> 16,
                is_folder=bool(attributes & _DOS_FOLDER) or stat.S_ISDIR(attributes >> 16),
                extra=data[begin + name : begin + name + extra],
                wide=False,
            )
        )


def _widened(entry: Entry) -> Entry:
    """`entry` with the values of its zip64 field, which holds those that did not fit, in this order."""
    field = next((data for number, data in entry.fields() if number == _ZIP64), None)
    if field is None:
        return entry
    values: dict[str, int] = {}
    for at, key in enumerate(
        key for key in ("size_bytes", "packed_bytes", "at") if getattr(entry, key) == WRAP - 1
    ):
        if len(field) < 8 * at + 8:
            raise _damaged("a zip64 field of its directory is too short")
        [values[key]] = struct.unpack_from("<Q", field, 8 * at)
    return replace(entry, wide=True, **values)  # type: ignore[arg-type]


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(extra):
        number, length = struct.unpack_from("<HH", extra, at)
        yield number, extra[at + 4 : at + 4 + length]
        at += 4 + length


def _placed(file: BinaryIO, stated: list[Entry], begin: int, moved: int) -> list[Entry]:
    """The entries with their true places; all that the zip says of places may be `moved`."""
    if moved < 0:
        raise _damaged("a member of the zip lies before its beginning")
    if moved % WRAP or not moved or any(entry.wide for entry in stated):
        return [replace(entry, at=entry.at + moved) for entry in stated]
    placed: list[Entry] = []
    free = 0
    for entry in stated:
        found = _nearest(file, entry, free, begin)
        # What has no header is damaged, which unpacking it shows.
        placed.append(found or entry)
        free = found.at + LOCAL_BYTES + len(entry.name) if found else free
    return placed


def _nearest(file: BinaryIO, entry: Entry, free: int, begin: int) -> Entry | None:
    """`entry` at the first place from `free` on that its offset can mean and where its header is."""
    first = entry.at + -(-max(0, free - entry.at) // WRAP) * WRAP
    for at in range(first, begin, WRAP):
        tried = replace(entry, at=at)
        try:
            data_begin(file, tried)
        except ValueError:
            continue
        return tried
    return None


def _check_single(file: BinaryIO, entries: list[Entry], begin: int, end: _End, size: int) -> None:
    """There is one end of one directory, wherever no member's data lie."""
    last = first = begin
    if entries:
        first = min(entry.at for entry in entries)
        final = max(entries, key=lambda entry: entry.at)
        local = _read(file, final.at, final.at + LOCAL_BYTES)
        if len(local) == LOCAL_BYTES:
            lengths = struct.unpack_from("<HH", local, 26)
            last = final.at + LOCAL_BYTES + sum(lengths) + final.packed_bytes
            # A wrapped one goes on to the directory.
            if not final.wide:
                last += max(0, begin - last) // WRAP * WRAP
    for start, stop in ((0, first), (last, end.at), (end.at + 4, size)):
        near = max(start, stop - _LONGEST_TAIL_BYTES)
        if _has_end(_read(file, near, stop)):
            raise ExtractionError(
                "doubled_directory", "it has two directories, and programs differ in which they use"
            )


def _has_end(data: bytes) -> bool:
    """Whether the end of a directory is in `data`, right behind that directory."""
    at = data.find(zip_end.MARK)
    while at >= 0:
        if len(data) - at >= zip_end.BYTES:
            directory_bytes, comment_bytes = struct.unpack_from("<I4xH", data, at + 12)
            begins = at - directory_bytes
            empty = directory_bytes == 0 and at + zip_end.BYTES + comment_bytes <= len(data)
            if empty or (begins >= 0 and data.startswith(_ENTRY, begins)):
                return True
        at = data.find(zip_end.MARK, at + 1)
    return False


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(max(0, stop - start))


def _damaged(why: str) -> ExtractionError:
    return ExtractionError("damaged_archive", f"the zip cannot be read: {why}")
