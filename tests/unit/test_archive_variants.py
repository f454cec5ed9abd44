"""Zips and tars of every kind that programs write: each member comes out byte for byte, or is reported as lost."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cytowatch import archives as room
from cytowatch import formats
from cytowatch.archives import tars
from cytowatch.config import from_mapping
from cytowatch.formats import Probe
from cytowatch.record.errors import ExtractionError
from tests.builders.packs import Packed, raw_tar, raw_zip
from tests.unit.test_archive_bytes import came_out

LIMITS = from_mapping(
    {"limits": {"archive_max_bytes": 64 << 20, "archive_max_ratio": 100_000}}
).limits
NOISE = random.Random(5).randbytes(70_001)
#: A name that no header of a hundred bytes holds, with letters that no old tar knows.
LONG = "d/" * 30 + "é" * 60 + ".tif"
FILES = {"a.tif": NOISE, "empty.tif": b"", "dir/b.tif": b"II*\0" + bytes(9000), "c.tif": b"x" * 512}

_BLOCK = 512


def header(name: str, size: int, *, kind: bytes = b"0", magic: bytes = b"") -> bytearray:
    """The block of a member as the seventh Unix wrote it: without a magic word."""
    block = bytearray(_BLOCK)
    block[: len(name)] = name.encode()
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 1_700_000_000
    block[156:157] = kind
    block[257 : 257 + len(magic)] = magic
    return block


def summed(block: bytearray) -> bytes:
    """The same with its checksum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _BLOCK)


def by_hand(blocks: Callable[[str, bytes], bytes]) -> Callable[[dict[str, bytes]], bytes]:
    """A tar whose members are made one by one."""

    def made(files: dict[str, bytes]) -> bytes:
        return b"".join(blocks(name, data) for name, data in files.items()) + bytes(2 * _BLOCK)

    return made


def _v7(name: str, data: bytes) -> bytes:
    return summed(header(name, len(data), kind=b"\0")) + padded(data)


def _star(name: str, data: bytes) -> bytes:
    """Of Schilling's star: times behind a shorter prefix, and its own word at the end."""
    block = header(name, len(data), magic=b"ustar\x0000")
    block[345 : 345 + 3] = b"pre"
    block[476:488] = block[488:500] = b"%011o " % 1_700_000_000
    block[508:512] = b"tar\0"
    return summed(block) + padded(data)


def _base256(name: str, data: bytes) -> bytes:
    """A size as a number of twelve bytes, as GNU and star write one above 8 GiB."""
    block = header(name, 0, magic=b"ustar  \0")
    block[124:136] = b"\x80" + len(data).to_bytes(11, "big")
    return summed(block) + padded(data)


def _pieces(data: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes) of what is not zeros in `data`, in pieces of a block."""
    found = [
        (at, data[at : at + _BLOCK])
        for at in range(0, len(data), _BLOCK)
        if any(data[at : at + _BLOCK])
    ]
    # The last one says how long the file is.
    return [*found, (len(data), b"")]


def _old_gnu_sparse(name: str, data: bytes) -> bytes:
    """Type S: four pieces in the header, twenty-one in each block that follows."""
    pieces = _pieces(data)
    packed = b"".join(one for _, one in pieces)
    block = header(name, len(packed), kind=b"S", magic=b"ustar  \0")
    rows = [b"%011o\0%011o\0" % (at, len(one)) for at, one in pieces]
    head = b"".join(rows[:4])
    block[386 : 386 + len(head)] = head
    block[482] = len(rows) > 4
    block[483:495] = b"%011o\0" % len(data)
    more = b""
    for at in range(4, len(rows), 21):
        following = bytearray(_BLOCK)
        part = b"".join(rows[at : at + 21])
        following[: len(part)] = part
        following[504] = at + 21 < len(rows)
        more += bytes(following)
    return summed(block) + more + padded(packed)


def _pax(keys: list[tuple[str, str]]) -> bytes:
    """A header of POSIX with these records, of which some may come twice."""
    data = b""
    for key, value in keys:
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        data += str(length).encode() + rest
    block = header("PaxHeaders/x", len(data), kind=b"x", magic=b"ustar\x0000")
    return summed(block) + padded(data)


def _sparse_0_0(name: str, data: bytes) -> bytes:
    pieces = _pieces(data)
    packed = b"".join(one for _, one in pieces)
    keys = [("GNU.sparse.size", str(len(data))), ("GNU.sparse.numblocks", str(len(pieces)))]
    for at, one in pieces:
        keys += [("GNU.sparse.offset", str(at)), ("GNU.sparse.numbytes", str(len(one)))]
    block = header(name, len(packed), magic=b"ustar\x0000")
    return _pax(keys) + summed(block) + padded(packed)


def _sparse_0_1(name: str, data: bytes) -> bytes:
    pieces = _pieces(data)
    packed = b"".join(one for _, one in pieces)
    there = ",".join(f"{at},{len(one)}" for at, one in pieces)
    keys = [
        ("GNU.sparse.size", str(len(data))), ("GNU.sparse.numblocks", str(len(pieces))),
        ("GNU.sparse.map", there), ("GNU.sparse.name", name),
    ]  # fmt: skip
    block = header("GNUSparseFile.0/x", len(packed), magic=b"ustar\x0000")
    return _pax(keys) + summed(block) + padded(packed)


def _sparse_1_0(name: str, data: bytes) -> bytes:
    pieces = _pieces(data)
    there = "".join(f"{at}\n{len(one)}\n" for at, one in pieces)
    packed = padded(f"{len(pieces)}\n{there}".encode()) + b"".join(one for _, one in pieces)
    keys = [
        ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", name),
        ("GNU.sparse.realsize", str(len(data))),
    ]  # fmt: skip
    block = header("GNUSparseFile.0/x", len(packed), magic=b"ustar\x0000")
    return _pax(keys) + summed(block) + padded(packed)


def of_python(kind: int) -> Callable[[dict[str, bytes]], bytes]:
    def made(files: dict[str, bytes]) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return stream.getvalue()

    return made


TARS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "v7": by_hand(_v7),
    "ustar": of_python(tarfile.USTAR_FORMAT),
    "gnu": of_python(tarfile.GNU_FORMAT),
    "pax": of_python(tarfile.PAX_FORMAT),
    "base256": by_hand(_base256),
    "old GNU sparse": by_hand(_old_gnu_sparse),
    "pax sparse 0.0": by_hand(_sparse_0_0),
    "pax sparse 0.1": by_hand(_sparse_0_1),
    "pax sparse 1.0": by_hand(_sparse_1_0),
}


def untarred(data: bytes) -> dict[str, bytes | str]:
    """What each member became: its bytes, or the reason that it was lost for."""
    found: dict[str, bytes | str] = {}
    budget = room.Budget(limits=LIMITS, archive_bytes=len(data))
    with tars.opened(io.BytesIO(data)) as archive:
        for member in tars.members(archive, budget):
            out = io.BytesIO()
            try:
                tars.unpack(archive, member, out, budget=budget, progress=lambda _: None)
                found[member.path] = out.getvalue()
            except room.DamagedMember as error:
                found[member.path] = str(error)
    return found


def format_of(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [one.id for one, _ in formats.matching(Probe(file.fileno()))]


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", TARS)
def test_every_kind_of_tar(kind: str, packed: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """It is seen to be a tar, and what was packed comes out, holes as zeros."""
    files = dict(FILES)
    if "sparse" in kind:
        # Of more pieces than the header of an old one holds, and than one block behind it does.
        files["holes.tif"] = b"".join(bytes(4096) + bytes([n + 1]) * _BLOCK for n in range(40))
        files["hole.tif"] = bytes(100_000)
    if kind in ("gnu", "pax"):
        files[LONG] = NOISE[:3000]
    data = packed(TARS[kind](files))
    (tmp_path / "a").write_bytes(data)
    assert format_of(tmp_path / "a") == ["tar"]
    assert untarred(data) == files


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_a_tar_of_star(packed: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Its times lie where others have the end of a prefix."""
    data = packed(by_hand(_star)(FILES))
    (tmp_path / "a").write_bytes(data)
    assert format_of(tmp_path / "a") == ["tar"]
    assert untarred(data) == {f"pre/{name}": one for name, one in FILES.items()}


@pytest.mark.parametrize("kind", [*TARS, "star"])
def test_a_tar_of_any_kind_that_is_cut_is_damaged(kind: str) -> None:
    """Wherever the cut is, it is reported: nothing comes out that is not what was packed."""
    whole = {**TARS, "star": by_hand(_star)}[kind](FILES)
    for at in range(300, len(whole.rstrip(b"\0")), 7919):
        with pytest.raises(ExtractionError) as raised:
            untarred(whole[:at])
        assert raised.value.reason == "damaged_archive"


@pytest.mark.parametrize("kind", [kind for kind in TARS if "sparse" in kind])
@pytest.mark.parametrize(
    "wrong", [[(0, 1 << 40)], [(1 << 40, 1)], [(512, 512), (0, 512)], [(0, 512), (0, 512)]]
)
def test_a_map_of_holes_that_makes_no_sense(
    kind: str, wrong: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces behind the end of the file, over one another or out of order: an error or a loss, and never more than the size."""
    real, real_header = _pieces, header

    def pieces(data: bytes) -> list[tuple[int, Any]]:
        class Long(bytes):
            size = 0

            def __len__(self) -> int:
                return self.size

        found: list[tuple[int, Any]] = []
        for at, size in wrong:
            one = Long(b"y" * min(size, 512))
            one.size = size
            found.append((at, one))
        return [*found, *real(data)[-1:]]

    def bounded(name: str, size: int, **more: bytes) -> bytearray:
        return real_header(name, min(size, 1024), **more)

    with monkeypatch.context() as patched:
        patched.setattr(f"{__name__}._pieces", pieces)
        patched.setattr(f"{__name__}.header", bounded)
        data = TARS[kind]({"a.tif": b"y" * 1000})
    try:
        found = untarred(data)
    except ExtractionError as error:
        assert error.reason in ("damaged_archive", "too_large", "ratio")
    else:
        assert all(isinstance(one, str) or len(one) <= 1000 for one in found.values())


@pytest.mark.parametrize(
    "packed", [bz2.compress, lzma.compress, lambda data: b"\x28\xb5\x2f\xfd" + data[:100]],
    ids=["bz2", "xz", "zst"],
)  # fmt: skip
def test_a_tar_that_is_packed_otherwise_is_named(
    packed: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """It is not a supported format, and the words name what it is."""
    (tmp_path / "a.tar.x").write_bytes(packed(TARS["ustar"](FILES)))
    assert format_of(tmp_path / "a.tar.x") == []
    with (tmp_path / "a.tar.x").open("rb") as file:
        said = formats.looks_like(Probe(file.fileno()))
    assert said is not None
    assert any(word in said for word in ("bzip2", "xz", "Zstandard")), said


def _field(*numbers: int) -> bytes:
    data = b"".join(struct.pack("<Q", number) for number in numbers)
    return struct.pack("<HH", 1, len(data)) + data


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("descriptor", ["", "sig", "nosig", "sig64"])
@pytest.mark.parametrize("behind", [False, True])
def test_sizes_that_stand_in_the_field_of_zip64(method: int, descriptor: str, behind: bool) -> None:
    """The directory states 0xFFFFFFFF, and the field what is right; the end of zip64 is there too, or is not."""
    files = {"a.tif": NOISE, "b.tif": b"x" * 9, "empty.tif": b""}
    data = raw_zip(
        *(Packed(name=name.encode(), data=one, method=method, descriptor=descriptor)
          for name, one in files.items())
    )  # fmt: skip
    found = bytearray(data)
    end = found.rindex(b"PK\5\6")
    [begin] = struct.unpack_from("<I", found, end + 16)
    at, rows = begin, b""
    while at < end:
        packed, size, name = struct.unpack_from("<IIH", found, at + 20)
        [offset] = struct.unpack_from("<I", found, at + 42)
        row = bytearray(found[at : at + 46 + name])
        extra = _field(size, packed, offset)
        # Another program's field may stand before it.
        extra = struct.pack("<HH", 0x5455, 5) + bytes(5) + extra
        struct.pack_into("<II", row, 20, 0xFFFFFFFF, 0xFFFFFFFF)
        struct.pack_into("<H", row, 30, len(extra))
        struct.pack_into("<I", row, 42, 0xFFFFFFFF)
        rows += bytes(row) + extra
        at += 46 + name
    made = bytes(found[:begin]) + rows
    if behind:
        wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 3, 3, len(rows), begin)
        made += wide + struct.pack("<4sIQI", b"PK\6\7", 0, begin + len(rows), 1)
        made += struct.pack(
            "<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0
        )
    else:
        made += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 3, 3, len(rows), begin, 0)
    assert came_out(made) == files


class _Stream(io.RawIOBase):
    """What cannot seek, as a pipe."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip64_that_was_written_into_a_stream(method: int) -> None:
    """Python's own: the field of zip64 before the data, and a descriptor of 64 bits behind them."""
    stream = _Stream()
    with zipfile.ZipFile(stream, "w", method) as archive:  # type: ignore[arg-type]
        for name, data in FILES.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    assert came_out(stream.data) == FILES
    cut = bytearray(stream.data)
    cut[200] ^= 1
    assert str(came_out(bytes(cut))["a.tif"]).startswith("damaged: ")


def test_a_field_of_zip64_that_is_cut_is_told() -> None:
    """A directory that states 0xFFFFFFFF without saying more: the member is lost, or the archive damaged."""
    data = bytearray(raw_zip(Packed(name=b"a.tif", data=NOISE), Packed(name=b"b.tif", data=b"b")))
    struct.pack_into("<II", data, data.index(b"PK\1\2") + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    try:
        found = came_out(bytes(data))
    except ExtractionError as error:
        assert error.reason in ("damaged_archive", "overlapping_entries", "too_large")
    else:
        assert str(found["a.tif"]).startswith("damaged: ")
        assert found["b.tif"] == b"b"


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", TARS)
def test_members_of_a_joined_tar_are_lost_and_named(
    kind: str, packed: Callable[[bytes], bytes]
) -> None:
    """`cat a.tar b.tar`: programs stop at the end of the first one, and nobody would miss the others."""
    one, other = TARS[kind]({"a.tif": NOISE}), TARS[kind]({"b.tif": NOISE, "c.tif": b"x"})
    found = untarred(packed(one) + packed(other))
    assert found.pop("a.tif") == NOISE
    assert found
    assert all(str(why).startswith("damaged: it lies behind the end") for why in found.values())


def test_bytes_behind_the_end_of_a_tar_are_no_members() -> None:
    """A tape's padding, and what an image with the word in it has at its place."""
    data = TARS["gnu"](FILES)
    word = b"x" * 257 + b"ustar" + b"x" * 250
    assert untarred(data + NOISE[:5000] + word * 3) == FILES


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", [one for one in TARS if "sparse" not in one])
def test_a_damaged_header_is_not_the_end(kind: str, packed: Callable[[bytes], bytes]) -> None:
    """The members behind it would be lost, and the archive would be a success."""
    data = bytearray(TARS[kind]({"a.tif": b"x" * 600, "b.tif": b"y" * 600, "c.tif": b"z" * 600}))
    data[data.index(b"b.tif\0") : data.index(b"b.tif\0") + 4] = b"oops"
    with pytest.raises(ExtractionError) as raised:
        untarred(packed(bytes(data)))
    assert raised.value.reason == "damaged_archive"


def test_a_header_that_was_overwritten_by_zeros_costs_no_silence() -> None:
    """It looks like the end, and what follows it is named."""
    data = bytearray(TARS["ustar"](FILES))
    at = data.index(b"dir/b.tif\0")
    data[at : at + _BLOCK] = bytes(_BLOCK)
    found = untarred(bytes(data))
    assert str(found["c.tif"]).startswith("damaged: ")


def test_members_that_only_describe_the_tar() -> None:
    """The label of a volume, Solaris' access lists and the lists of an incremental backup are not special files."""
    blocks = [
        summed(header("backup of Monday", 0, kind=b"V", magic=b"ustar  \0")),
        summed(header("d/", 9, kind=b"D", magic=b"ustar  \0")) + padded(b"Ya.tif\0\0\0"),
        summed(header("d/a.tif", 10, kind=b"A", magic=b"ustar\x0000")) + padded(b"user::rw-,"),
        summed(header("d/a.tif", 600, magic=b"ustar\x0000")) + padded(b"x" * 600),
    ]
    assert untarred(b"".join(blocks) + bytes(2 * _BLOCK)) == {"d/a.tif": b"x" * 600}


def test_a_volume_of_a_tar_is_a_part_of_several() -> None:
    """It begins in the middle of a file."""
    block = summed(header("a.tif", 600, kind=b"M", magic=b"ustar  \0"))
    with pytest.raises(ExtractionError) as raised:
        untarred(block + padded(b"x" * 600) + bytes(2 * _BLOCK))
    assert raised.value.reason == "spanned"


@pytest.mark.parametrize("attributes", [0x10, 0o040755 << 16])
def test_a_folder_that_only_its_attributes_tell(attributes: int) -> None:
    """Its name has no slash at its end, and the files in it have it before theirs."""
    data = bytearray(raw_zip(Packed(name=b"case"), Packed(name=b"case/a.tif", data=NOISE)))
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 38, attributes)
    assert came_out(bytes(data)) == {"case/a.tif": NOISE}


@pytest.mark.parametrize("root", [b"/", b"\\", b"./"])
def test_the_folder_that_was_packed(root: bytes) -> None:
    """Listed as a member of its own it leads nowhere."""
    data = raw_zip(Packed(name=root, method=0), Packed(name=b"a.tif", data=NOISE))
    assert came_out(data) == {"a.tif": NOISE}


def test_a_signed_directory() -> None:
    """The signature belongs to the directory, and is not a member of it (APPNOTE 4.3.13)."""
    data = raw_zip(Packed(name=b"a.tif", data=NOISE))
    at = data.rindex(b"PK\5\6")
    end, signature = bytearray(data[at:]), b"PK\5\5\4\0sign"
    struct.pack_into("<I", end, 12, struct.unpack_from("<I", end, 12)[0] + len(signature))
    assert came_out(data[:at] + signature + bytes(end)) == {"a.tif": NOISE}


def test_the_first_part_of_a_split_zip() -> None:
    """It has no directory, and to copy it again does not help."""
    data = b"PK\7\10" + raw_zip(Packed(name=b"a.tif", data=NOISE))[:40_000]
    with pytest.raises(ExtractionError) as raised:
        came_out(data)
    assert raised.value.reason == "spanned"


def test_the_mark_of_an_end_in_a_comment() -> None:
    """The end is the one whose comment reaches to the end of the file."""
    data = raw_zip(Packed(name=b"a.tif", data=NOISE))
    comment = b"packed PK\5\6 by a program that numbers its zips, and signs each of them"
    assert came_out(data[:-2] + struct.pack("<H", len(comment)) + comment) == {"a.tif": NOISE}


def test_the_icon_of_a_folder_costs_no_archive() -> None:
    """The Finder packs it with its folder, and its name ends in a carriage return."""
    wanted = (b"case/Icon\r", b"__MACOSX/case/._Icon\r", b"case/a.jpg")
    assert list(came_out(raw_zip(*(Packed(name=one, data=b"x") for one in wanted)))) == [
        "case/a.jpg"
    ]
    assert list(untarred(raw_tar(*((one, b"x") for one in wanted)))) == ["case/a.jpg"]
