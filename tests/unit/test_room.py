"""Room on the disk: stages that run at the same time do not count on the same free bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cytowatch.engine.room import Room, written_bytes
from cytowatch.errors import TransientError


def test_what_is_reserved_is_not_given_twice(tmp_path: Path) -> None:
    """Until it is released: by the end of its stage, or by another demand of the same one."""
    room = Room(lambda: 100)
    room.reserve("a", tmp_path / "a", 60, spare_bytes=10)
    with pytest.raises(TransientError, match="60 are reserved for what is in work"):
        room.reserve("b", tmp_path / "b", 40, spare_bytes=10)
    room.reserve("b", tmp_path / "b", 30, spare_bytes=10)
    assert room.reserved_bytes() == 90
    room.release("a")
    room.reserve("b", tmp_path / "b", 90, spare_bytes=10)
    assert room.reserved_bytes() == 90


def test_what_was_written_counts_no_more(tmp_path: Path) -> None:
    """The disk's own free bytes have gone down by it already."""
    out = tmp_path / "a" / "children" / "one"
    out.mkdir(parents=True)
    room = Room(lambda: 10_000_000)
    room.reserve("a", tmp_path / "a", 1_000_000, spare_bytes=0)
    (out / "slide.svs").write_bytes(b"x" * 400_000)
    written = written_bytes(tmp_path / "a")
    assert written >= 400_000
    assert room.reserved_bytes() == 1_000_000 - written
    # A second image of the same file comes on top of the first.
    room.reserve("a", tmp_path / "a", 1_000_000, spare_bytes=0)
    assert room.reserved_bytes() == 1_000_000


def test_the_reserve_stays_free(tmp_path: Path) -> None:
    """However little is asked for."""
    with pytest.raises(TransientError, match="50 are kept in reserve"):
        Room(lambda: 50).reserve("a", tmp_path, 1, spare_bytes=50)
