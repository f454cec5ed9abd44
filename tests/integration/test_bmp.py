"""Bitmaps whose pixels are said to begin inside of their header or palette: right, or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from cytowatch.config import from_mapping
from cytowatch.pyramid.readers.bmp import open_bmp
from cytowatch.record.errors import ConversionError
from tests.builders import picture

CONFIG = from_mapping({})
WIDTH, HEIGHT = 120, 90
PIXELS = picture(WIDTH, HEIGHT)
INDICES = (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 100).astype(np.uint8)
COLOURS = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)


def _bmp(
    path: Path, *, bits: int, begin: int, entries: int = 256, used: int = 0, more: int = 0
) -> Path:
    """A header of 40 bytes that states `begin`, `entries` colours, and then the rows."""
    palette = np.zeros((entries, 4), np.uint8)
    palette[:, :3] = COLOURS[:entries, ::-1]
    rows = (PIXELS[::-1, :, ::-1] if bits == 24 else INDICES[::-1]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, bits, 0, 0, 0, 0, used, 0)
    body = head + (b"" if bits == 24 else palette.tobytes()) + rows + bytes(more)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, begin) + body)
    return path


def _shown(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    opened = open_bmp(str(path), CONFIG)
    [scene] = opened.scenes
    pixels = scene.region.rows(0, HEIGHT)
    opened.close()
    return pixels, scene.done


@pytest.mark.parametrize("begin", [0, 14, 53, 54, 100, 1000, 1077])
def test_a_place_that_is_wrong_is_put_right(tmp_path: Path, begin: int) -> None:
    """Where the file is as long as it is with the pixels behind the palette, they begin there."""
    pixels, done = _shown(_bmp(tmp_path / "a.bmp", bits=8, begin=begin))
    assert np.array_equal(pixels, COLOURS[INDICES])
    assert "its pixels begin behind its palette, and not where it states" in done


@pytest.mark.parametrize("begin", [0, 14, 53])
def test_colours_without_a_palette(tmp_path: Path, begin: int) -> None:
    """The same of 24 bits, whose pixels begin behind the header."""
    pixels, _ = _shown(_bmp(tmp_path / "a.bmp", bits=24, begin=begin))
    assert np.array_equal(pixels, PIXELS)


@pytest.mark.parametrize(("bits", "begin"), [(8, 0), (8, 54), (8, 1000), (24, 10), (24, 53)])
def test_it_is_refused_where_nothing_tells(tmp_path: Path, bits: int, begin: int) -> None:
    """A file of another length says nothing of where they are: never black, never the palette."""
    with pytest.raises(ConversionError, match="said to begin at") as caught:
        _shown(_bmp(tmp_path / "a.bmp", bits=bits, begin=begin, more=2000))
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize(
    ("entries", "used"), [(100, 0), (100, 100), (120, 0), (256, 256), (256, 0)]
)
def test_a_palette_that_is_as_short_as_its_pixels_allow(
    tmp_path: Path, entries: int, used: int
) -> None:
    """It is read as it is, whether it states its length or not."""
    path = _bmp(tmp_path / "a.bmp", bits=8, begin=54 + 4 * entries, entries=entries, used=used)
    pixels, done = _shown(path)
    assert np.array_equal(pixels, COLOURS[INDICES])
    assert done == ("its palette was expanded",)


def test_a_palette_that_is_too_short(tmp_path: Path) -> None:
    """Pixels of a colour that is not there would be black."""
    with pytest.raises(ConversionError, match="inside of its header or palette"):
        _shown(_bmp(tmp_path / "a.bmp", bits=8, begin=54 + 4 * 60, entries=60))
