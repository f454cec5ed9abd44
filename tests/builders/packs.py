"""Zips and tars byte by byte, as programs write them that Python's own modules do not imitate."""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

__all__ = ["Packed", "finder_zip", "raw_tar", "raw_zip", "unicode_path", "write_finder_zip"]

UTF8 = 0x800
_WRAP = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One member: its name as bytes, and how it is written.

    `descriptor` is what follows its data: ``sig``, ``nosig`` or ``sig64``, after which its own header
    states no sizes.
    """

    name: bytes
    data: bytes | Iterable[bytes] = b""
    flags: int = 0
    method: int = 8
    extra: bytes = b""
    descriptor: str = ""
    mode: int = 0o100644
    level: int = 6


def unicode_path(name: bytes, text: str) -> bytes:
    """Info-ZIP's field 0x7075, made for `name`."""
    data = struct.pack("<BI", 1, zlib.crc32(name)) + text.encode()
    return struct.pack("<HH", 0x7075, len(data)) + data


def raw_zip(*members: Packed) -> bytes:
    """A zip of `members`."""
    stream = BytesIO()
    _write(stream, members, wrap=_WRAP)
    return stream.getvalue()


def finder_zip(target: BinaryIO, *members: Packed, wrap: int = _WRAP) -> None:
    """Write a zip as the macOS Finder does: every size, offset and count modulo what its field holds.

    With a `wrap` of less than 2^32 a small zip has what only one above 4 GiB has.
    """
    _write(target, members, wrap=wrap)


def _write(target: BinaryIO, members: Iterable[Packed], *, wrap: int) -> None:
    parts: list[bytes] = []
    count = 0
    begin = target.tell()
    for one in members:
        at = target.tell() - begin
        chunks = iter([one.data]) if isinstance(one.data, bytes) else iter(one.data)
        flags = one.flags | (8 if one.descriptor else 0)
        names = struct.pack("<HH", len(one.name), len(one.extra))
        head = struct.pack("<4sHHHHH", b"PK\3\4", 20, flags, one.method, 0, 0x5A21)
        target.write(head + bytes(12) + names + one.name + one.extra)
        data_at = target.tell()
        crc = size = 0
        pack = zlib.compressobj(one.level, zlib.DEFLATED, -15)
        for chunk in chunks:
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            target.write(pack.compress(chunk) if one.method == 8 else chunk)
        target.write(pack.flush() if one.method == 8 else b"")
        packed = target.tell() - data_at
        sizes = struct.pack("<III", crc, packed % wrap, size % wrap)
        if one.descriptor:
            wide = struct.pack("<IQQ", crc, packed, size)
            target.write(b"" if one.descriptor == "nosig" else b"PK\7\10")
            target.write(wide if one.descriptor == "sig64" else sizes)
        else:
            end = target.tell()
            target.seek(begin + at + 14)
            target.write(sizes)
            target.seek(end)
        parts.append(struct.pack("<4sHHHHHH", b"PK\1\2", 0x0315, 20, flags, one.method, 0, 0x5A21))
        parts.append(sizes + names + struct.pack("<HHHII", 0, 0, 0, one.mode << 16, at % wrap))
        parts.append(one.name + one.extra)
        count += 1
    directory_at = target.tell() - begin
    directory = b"".join(parts)
    target.write(directory)
    ends = (0, 0, count % 65536, count % 65536, len(directory), directory_at % wrap, 0)
    target.write(struct.pack("<4sHHHHIIH", b"PK\5\6", *ends))


def raw_tar(*members: tuple[bytes, bytes], links: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """A GNU tar of names as bytes, with hard `links` as (name, target) behind them."""
    stream = BytesIO()
    with tarfile.open(
        fileobj=stream,
        mode="w",
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
        for name, to in links:
            info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            info.type, info.linkname = tarfile.LNKTYPE, to.decode("utf-8", "surrogateescape")
            archive.addfile(info)
    return stream.getvalue()


def write_finder_zip(path: Path, *members: Packed) -> Path:
    """`finder_zip` into a file."""
    with path.open("wb") as file:
        finder_zip(file, *members)
    return path
