"""Room on the disk: stages that run at the same time do not count on the same free room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cytowatch.config.keys import Storage
from cytowatch.record.errors import TransientError
from cytowatch.tree import room
from cytowatch.tree.room import Amount, Free, OverdrawnError, Room, spare, written

NONE = Storage(reserve_bytes=0, reserve_inodes=0)


def test_what_is_reserved_is_not_given_twice(tmp_path: Path) -> None:
    """Until it is released: by the end of its stage, or by another demand of the same one."""
    kept = Storage(reserve_bytes=10)
    room = Room(lambda: Free(bytes=100))
    room.reserve("a", tmp_path / "a", Amount(bytes=60), settings=kept)
    with pytest.raises(TransientError, match="60 are reserved for what is in work"):
        room.reserve("b", tmp_path / "b", Amount(bytes=40), settings=kept)
    room.reserve("b", tmp_path / "b", Amount(bytes=30), settings=kept)
    assert room.reserved() == Amount(bytes=90)
    room.release("a")
    room.reserve("b", tmp_path / "b", Amount(bytes=90), settings=kept)
    assert room.reserved() == Amount(bytes=90)


def test_inodes_are_reserved_as_bytes_are(tmp_path: Path) -> None:
    """An archive of many small members may need more of them than there are, with bytes in plenty."""
    room = Room(lambda: Free(bytes=1 << 40, inodes=1000, all_inodes=2000))
    kept = Storage(reserve_bytes=0, reserve_inodes=100)
    room.reserve("a", tmp_path / "a", Amount(inodes=600), settings=kept)
    with pytest.raises(
        TransientError,
        match="up to 400 inodes are needed, 1,000 are free, and 100 must stay free as the reserve, "
        "600 are reserved for what is in work",
    ):
        room.reserve("b", tmp_path / "b", Amount(inodes=400), settings=kept)
    room.reserve("b", tmp_path / "b", Amount(inodes=300), settings=kept)
    assert room.reserved() == Amount(inodes=900)


def test_a_filesystem_that_counts_no_inodes_is_exempt(tmp_path: Path) -> None:
    """btrfs states 0 of 0, which does not mean that there are none."""
    room = Room(lambda: Free(bytes=100))
    settings = Storage(reserve_bytes=0, reserve_inodes=1_000_000)
    room.reserve("a", tmp_path / "a", Amount(bytes=100, inodes=1_000_000), settings=settings)


def test_of_few_inodes_few_are_kept() -> None:
    """The reserve of a large disk is more than a small one has at all."""
    settings = Storage(reserve_inodes=1000)
    assert spare(settings, Free(bytes=0, inodes=300, all_inodes=304)).inodes == 30
    assert spare(settings, Free(bytes=0, inodes=300, all_inodes=10**6)).inodes == 1000
    assert spare(settings, Free(bytes=0)).inodes == 0


def test_what_is_free_is_what_the_filesystem_says(tmp_path: Path) -> None:
    """In bytes and inodes, as `df` and `df -i` show them."""
    stated = os.statvfs(tmp_path)
    found = room.free(tmp_path)
    assert found.all_inodes == (stated.f_files or None)
    assert (found.inodes is None) == (stated.f_files == 0)


def test_what_was_written_no_longer_counts(tmp_path: Path) -> None:
    """The disk's own free room has gone down by it already."""
    out = tmp_path / "a" / "children" / "one"
    out.mkdir(parents=True)
    room = Room(lambda: Free(bytes=10_000_000, inodes=1000, all_inodes=1000))
    need = Amount(bytes=1_000_000, inodes=20)
    before = written(tmp_path / "a")
    assert before == Amount(inodes=3)
    room.reserve("a", tmp_path / "a", need, settings=NONE)
    (out / "slide.svs").write_bytes(b"x" * 400_000)
    (out / "second").mkdir()
    now = written(tmp_path / "a")
    assert now.bytes >= 400_000
    assert now.inodes == 5
    assert room.reserved() == Amount(bytes=1_000_000 - now.bytes, inodes=18)
    # A second image of the same file comes on top of the first.
    room.reserve("a", tmp_path / "a", need, settings=NONE)
    assert room.reserved() == need


def test_the_reserve_stays_free(tmp_path: Path) -> None:
    """However little is asked for."""
    with pytest.raises(TransientError, match="50 must stay free as the reserve"):
        Room(lambda: Free(bytes=50)).reserve(
            "a", tmp_path, Amount(bytes=1), settings=Storage(reserve_bytes=50)
        )


def test_more_than_was_asked_for_is_broken_off_when_the_reserve_is_begun(tmp_path: Path) -> None:
    """Not before, and not what was asked for: a decoder that fills the disk would stop everybody else."""
    left = [Free(bytes=1 << 30)]
    room = Room(lambda: left[0])
    kept = Storage(reserve_bytes=64 << 20)
    out = tmp_path / "out.1"
    out.mkdir()
    room.reserve("a", out, Amount(bytes=1 << 20), settings=kept)
    (out / "pyramid").write_bytes(b"x" * (40 << 20))
    room.check("a", [out], settings=kept)
    left[0] = Free(bytes=1 << 20)
    with pytest.raises(TransientError, match="of which it asked for 1,"):
        room.check("a", [out], settings=kept)
    left[0] = Free(bytes=1 << 30)
    room.reserve("a", out, Amount(bytes=40 << 20), settings=kept)
    left[0] = Free(bytes=1 << 20)
    room.check("a", [out], settings=kept)


def test_a_tree_that_is_too_deep_to_be_measured_is_broken_off(tmp_path: Path) -> None:
    """And so are inodes that nobody asked for; what an earlier stage made, and was accepted, does not count."""
    left = [Free(bytes=1 << 20)]
    room = Room(lambda: left[0])
    kept = Storage(reserve_bytes=64 << 20)
    out, derived = tmp_path / "out.1", tmp_path / "derived"
    for folder in (out, derived):
        folder.mkdir()
    (derived / "pyramid").write_bytes(b"x" * (40 << 20))
    room.check("a", [out, derived], settings=kept, accepted_bytes=40 << 20)
    with pytest.raises(OverdrawnError, match="has written"):
        room.check("a", [out, derived], settings=kept)
    deep = out
    for _ in range(90):
        deep /= "d"
    deep.mkdir(parents=True)
    with pytest.raises(OverdrawnError, match="deeper or larger"):
        room.check("a", [out], settings=kept)
    left[0] = Free(bytes=1 << 30, inodes=5, all_inodes=100_000)
    many = tmp_path / "many"
    many.mkdir()
    for number in range(1100):
        (many / str(number)).touch()
    with pytest.raises(OverdrawnError, match="has made"):
        room.check("a", [many], settings=kept)
