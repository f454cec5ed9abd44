"""The walks over a JPEG 2000, which take any bytes: its boxes, and the markers of its codestream."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytowatch.config import Config
from cytowatch.formats.structure import jp2
from cytowatch.pyramid import further, orientation
from cytowatch.pyramid.readers.jp2 import open_jp2
from cytowatch.record.errors import ConversionError
from tests.builders import others
from tests.unit.test_completeness import lacking

#: Pieces that lead a walk far: boxes, markers, and lengths that are too small or too great.
PIECES = (
    jp2.SIGNATURE, jp2.BEGIN, b"\0\0\0\1jp2c", b"\0\0\0\0uuid", b"\0\0\0\7jp2h", b"\0\0\0\x10free12345678",
    struct.pack(">HHHIBB", jp2.SOT, 10, 0, 14, 0, 1) + b"\xff\x93", struct.pack(">HHHI", jp2.SOT, 10, 0, 0),
    struct.pack(">HHHI", jp2.SOT, 10, 0, 11), b"\xff\x30", b"\xff\x52\0\0", b"\xff\x52\xff\xff", b"\xff\xd9", bytes(9),
    b"\xff" * 8,
)  # fmt: skip


@contextmanager
def _file(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("jp2", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=20)).map(b"".join), st.integers(0, 60))
def test_a_walk_goes_forward_and_ends(data: bytes, end: int) -> None:
    """On any bytes, also where a codestream is said to end before the file or behind it."""
    with _file(data) as descriptor:
        boxes = list(jp2.boxes(descriptor, len(data)))
        assert boxes == list(jp2.boxes_in(data))
        for box, behind in itertools.pairwise(boxes):
            assert box.at < box.begin <= box.end == behind.at
        parts = list(jp2.segments(descriptor, 0, end))
    assert parts
    for part, behind in itertools.pairwise(parts):
        assert part.at < part.end == behind.at
        assert part.at < end
    jp2.siz(data)
    jp2.cod(data)


def test_a_jp2_that_is_cut_in_a_long_length_waits(tmp_path: Path) -> None:
    """Eight bytes of length stand behind the name of a large box: with seven of them it is cut."""
    data = others.jp2(tmp_path / "a.jp2").read_bytes()
    at = data.index(jp2.CODESTREAM) - 4
    stream = data[at + 8 :]
    for kind in (jp2.CODESTREAM, b"free"):
        large = data[:at] + struct.pack(">I4sQ", 1, kind, 16 + len(stream)) + stream
        assert (lacking(large) is None) == (kind == jp2.CODESTREAM)
        for keep in range(at, at + 16):
            assert lacking(large[:keep]), (kind, keep - at)


def test_the_last_box_may_leave_its_length_open(tmp_path: Path) -> None:
    """Then it goes up to the end of the file: an orientation in it is seen, and a second codestream is one."""
    data = others.jp2(tmp_path / "a.jp2").read_bytes()
    exif = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    with _file(data + b"\0\0\0\0uuidJpgTiffExif->JP2" + exif) as descriptor:
        assert orientation.of_jp2(descriptor) == 6
    path = tmp_path / "b.jp2"
    path.write_bytes(data + b"\0\0\0\0jp2c" + data[data.index(jp2.BEGIN) :])
    assert further.told(str(path)) == ["it has 2 pictures: the first one is the pyramid"]


def test_a_codestream_without_a_tile_is_refused_in_words(tmp_path: Path) -> None:
    """Its end where the first tile must be is damage, no matter what lies behind it."""
    path = others.jp2(tmp_path / "a.j2k", bare=True)
    data = path.read_bytes()
    at = data.index(jp2.SOT.to_bytes(2))
    path.write_bytes(data[:at] + jp2.EOC.to_bytes(2) + data[at:])
    with pytest.raises(ConversionError, match="ends before its first tile"):
        open_jp2(str(path), Config())


def test_the_end_of_another_box_is_not_that_of_the_codestream() -> None:
    """What stands behind the codestream says nothing of it."""
    with _file(bytes(10) + jp2.EOC.to_bytes(2)) as descriptor:
        assert jp2.ends_near(descriptor, 0, 12)
        assert not jp2.ends_near(descriptor, 0, 10)
        assert not jp2.ends_near(descriptor, 12, 10)
