"""A file that was cut is told from a whole one by its structure, whatever its size says."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytowatch.formats.completeness import missing
from tests import builders


def lacking(data: bytes) -> str | None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return missing(file.fileno(), len(data))


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", os.urandom(5000))
    return path


MAKERS: list[Callable[[Path], Path]] = [
    builders.jpeg,
    builders.png,
    builders.planar_tiff,
    builders.pyramidal_tiff,
    builders.aperio_svs,
    builders.hamamatsu_ndpi,
    zipped,
]


@pytest.mark.parametrize("make", MAKERS)
def test_whole_is_whole_and_cut_is_not(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Cut at a third, a half, near the end; filled up with zeros as a size set before content."""
    data = make(tmp_path / "slide").read_bytes()
    assert lacking(data) is None
    for keep in (len(data) // 3, len(data) // 2, len(data) - 40):
        assert lacking(data[:keep]), keep
    if data[:1] in (b"\xff", b"\x89", b"P"):
        assert lacking(data[: len(data) // 2] + b"\0" * (len(data) // 2))


@pytest.mark.parametrize("make", [builders.jpeg, builders.png, builders.aperio_svs])
def test_junk_after_the_end_is_harmless(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Some writers pad; what was meant to be there is there."""
    assert lacking(make(tmp_path / "slide").read_bytes() + b"\0" * 3000) is None


def test_the_end_of_an_embedded_thumbnail_is_not_the_end(tmp_path: Path) -> None:
    """An EXIF thumbnail is a JPEG with an EOI of its own, in a segment before the first scan."""
    whole = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    thumbnail = b"Exif\0\0" + b"\xff\xd8\xff\xd9"
    data = whole[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + whole[2:]
    assert lacking(data) is None
    assert lacking(data[:-2])


def test_only_zeros_is_not_content_yet() -> None:
    """A client that sets the size first leaves a file of zeros until it writes."""
    assert lacking(b"\0" * 100_000) == "its content (only zeros so far)"


def test_what_nobody_knows_is_whole() -> None:
    """Its fate is an error with a reason, not an endless wait."""
    assert lacking(b"Dear scanner") is None
    assert lacking(b"") is None


@given(
    st.binary(max_size=400),
    st.sampled_from(
        [b"II*\0", b"MM\0+", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b""]
    ),
)
def test_garbage_never_raises(data: bytes, magic: bytes) -> None:
    """Whatever the bytes claim, the answer is a phrase or None."""
    found = lacking(magic + data)
    assert found is None or found
