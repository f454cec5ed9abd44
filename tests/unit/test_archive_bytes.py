"""Zips whose numbers are too small for what they hold, and what an archive loses."""

from __future__ import annotations

import bz2
import io
import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cytowatch import archives as room
from cytowatch.archives import directory, packed, tars, zips
from cytowatch.config import from_mapping
from cytowatch.record.entries import SkippedEntry
from cytowatch.record.errors import ExtractionError
from cytowatch.record.skipped import losses
from tests.builders.packs import Packed, finder_zip, raw_tar, raw_zip
from tests.unit.test_archive_names import image, unpacked

__all__ = ["image", "unpacked"]

LIMITS = from_mapping(
    {"limits": {"archive_max_bytes": 4 << 20, "archive_max_entries": 200_000}}
).limits
#: In place of 2^32, so that a few hundred kB are what 4 GiB are to the Finder.
WRAP = 1 << 16


@pytest.fixture
def small_wrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for module in (directory, packed, zips):
        monkeypatch.setattr(module, "WRAP", WRAP)
    yield WRAP


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def came_out(data: bytes, limits: Any = LIMITS) -> dict[str, bytes | str]:
    """What each member became: its bytes, or the reason that it was lost for."""
    found: dict[str, bytes | str] = {}
    budget = room.Budget(limits=limits, archive_bytes=len(data))
    with zips.opened(io.BytesIO(data)) as archive:
        for member in zips.members(archive, budget):
            out = io.BytesIO()
            try:
                zips.unpack(archive, member, out, budget=budget, progress=lambda _: None)
                found[member.path] = out.getvalue()
            except room.DamagedMember as error:
                found[member.path] = str(error)
    return found


def finder(*members: Packed) -> bytes:
    stream = io.BytesIO()
    finder_zip(stream, *members, wrap=WRAP)
    return stream.getvalue()


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("descriptor", ["sig", "nosig", ""])
def test_members_that_are_larger_than_their_numbers(
    method: int, descriptor: str, small_wrap: int
) -> None:
    """Packed or not, before and behind others: each comes out to its true end."""
    files = {
        "1": b"small", "2": noise(3 * WRAP + 5), "3": bytes(2 * WRAP + 7), "4": b"x" * 900,
        "5": noise(WRAP, 2), "6": b"", "7": noise(WRAP - 1, 3), "8": noise(40, 4),
    }  # fmt: skip
    data = finder(
        *(Packed(name=name.encode(), data=data, method=method, descriptor=descriptor)
          for name, data in files.items())
    )  # fmt: skip
    assert len(data) > 5 * WRAP
    assert came_out(data) == files


def test_more_members_than_their_number_can_say() -> None:
    """Their count is modulo 2^16, in a real zip of the Finder and in any without zip64."""
    names = [f"{number:x}" for number in range(65_537)]
    data = raw_zip(*(Packed(name=name.encode(), method=0) for name in names))
    assert list(came_out(data)) == names


def test_a_wrapped_member_that_is_cut_or_damaged_is_lost_alone(small_wrap: int) -> None:
    """The stream must end, fit its checksum and its size but for multiples of the modulus."""
    members = [
        Packed(name=b"a", data=noise(2 * WRAP)), Packed(name=b"b", data=noise(2 * WRAP, 2)),
        Packed(name=b"c", data=b"c" * 99),
    ]  # fmt: skip
    data = bytearray(finder(*members))
    data[WRAP] ^= 1
    found = came_out(bytes(data))
    assert str(found["a"]).startswith("damaged: ")
    assert (found["b"], found["c"]) == (members[1].data, members[2].data)
    data = bytearray(finder(*members))
    at = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))
    struct.pack_into("<I", data, at + 24, 17)
    found = came_out(bytes(data))
    assert (found["a"], str(found["b"])[:8]) == (members[0].data, "damaged:")


def test_limits_hold_for_what_is_not_stated(small_wrap: int) -> None:
    """A bomb that states a small size is refused by the bytes that come out of it."""
    bomb = finder(Packed(name=b"a", data=bytes((8 << 20) + 3), level=9))
    with pytest.raises(ExtractionError) as raised:
        came_out(bomb)
    assert raised.value.reason == "too_large"


def test_room_is_asked_for_beyond_what_is_stated(small_wrap: int) -> None:
    """Before it is written, a modulus at a time."""
    data = finder(Packed(name=b"a", data=noise(3 * WRAP + 5)))
    asked: list[int] = []
    budget = room.Budget(limits=LIMITS, archive_bytes=len(data))
    with zips.opened(io.BytesIO(data)) as archive:
        [member] = zips.members(archive, budget)
        zips.unpack(
            archive, member, io.BytesIO(), budget=budget, progress=lambda _: None, room=asked.append
        )
    assert asked == [WRAP] * 3


def test_a_size_that_lies_is_not_taken_for_a_wrapped_one() -> None:
    """Of so few bytes 4 GiB cannot come out."""
    data = bytearray(raw_zip(Packed(name=b"a", data=b"x" * 5000)))
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 24, 10)
    assert came_out(bytes(data)) == {"a": "damaged: it is longer than stated"}


@pytest.mark.parametrize("descriptor", ["sig", "nosig", "sig64"])
@pytest.mark.parametrize("method", [0, 8])
def test_data_descriptors_of_every_kind(descriptor: str, method: int) -> None:
    """As programs write them that pack into a stream."""
    files = {"a": noise(5000), "b": b"b"}
    data = raw_zip(
        *(Packed(name=name.encode(), data=data, method=method, descriptor=descriptor)
          for name, data in files.items())
    )  # fmt: skip
    assert came_out(data) == files


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize("count", [0, 1, 70_000, 3_000_000])
def test_every_way_of_packing(method: int, count: int) -> None:
    """Alike noise and what packs well; one damaged byte is seen."""
    files = {"noise": noise(count), "zeros": bytes(count)}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    limits = from_mapping({"limits": {"archive_max_ratio": 10_000}}).limits
    assert came_out(stream.getvalue(), limits) == files
    if count > 1:
        turned = bytearray(stream.getvalue())
        turned[count // 2] ^= 0x10
        assert str(came_out(bytes(turned), limits)["noise"]).startswith("damaged: ")


def test_a_way_of_packing_that_is_not_supported_is_a_loss() -> None:
    """Its reason names it; a stream in another's clothes is damaged."""
    data = bytearray(raw_zip(Packed(name=b"a", data=b"a"), Packed(name=b"b", data=b"b")))
    for mark, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        struct.pack_into("<H", data, data.index(mark) + at, 9)
    assert came_out(bytes(data)) == {
        "a": "unsupported_packing: packed with Deflate64; pack it as an ordinary zip", "b": b"b",
    }  # fmt: skip
    for mark, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        struct.pack_into("<H", data, data.index(mark) + at, 12)
    assert bz2.compress(b"a") not in data
    assert str(came_out(bytes(data))["a"]).startswith("damaged: ")


def test_a_directory_that_points_elsewhere() -> None:
    """A member that is not where it should be, or is another one there, is lost; the rest is not."""
    data = bytearray(raw_zip(Packed(name=b"a", data=b"a" * 40), Packed(name=b"b", data=b"b" * 40)))
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 42, 1)
    assert came_out(bytes(data)) == {
        "a": "damaged: its header is not where the directory says", "b": b"b" * 40,
    }  # fmt: skip
    data = bytearray(raw_zip(Packed(name=b"a", data=b"a" * 40), Packed(name=b"b", data=b"b" * 40)))
    data[30] = ord("x")
    assert came_out(bytes(data))["a"] == "damaged: its header bears another name than the directory"


@pytest.mark.parametrize(
    ("own", "listed", "text"),
    [
        (b"d\\a.svs", b"d/a.svs", "d/a.svs"),
        (b"d/a.svs", b"d\\a.svs", "d/a.svs"),
        ("検体.svs".encode("cp932"), "検体.svs".encode(), "検体.svs"),
        ("Größe.svs".encode(), "Größe.svs".encode("cp437"), "Größe.svs"),
    ],
)
def test_two_names_that_are_one(own: bytes, listed: bytes, text: str) -> None:
    """In front of the member and in the directory programs write other slashes, or in another code page."""
    data = raw_zip(Packed(name=own, data=b"a" * 40))
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry = bytearray(data[at:end].replace(own, listed))
    struct.pack_into("<H", entry, 28, len(listed))
    tail = bytearray(data[end:])
    struct.pack_into("<I", tail, 12, len(entry))
    assert came_out(data[:at] + bytes(entry) + bytes(tail)) == {text: b"a" * 40}


# What an archive loses


def test_an_archive_that_loses_members_says_so(unpacked: Any, image: bytes) -> None:
    """A warning, the reasons, and a number that everything else is made of."""
    data = bytearray(raw_zip(
        Packed(name="表.jpg".encode("cp932"), data=image, method=0), Packed(name=b"ok.jpg", data=image),
        Packed(name=b"readme.txt", data=b"hello there"), Packed(name=b"._ok.jpg", data=b"x"),
    ))  # fmt: skip
    data[300] ^= 0xFF
    outcome, found = unpacked(bytes(data))
    assert set(found) == {"ok.jpg"}
    changed = {**next(iter(found.values())), **outcome.changes}
    assert losses(changed) == 1
    [warning] = outcome.changes["warnings"]
    assert warning.startswith("1 member of the archive could not be unpacked: 表.jpg. ")
    assert outcome.changes["skipped"][0]["name"] == "表.jpg"


def test_what_is_no_image_is_no_loss(unpacked: Any, image: bytes) -> None:
    """Notes and the litter of file managers belong to no slide."""
    outcome, found = unpacked(raw_zip(
        Packed(name=b"a.jpg", data=image), Packed(name=b"b.doc", data=b"hello there"),
        Packed(name=b"__MACOSX/._a.jpg", data=b"x"), Packed(name=b"Thumbs.db", data=b"x"),
    ))  # fmt: skip
    assert outcome.changes["warnings"] == []
    assert losses({**found["a.jpg"], **outcome.changes}) == 0
    assert len(outcome.changes["skipped"]) == 3


def test_losses_are_counted_beyond_what_is_named(unpacked: Any, image: bytes) -> None:
    """A hundred are named, those that were lost first."""
    members = [Packed(name=f"{n}.txt".encode(), data=b"hello") for n in range(90)]
    members += [Packed(name=f"{n}.jpg".encode(), data=image, method=0) for n in range(130)]
    data = bytearray(raw_zip(Packed(name=b"whole.jpg", data=image), *members))
    at = data.index(b"PK\1\2")
    for _ in range(221):
        if data[at + 46 :].startswith(b"whole") is False and data[at + 10] == 0:
            data[at + 16] ^= 1
        at = data.find(b"PK\1\2", at + 1)
    outcome, found = unpacked(bytes(data))
    skipped: list[SkippedEntry] = outcome.changes["skipped"]
    assert losses({**found["whole.jpg"], **outcome.changes}) == 130
    assert len(skipped) == 102
    assert outcome.changes["warnings"][0].startswith("130 members of the archive")


# Tars


def tar_out(data: bytes, **limits: int) -> dict[str, bytes]:
    budget = room.Budget(
        limits=from_mapping({"limits": {"archive_max_bytes": 1 << 20, **limits}}).limits,
        archive_bytes=len(data),
    )
    found = {}
    with tars.opened(io.BytesIO(data)) as archive:
        for member in tars.members(archive, budget):
            out = io.BytesIO()
            if member.copy_of is None:
                tars.unpack(archive, member, out, budget=budget, progress=lambda _: None)
            found[member.path] = out.getvalue() if member.copy_of is None else found[member.copy_of]
    return found


def test_hard_links_are_copies_of_earlier_members(
    unpacked: Any, image: bytes, tmp_path: Path
) -> None:
    """As GNU tar writes a de-duplicated set: by any spelling of the path, and of copies again."""
    links = [(b"copy of 1.jpg", b"./a/1.jpg"), (b"b/2.jpg", b"copy of 1.jpg")]
    data = raw_tar((b"a/1.jpg", image), links=links)
    assert tar_out(data) == dict.fromkeys(("a/1.jpg", "copy of 1.jpg", "b/2.jpg"), image)
    outcome, found = unpacked(data, "tar")
    assert set(found) == {"1.jpg", "copy of 1.jpg", "2.jpg"}
    assert outcome.changes["skipped"] == []
    for one in found.values():
        path = Path("out.1/children") / one["id"] / one["files"][0]["path"]
        assert path.read_bytes() == image
        assert path.stat().st_nlink == 1


def test_copies_count_as_bytes(tmp_path: Path) -> None:
    """A bomb of links is one."""
    links = [(f"{number}.jpg".encode(), b"0.jpg") for number in range(1, 20)]
    (tmp_path / "a.tar").write_bytes(raw_tar((b"0.jpg", noise(100_000)), links=links))
    limits = from_mapping({"limits": {"archive_max_bytes": 1 << 20}}).limits
    with pytest.raises(ExtractionError) as raised:
        room.unpack(
            str(tmp_path / "a.tar"), "tar", str(tmp_path / "out"),
            budget=room.Budget(limits=limits, archive_bytes=100_000),
            wanted=lambda _: True, room=lambda _: None, progress=lambda _: None,
        )  # fmt: skip
    assert raised.value.reason == "too_large"
    assert len(list((tmp_path / "out").iterdir())) <= 11


def test_a_copy_of_what_was_passed_over_is_a_loss(unpacked: Any, image: bytes) -> None:
    """Its bytes are gone by in a stream that is read once."""
    data = raw_tar(
        (b".hidden.jpg", image), (b"ok.jpg", image), links=[(b"shown.jpg", b".hidden.jpg")]
    )
    outcome, found = unpacked(data, "tar")
    assert set(found) == {"ok.jpg"}
    assert losses({**found["ok.jpg"], **outcome.changes}) == 1
