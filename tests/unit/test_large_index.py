"""An MRXS with more tiles than are read at once: its data files are looked at as the index says, at little memory."""

from __future__ import annotations

import struct
import tracemalloc
from array import array
from pathlib import Path

import pytest

from cytowatch.formats.completeness import arrival
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


def _slide(tmp_path: Path, tiles: int, *, odd: int = 0) -> dict[str, arrival.Watch]:
    """The watches over a slide whose index lists so many tiles, all different, and `odd` at no place in a file."""
    whole = built(tmp_path / "built")
    index = bytearray(whole["S/Index.dat"])
    [head] = struct.unpack_from("<i", index, 37)
    [record] = struct.unpack_from("<i", index, head)
    [page] = struct.unpack_from("<i", index, record + 4)
    struct.pack_into("<i", index, page + 4, len(index))
    rows = array("i", (0, 0, 40, 0)) * tiles
    rows[1::4] = array("i", range(200, 200 + 50 * tiles, 50))
    rows += array("i", (0, -5, -7, 0)) * odd
    index += struct.pack("<ii", tiles + odd, 0) + rows.tobytes()
    files = {**whole, "S/Index.dat": bytes(index), "S/Data0000.dat": bytes(100)}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_bytes(data)
    with (tmp_path / "S/Data0000.dat").open("r+b") as file:
        file.truncate(200 + 50 * tiles)
        file.seek(0)
        file.write(b"\xff\xd8" * 100)
        for number in range(min(tiles, 1000)):
            file.seek(200 + 50 * number)
            file.write(b"\xff\xd8 a tile")
    return arrival.of_sets([str(tmp_path / "S/Slidedat.ini")])


def test_the_places_of_many_tiles_take_little_memory(tmp_path: Path) -> None:
    """A number of eight bytes for each, and objects of Python only while they are sorted."""
    tiles = 200_000
    _slide(tmp_path, tiles)
    tracemalloc.start()
    try:
        _slide_again(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * tiles, peak / tiles


def test_more_tiles_than_there_is_memory_for_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/formats.md says so; of fewer they are."""
    monkeypatch.setattr(mirax, "MOST_TILES", 1100)
    assert len(_slide(tmp_path, 999)) == 2
    assert _slide(tmp_path, 1101) == {}
    assert f"{4 << 20:,} tiles" in (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


def test_a_tile_at_no_place_in_a_file_costs_nothing(tmp_path: Path) -> None:
    """OpenSlide reports it; all others are looked at."""
    watch = _slide(tmp_path, 10, odd=1)[str(tmp_path / "S/Data0000.dat")]
    watch.look()
    assert watch.verdict().lacks is None
    with (tmp_path / "S/Data0000.dat").open("r+b") as file:
        file.seek(250)
        file.write(bytes(20))
    watch = _slide_again(tmp_path)
    watch.look()
    assert "250" in str(watch.verdict().lacks)


def _slide_again(tmp_path: Path) -> arrival.Watch:
    return arrival.of_sets([str(tmp_path / "S/Slidedat.ini")])[str(tmp_path / "S/Data0000.dat")]
