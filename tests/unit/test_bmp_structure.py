"""The header of a bitmap, which looks and readers take from one place: any bytes have one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytowatch.formats.structure import bmp
from tests.builders import others


@given(st.binary(max_size=80))
def test_any_bytes_have_a_header(data: bytes) -> None:
    """Rows are never shorter than their pixels, and what a short header cannot state is 0."""
    found = bmp.parsed(data)
    assert found == bmp.parsed(data + bytes(80)) or found.is_cut or len(data) < 70
    if found.width > 0:
        assert found.stride % 4 == 0
        assert found.used <= found.stride < found.used + 4
    if not found.is_windows:
        assert (found.packing, found.colours, found.per_metre, any(found.masks)) == (
            0,
            0,
            (0, 0),
            False,
        )


@pytest.mark.parametrize("keep", [0, 2, 17, 25, 37, 38, 54])
def test_a_header_that_is_cut_says_so(tmp_path: Path, keep: int) -> None:
    """Up to the length of the packed pixels, without which the length of the file is not known."""
    data = others.bmp(tmp_path / "a.bmp").read_bytes()
    assert bmp.parsed(data[:keep]).is_cut == (keep < 38)


def test_a_header_of_os2_is_shorter() -> None:
    """Its sizes have two bytes, and no sign."""
    head = struct.pack("<2sIHHIIHHHH", b"BM", 0, 0, 0, 26, bmp.OS2_BYTES, 300, 65535, 1, 24)
    found = bmp.parsed(head + b"\xff" * 44)
    assert (found.width, found.height, found.bits, found.packing) == (300, 65535, 24, 0)
    assert found.has_rows
    assert not found.is_cut
    assert bmp.parsed(head[:-1]).is_cut
