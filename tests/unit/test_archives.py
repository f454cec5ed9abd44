"""A hostile archive is refused whole with its own reason; a damaged member is passed over."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import unicodedata
import warnings
import zipfile
from pathlib import Path

import pytest

from cytowatch import archives as room
from cytowatch import formats
from cytowatch.archives import tars
from cytowatch.archives import zips as archives
from cytowatch.config import Config, from_mapping, render
from cytowatch.formats import Probe
from cytowatch.formats.completeness import whole as completeness
from cytowatch.model import UploadedFile
from cytowatch.record import entries, manifest, names, schema
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import ExtractionError
from cytowatch.stages.extract import extract
from tests import builders

LIMITS = from_mapping({"limits": {"archive_max_entries": 50, "archive_max_bytes": 1_000_000}})


def made(*members: tuple[str | zipfile.ZipInfo, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        # Two members of one name are wanted here.
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(name, data)
    return stream


def refusal(stream: io.BytesIO) -> str:
    with pytest.raises(ExtractionError) as raised, archives.opened(stream) as archive:
        found = archives.members(
            archive, budget := room.Budget(limits=LIMITS.limits, archive_bytes=1000)
        )
        for member in found:
            archives.unpack(
                archive, member, io.BytesIO(), budget=budget, progress=lambda _: None,
            )  # fmt: skip
    return raised.value.reason


def special(kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("odd")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../etc/cron.d/x", "path_traversal"),
        ("a/../../b", "path_traversal"),
        ("..\\b", "path_traversal"),
        ("/etc/passwd", "absolute_path"),
        ("C:\\Windows\\x", "absolute_path"),
        ("a\nb", "control_characters"),
        ("a\x7fb", "control_characters"),
        ("a\x9bb", "control_characters"),
        ("é" * 130, "name_too_long"),
        ("x/nul.svs", "reserved_name"),
        ("COM7 .tif", "reserved_name"),
        ("d/" * 65 + "a.svs", "nested_too_deep"),
        ("GOOD.txt", "duplicate_names"),
        ("good.txt", "duplicate_names"),
        ("good.txt/inner.svs", "file_against_folder"),
        ("Good.TXT/", "file_against_folder"),
        ("../up/", "path_traversal"),
        (special(stat.S_IFLNK), "link"),
        (special(stat.S_IFIFO), "special_file"),
    ],
)
def test_a_name_that_leads_elsewhere_refuses_the_whole(
    name: str | zipfile.ZipInfo, reason: str
) -> None:
    """Nothing is unpacked of an archive that has one such member."""
    assert refusal(made(("good.txt", b"x"), (name, b"x"))) == reason


def test_folders_that_windows_wrote() -> None:
    """With a backslash behind their name they are folders, and no files of that name."""
    folder = zipfile.ZipInfo("a\\")
    folder.external_attr = 0x10
    assert names_of(made((folder, b""), ("a\\one.jpg", b"x"), ("b\\", b""))) == ["a/one.jpg"]


def names_of(stream: io.BytesIO) -> list[str]:
    budget = room.Budget(limits=LIMITS.limits, archive_bytes=1000)
    with archives.opened(stream) as archive:
        return [one.path for one in archives.members(archive, budget)]


def test_accents_that_are_composed_in_two_ways_are_one_name() -> None:
    """As on macOS, where the second would replace the first."""
    two = ("é.svs", unicodedata.normalize("NFD", "é.svs"))
    assert refusal(made(*((name, b"x") for name in two))) == "duplicate_names"


def test_an_archive_that_two_programs_read_differently_is_refused() -> None:
    """Joined to another one, with a second directory behind the first, or in its comment."""
    one, other = made(("a.svs", b"x")).getvalue(), made(("b.svs", b"y")).getvalue()
    assert refusal(io.BytesIO(one + other)) == "doubled_directory"
    end = one.rindex(b"PK\5\6")
    begin = one.index(b"PK\1\2")
    twice = bytearray(one + one[begin:])
    struct.pack_into("<I", twice, twice.rindex(b"PK\5\6") + 16, len(one))
    assert refusal(io.BytesIO(bytes(twice))) == "doubled_directory"
    commented = bytearray(one[:end] + one[end : end + 20] + struct.pack("<H", len(other)) + other)
    assert refusal(io.BytesIO(bytes(commented))) == "doubled_directory"


def test_a_part_of_a_split_archive_is_refused() -> None:
    """It says so; Python's own reader would look for the members in this one part."""
    data = bytearray(made(("a.svs", b"x")).getvalue())
    struct.pack_into("<HH", data, data.rindex(b"PK\5\6") + 4, 1, 1)
    assert refusal(io.BytesIO(bytes(data))) == "spanned"


def test_what_is_harmless_is_accepted() -> None:
    """Junk before and behind, a comment, an archive that is stored in it, names of both kinds."""
    plain = made(("a.svs", b"x")).getvalue()
    assert names_of(io.BytesIO(b"#!/bin/sh\nexit\n" + plain)) == ["a.svs"]
    assert names_of(io.BytesIO(plain + b"\0" * 100)) == ["a.svs"]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner.zip", plain)
        archive.comment = b"from the scanner"
    assert names_of(stream) == ["inner.zip"]
    # A Mac writes a colon for the slash in S26/001.
    assert names_of(made(("S26:001.svs", b"x"), ("2026-11-30 10:30.svs", b"y"))) == [
        "S26:001.svs", "2026-11-30 10:30.svs",
    ]  # fmt: skip
    # Without the mark for UTF-8 as well.
    old = bytearray(made(("Gr\u00f6\u00dfe.svs", b"x")).getvalue())
    assert names_of(io.BytesIO(bytes(old))) == ["Größe.svs"]
    for mark in (b"PK\1\2", b"PK\3\4"):
        at = old.rindex(mark) + (8 if mark == b"PK\1\2" else 6)
        flags = struct.unpack_from("<H", old, at)[0]
        struct.pack_into("<H", old, at, flags & ~0x800)
    assert names_of(io.BytesIO(bytes(old))) == ["Größe.svs"]


def test_members_beyond_four_gigabytes(tmp_path: Path) -> None:
    """Their offsets stand in the zip64 fields; what lies before them is a hole."""
    path = tmp_path / "large.zip"
    with path.open("wb") as file:
        file.seek(5 << 30)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.txt", b"far away")
    with path.open("rb") as file, archives.opened(file) as archive:
        budget = room.Budget(limits=LIMITS.limits, archive_bytes=path.stat().st_size)
        [member] = archives.members(archive, budget)
        out = io.BytesIO()
        archives.unpack(archive, member, out, budget=budget, progress=lambda _: None)
    assert out.getvalue() == b"far away"
    assert path.stat().st_blocks * 512 < 1 << 20


def test_too_many_members_and_too_many_bytes() -> None:
    """Limits are checked from the directory, before anything is written."""
    assert refusal(made(*((f"{n}", b"") for n in range(51)))) == "too_many_entries"
    assert refusal(made(("a", b"\0" * 1_000_001))) == "too_large"


def test_a_lying_size_is_not_believed() -> None:
    """The budget is spent on the bytes that really come out."""
    data = bytearray(made(("a", b"\0" * 1_000_001)).getvalue())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 10)
    stream = io.BytesIO(bytes(data))
    with archives.opened(stream) as archive:
        [member] = archives.members(
            archive, budget := room.Budget(limits=LIMITS.limits, archive_bytes=len(data))
        )
        target = io.BytesIO()
        with pytest.raises((room.DamagedMember, ExtractionError)):
            archives.unpack(
                archive, member, target, budget=budget, progress=lambda _: None,
            )  # fmt: skip
        assert len(target.getvalue()) <= 1_000_000


def test_members_that_share_bytes_are_a_bomb() -> None:
    """Two entries of the directory that point at one local header."""
    data = bytearray(made(("a", b"x" * 500), ("b", b"y" * 500)).getvalue())
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)
    assert refusal(io.BytesIO(bytes(data))) == "overlapping_entries"


def test_an_encrypted_member_is_refused() -> None:
    """Nobody here knows the password; the reason says so."""
    data = bytearray(made(("a", b"x")).getvalue())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<H", data, at + 8, 1)
    assert refusal(io.BytesIO(bytes(data))) == "encrypted"


def test_what_is_no_zip_after_all() -> None:
    """The first bytes promise one, the rest does not keep it."""
    assert refusal(io.BytesIO(b"PK\x03\x04" + b"\0" * 100)) == "damaged_archive"


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    from datetime import UTC, datetime

    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "out.1").mkdir()
    file = entries.FileEntry(
        role="source", path="source/b.zip", size_bytes=1000, sha256=None, status="EXTRACTING_DATA"
    )
    return manifest.new(
        id="20261123-141502-k3f9-b", user="ann", name="b.zip", drop_path="ann/b.zip",
        files=[file], now=datetime.now(UTC), software={},
    )  # fmt: skip


def test_images_become_children_and_the_rest_is_named(parent: Manifest, tmp_path: Path) -> None:
    """A damaged member never spoils the others; what is not an image is skipped with a reason."""
    image = builders.png(tmp_path / "a.png").read_bytes()
    stream = made(("case/a.png", image), ("notes.txt", b"hello there"), ("__MACOSX/._a.png", b"x"))
    data = bytearray(stream.getvalue())
    (tmp_path / "source" / "b.zip").write_bytes(data)
    outcome = extract(UploadedFile(manifest=parent, out="out.1", config=from_mapping({})))
    [child] = outcome.changes["children"]
    written = manifest.read(tmp_path / "out.1" / "children" / child)
    assert schema.problem(written) is None
    assert (written["name"], written["parent_id"]) == ("a.png", parent["id"])
    assert written["drop_path"] == "ann/b.zip/case/a.png"
    [source] = written["files"]
    assert (tmp_path / "out.1" / "children" / child / source["path"]).read_bytes() == image
    reasons = {one["name"]: one["reason"] for one in outcome.changes["skipped"]}
    assert reasons == {
        "notes.txt": "not_an_image: a text file",
        "__MACOSX/._a.png": "ignored",
    }


def test_members_of_one_name_never_share_an_id(
    parent: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands in one second some get the same few letters, here nearly all; one must not replace another."""
    monkeypatch.setattr(names, "_LETTERS", "ab")
    images = {f"{number}/a.pgm": b"P5 1 1 255\n%c" % number for number in range(12)}
    (tmp_path / "source" / "b.zip").write_bytes(made(*images.items()).getvalue())
    outcome = extract(UploadedFile(manifest=parent, out="out.1", config=from_mapping({})))
    children = [tmp_path / "out.1" / "children" / child for child in outcome.changes["children"]]
    assert len(set(children)) == 12
    found = {
        written["drop_path"]: (child / written["files"][0]["path"]).read_bytes()
        for child in children
        if (written := manifest.read(child))
    }
    assert found == {f"ann/b.zip/{path}": data for path, data in images.items()}


def test_a_member_with_a_wrong_checksum_is_skipped(parent: Manifest, tmp_path: Path) -> None:
    """It is named, and what is whole goes on."""
    image = builders.png(tmp_path / "a.png").read_bytes()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("bad.png", image)
        archive.writestr("good.png", image)
    data = bytearray(stream.getvalue())
    data[200] ^= 0xFF
    (tmp_path / "source" / "b.zip").write_bytes(data)
    outcome = extract(UploadedFile(manifest=parent, out="out.1", config=from_mapping({})))
    assert len(outcome.changes["children"]) == 1
    [skipped] = outcome.changes["skipped"]
    assert skipped["name"] == "bad.png"
    assert skipped["reason"].startswith("damaged")
    assert len(list((tmp_path / "out.1" / "children").iterdir())) == 1


@pytest.mark.parametrize("name", ["a.zarr/.zattrs", "zarr.json"])
def test_an_image_in_pieces_is_named(name: str, parent: Manifest, tmp_path: Path) -> None:
    """A technician who packed an OME-Zarr packed the right folder."""
    data = made((name, b"{}"), ("a.zarr/0/0.0", bytes(range(256)))).getvalue()
    (tmp_path / "source" / "b.zip").write_bytes(data)
    with pytest.raises(ExtractionError) as raised:
        extract(UploadedFile(manifest=parent, out="out.1", config=from_mapping({})))
    assert raised.value.reason == "unsupported_format"
    assert raised.value.detail.startswith(
        "it is an image in OME-Zarr, which is not supported: export it"
    )


def test_no_image_at_all_is_an_error_that_says_what_there_was(
    parent: Manifest, tmp_path: Path
) -> None:
    """A technician who zipped the wrong folder learns it."""
    (tmp_path / "source" / "b.zip").write_bytes(made(("x.txt", b"hello you")).getvalue())
    with pytest.raises(ExtractionError) as raised:
        extract(UploadedFile(manifest=parent, out="out.1", config=from_mapping({})))
    assert raised.value.reason == "no_image"
    assert "(x.txt: a text file)" in raised.value.detail


def _spoiled(image: bytes) -> bytes:
    data = bytearray(made(("a.png", image)).getvalue())
    data[200] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("what", ["damaged_archive", "unsupported_format", "nested_too_deep"])
def test_an_archive_of_slides_that_cannot_be_taken_is_not_called_one_without_slides(
    what: str, parent: Manifest, tmp_path: Path
) -> None:
    """Anyone who packed the right folder is not asked to look for another one."""
    image = builders.png(tmp_path / "a.png").read_bytes()
    data = {
        "damaged_archive": _spoiled(image),
        "unsupported_format": made(
            ("a.isyntax", b'<DataObject ObjectType="DPUfsImport">\r\n' + bytes(900)),
            ("b.txt", b"b"),
        ).getvalue(),
        "nested_too_deep": made(("deep.zip", made(("a.png", image)).getvalue())).getvalue(),
    }[what]
    (tmp_path / "source" / "b.zip").write_bytes(data)
    above = "20261123-141502-k3f9-a" if what == "nested_too_deep" else None
    inner = Manifest(**{**parent, "parent_id": above})
    file = UploadedFile(manifest=inner, out="out.1", config=from_mapping({}))
    with pytest.raises(ExtractionError) as raised:
        extract(file)
    assert raised.value.reason == what


def tarred(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return stream


def tar_refusal(stream: io.BytesIO) -> str:
    stream.seek(0)
    budget = room.Budget(limits=LIMITS.limits, archive_bytes=1000)
    with pytest.raises(ExtractionError) as raised, tars.opened(stream) as archive:
        for member in tars.members(archive, budget):
            tars.unpack(archive, member, io.BytesIO(), budget=budget, progress=lambda _: None)
    return raised.value.reason


def _info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (_info("../x"), "path_traversal"),
        (_info("/etc/x"), "absolute_path"),
        (_info("a", tarfile.SYMTYPE, "/etc/passwd"), "link"),
        (_info("a", tarfile.LNKTYPE, "later"), "link"),
        (_info("a", tarfile.LNKTYPE, "a"), "link"),
        (_info("a", tarfile.LNKTYPE, "../good"), "link"),
        (_info("a", tarfile.LNKTYPE, "/good"), "link"),
        (_info("a", tarfile.FIFOTYPE), "special_file"),
        (_info("a", tarfile.CHRTYPE), "special_file"),
        (_info("good"), "duplicate_names"),
        (_info("Good"), "duplicate_names"),
        (_info("good/x"), "file_against_folder"),
        (_info("nul"), "reserved_name"),
        (_info("a\nb"), "control_characters"),
    ],
)
def test_a_hostile_tar_is_refused_whole(info: tarfile.TarInfo, reason: str, mode: str) -> None:
    """As a zip is."""
    assert tar_refusal(tarred((_info("good"), b"x"), (info, b"x"), mode=mode)) == reason


def test_limits_of_a_tar() -> None:
    """Told as it is read, for a tar has no directory."""
    assert tar_refusal(tarred((_info("a"), b"\0" * 1_000_001))) == "too_large"
    assert tar_refusal(tarred(*((_info(str(n)), b"") for n in range(51)))) == "too_many_entries"


def test_a_tar_that_is_cut_short() -> None:
    """It is an error of the archive, not an endless wait and not half of its images."""
    data = tarred((_info("a"), bytes(range(256)) * 2000), mode="w:gz").getvalue()
    assert tar_refusal(io.BytesIO(data[: len(data) // 2])) == "damaged_archive"


def tar_members(data: bytes) -> dict[str, bytes]:
    budget = room.Budget(limits=LIMITS.limits, archive_bytes=1000)
    found = {}
    with tars.opened(io.BytesIO(data)) as archive:
        for member in tars.members(archive, budget):
            out = io.BytesIO()
            tars.unpack(archive, member, out, budget=budget, progress=lambda _: None)
            found[member.path] = out.getvalue()
    return found


def _blocks(data: bytes, count: int) -> list[bytes]:
    """Packed as bgzip does it: each so many bytes are a gzip of their own."""
    return [gzip.compress(data[at : at + count]) for at in range(0, len(data), count)]


@pytest.mark.parametrize("count", [100, 1536, 4000])
def test_a_gzip_of_several_parts_is_read_to_its_end(count: int) -> None:
    """As GNU tar reads it, wherever one part ends; zeros behind it are harmless."""
    files = {"a": bytes(range(256)) * 4, "b": b"b" * 3000, "c": b"c"}
    data = tarred(*((_info(name), data) for name, data in files.items())).getvalue()
    assert tar_members(b"".join(_blocks(data, count)) + bytes(100)) == files


def test_damage_and_size_of_a_gzip_of_several_parts() -> None:
    """A part that is damaged or missing, the last checksum too, refuses it; so does what is a bomb."""
    data = tarred((_info("a"), b"a" * 1000), (_info("b"), b"b" * 1000)).getvalue()
    whole = _blocks(data, 1536)
    damaged = bytearray(whole[1])
    damaged[-6] ^= 0xFF
    for parts in (
        [*whole[:1], bytes(damaged), *whole[2:]],
        whole[:1],
        [*whole[:-1], whole[-1][:-3]],
    ):
        assert tar_refusal(io.BytesIO(b"".join(parts))) == "damaged_archive"
    bomb = [*whole, *_blocks(bytes(100_000), 10_000) * 11]
    assert tar_refusal(io.BytesIO(b"".join(bomb))) == "too_large"


def header(kind: bytes, record: bytes) -> bytes:
    """A header of a tar that describes the one behind it."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, len(record)
    return info.tobuf(tarfile.GNU_FORMAT) + record.ljust(-(-len(record) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(header(b"x", b"12 path=a.p\n") * 5000, id="pax"),
        pytest.param(header(b"L", b"n" * 512) * 5000, id="long names"),
        pytest.param(header(b"x", b"11 size=-5\n"), id="below 0"),
    ],
)
def test_headers_that_describe_no_member_are_damage(before: bytes) -> None:
    """Neither a chain of them nor a size that is none is an unexpected error."""
    data = before + tarred((_info("a.png"), b"x")).getvalue()
    assert tar_refusal(io.BytesIO(data)) == "damaged_archive"


def test_a_tar_of_before_posix(tmp_path: Path) -> None:
    """Without the word ustar its checksum tells it, packed or not; it is whole or not as any other."""
    data = bytearray(tarred((_info("a"), b"x" * 600)).getvalue())
    data[257:265] = bytes(8)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    for number, packed in enumerate((bytes(data), b"".join(_blocks(bytes(data), 300)))):
        (tmp_path / str(number)).write_bytes(packed)
        with (tmp_path / str(number)).open("rb") as file:
            [(found, evidence)] = formats.matching(Probe(file.fileno()))
        assert (found.id, "checksum" in evidence) == ("tar", True)
        assert tar_members(packed) == {"a": b"x" * 600}
    with (tmp_path / "0").open("rb") as file:
        assert completeness.missing(file.fileno(), 1000) == "the end of a member of the tar"


def test_a_bomb_is_told_by_its_ratio_from_a_small_size_on() -> None:
    """A blank image packs a thousandfold and is honest; the text of the key names the threshold."""
    limits = Config().limits
    budget = room.Budget(limits=limits, archive_bytes=100_000)
    budget.check(48 << 20)
    with pytest.raises(ExtractionError) as raised:
        budget.check(80 << 20)
    assert raised.value.reason == "ratio"
    room.Budget(limits=limits, archive_bytes=1 << 20).check(80 << 20)
    [line] = [line for line in render().splitlines() if "archive_max_ratio" in line]
    assert "above 64 MiB unpacked" in line
