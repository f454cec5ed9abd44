"""An MRXS with more tiles than are read at once: its data files are as long as the index says, at little memory."""

from __future__ import annotations

import struct
import tracemalloc
from array import array
from pathlib import Path

import pytest

from cytowatch.formats.structure import mirax
from tests.unit.test_companions import built, only

TILES = 1_200_000


def _with_large_index(whole: dict[str, bytes]) -> dict[str, bytes]:
    """The first level goes on in a second page of more than 16 MiB, whose last tile ends with its data file."""
    index = bytearray(whole["S/Index.dat"])
    [head] = struct.unpack_from("<i", index, 37)
    [record] = struct.unpack_from("<i", index, head)
    [page] = struct.unpack_from("<i", index, record + 4)
    struct.pack_into("<i", index, page + 4, len(index))
    end = len(whole["S/Data0001.dat"])
    rows = array("i", (0, 40, 10, 0)) * (TILES - 1) + array("i", (1, end - 10, 10, 1))
    index += struct.pack("<ii", TILES, 0) + rows.tobytes()
    return {**whole, "S/Index.dat": bytes(index)}


def test_a_large_index_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last tile of over a million lies where a data file was cut."""
    whole = _with_large_index(built(tmp_path))
    assert len(whole["S/Index.dat"]) > 16 << 20
    assert only(whole).missing is None
    peaks = []
    real = mirax.lengths

    def measured(*arguments: object) -> object:
        tracemalloc.start()
        try:
            return real(*arguments)  # type: ignore[arg-type]
        finally:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    monkeypatch.setattr(mirax, "lengths", measured)
    found = only({**whole, "S/Data0001.dat": whole["S/Data0001.dat"][:-5]})
    assert "the end of S/Data0001.dat" in str(found.missing)
    assert 0 < max(peaks) < 4 << 20
