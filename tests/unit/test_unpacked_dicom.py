"""DICOM whose pixels are not packed states how many bytes they are: what is cut waits for the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytowatch.formats.structure.dicom import unpacked
from tests.builders.dicom import UNPACKED, dicom_wsi
from tests.unit.test_completeness import holed, lacking


def _made(folder: Path, syntax: str, **stated: object) -> bytes:
    """White frames, so that no zero in them is honest."""
    path = dicom_wsi(
        folder, levels=1, photometric="RGB", syntax=syntax,
        encode=lambda tile: np.full_like(tile, 255).tobytes(), **stated,
    )  # fmt: skip
    return path.read_bytes()


@pytest.mark.parametrize("syntax", UNPACKED)
def test_a_cut_is_told_from_the_whole(tmp_path: Path, syntax: str) -> None:
    """Wherever it is; zeros in place of the rest and a hole are found too. Padding behind does no harm."""
    data = _made(tmp_path, syntax)
    assert lacking(data) is None
    assert lacking(data + b"\xfc\xff\xfc\xffOB\0\0\x10\0\0\0" + bytes(16)) is None
    for keep in (len(data) // 3, len(data) // 2 + 100, len(data) - 1):
        assert f"its last {len(data) - keep:,} bytes" in (lacking(data[:keep]) or ""), keep
    keep = len(data) // 2 + 100
    assert "only zeros, from the middle of a row" in (
        lacking(data[:keep].ljust(len(data), b"\0")) or ""
    )
    assert holed(data, len(data) // 2)


def test_where_pixels_and_rows_are(tmp_path: Path) -> None:
    """A row of a frame: of all samples, or of one where they lie in planes; 16 bits are two bytes."""
    wide = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}
    for number, (stated, stride) in enumerate(
        [({}, 768), ({"PlanarConfiguration": 1}, 256), (wide, 1536)]
    ):
        for syntax in UNPACKED:
            folder = tmp_path / f"{number} {syntax}"
            data = _made(folder, syntax, **stated)
            with (folder / "level0.dcm").open("rb") as file:
                found = unpacked(file.fileno())
            assert found is not None
            assert (found.stride, found.end) == (stride, len(data))
            assert data[found.begin :].startswith(b"\xff" * 100)


@given(at=st.integers(128, 3000), junk=st.binary(min_size=1, max_size=12))
def test_anything_may_stand_in_its_header(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes
) -> None:
    """The answer is a phrase or None."""
    folder = tmp_path_factory.mktemp("d")
    data = _made(folder, UNPACKED[1])
    found = lacking(data[:at] + junk + data[at + len(junk) :])
    assert found is None or found
