"""What samples mean, and how those of any kind become 8 or 16 bits without a sign."""

from __future__ import annotations

import numpy as np
import pytest

from cytowatch.pyramid.colours import rgb_of_lab, rgb_of_ycbcr, ycbcr_of_units
from cytowatch.pyramid.meaning import Meaning, meaning
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.whole import Whole
from cytowatch.pyramid.regions import Scene
from cytowatch.pyramid.samples import banded, held, inverted, spread, unmultiplied
from cytowatch.record.errors import ConversionError


@pytest.mark.parametrize(
    ("photometric", "stored", "extra", "means"),
    [
        (1, 1, (), Meaning(colours=1)),
        (1, 2, (), Meaning(colours=1)),
        (1, 3, (), Meaning(colours=3)),
        (1, 3, (0, 0), Meaning(colours=1)),
        (1, 4, (), Meaning(colours=3)),
        (1, 4, (0, 0, 0), Meaning(colours=1)),
        (1, 5, (), Meaning(colours=1)),
        (2, 3, (2,), Meaning(colours=3)),
        (2, 4, (), Meaning(colours=3)),
        (2, 5, (0, 1), Meaning(colours=3, alpha=4, premultiplied=True)),
        (2, 5, (2, 0), Meaning(colours=3, alpha=3)),
        (3, 2, (2,), Meaning(colours=1, alpha=1)),
        (5, 5, (2,), Meaning(colours=4, alpha=4)),
    ],
)
def test_only_what_is_called_transparency_is(
    photometric: int, stored: int, extra: tuple[int, ...], means: Meaning
) -> None:
    """An extra sample that nothing names is left out, and not laid over white."""
    assert meaning(photometric, stored, extra) == means


@pytest.mark.parametrize("bits", [1, 2, 6, 8, 10, 12, 15, 16])
def test_the_ends_of_a_scale_stay_its_ends(bits: int) -> None:
    """However many bits; white as black is the same scale from the other end."""
    kind = np.uint8 if bits <= 8 else np.uint16
    every = np.arange(1 << bits).astype(kind)
    wide = spread(every, bits)
    assert (wide[0], wide[-1]) == (0, np.iinfo(kind).max)
    assert (np.diff(wide.astype(int)) > 0).all()
    assert np.array_equal(inverted(every, bits), every[::-1])


def _held(values: list[object], kind: object) -> tuple[Pixels, tuple[str, ...]]:
    pixels = np.array(values, kind).reshape(1, -1, 1)
    told: list[float] = []
    scene = held(Scene(region=Whole(pixels)), told.append)
    assert told == [0.0]
    assert scene.region.dtype == np.uint16
    return scene.region.rows(0, 1).reshape(-1), scene.done


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ([0, 65535], np.int32, [0, 65535]),
        ([-1, 0, 1], np.int8, [0, 32768, 65535]),
        ([-(2**63), 0, 2**63 - 1], np.int64, [0, 32768, 65535]),
        ([2**63, 2**63 + 1, 2**63 + 3], np.uint64, [0, 21845, 65535]),
        ([1e6, 1e6 + 0.5, 1e6 + 1], np.float64, [0, 32768, 65535]),
        ([np.inf, -np.inf, np.nan, 2, 4], np.float32, [65535, 0, 0, 0, 65535]),
        ([np.nan, np.nan], np.float32, [0, 0]),
        ([7, 7], np.float32, [0, 0]),
        ([0.5, 1.5], np.float16, [0, 65535]),
    ],
)
def test_any_samples_as_16_bits(values: list[object], kind: object, found: list[int]) -> None:
    """From the least to the greatest that is a number; only what fits stays as it is."""
    assert _held(values, kind)[0].tolist() == found


def test_what_a_pyramid_holds_is_left_alone() -> None:
    """Eight bits need no change: the scene itself comes back."""
    scene = Scene(region=Whole(np.zeros((2, 2, 4), np.uint8)))
    assert held(scene, lambda _: None) is scene


def test_a_reader_that_fails_is_a_damaged_image() -> None:
    """An error of the reader ends the conversion with its words."""

    class Broken(Whole):
        def rows(self, top: int, bottom: int) -> Pixels:
            raise IndexError("no such tile")

    with pytest.raises(ConversionError, match="no such tile"):
        held(Scene(region=Broken(np.zeros((2, 2, 1), np.float32))), lambda _: None)


def test_colours_before_they_were_multiplied() -> None:
    """Exact where they are opaque, nothing where nothing is seen."""
    colours = np.array([[[100, 0, 50], [10, 20, 40], [9, 9, 9]]], np.uint8)
    alpha = np.array([[[255], [51], [0]]], np.uint8)
    assert unmultiplied(colours, alpha).tolist() == [[[100, 0, 50], [50, 100, 200], [0, 0, 0]]]
    half = unmultiplied(np.full((1, 1, 3), 0.25, np.float32), np.full((1, 1, 1), 0.5, np.float32))
    assert half.tolist() == [[[0.5, 0.5, 0.5]]]


def test_a_few_rows_at_a_time() -> None:
    """The same as all at once, however the rows fall."""
    pixels = np.arange(7 * 2**19, dtype=np.uint32).reshape(7, -1, 1)
    seen: list[int] = []

    def halves(rows: Pixels) -> Pixels:
        seen.append(len(rows))
        return (rows // 2).astype(np.uint16)

    assert np.array_equal(banded(halves, pixels), (pixels // 2).astype(np.uint16))
    assert seen == [2, 2, 2, 1]


def test_ycbcr_by_its_tags() -> None:
    """Full range by default; video range where the file says so."""
    assert rgb_of_ycbcr(np.array([[[255, 128, 128], [76, 85, 255]]], np.uint8)).tolist() == [
        [[255, 255, 255], [254, 0, 0]]
    ]
    video = (16.0, 235.0, 128.0, 240.0, 128.0, 240.0)
    shown = rgb_of_ycbcr(np.array([[[16, 128, 128], [235, 128, 128]]], np.uint8), reference=video)
    assert shown.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_shared_chroma() -> None:
    """Columns and rows that do not fill a unit are cut off; what ends early is reported."""
    data = bytes(range(24))
    pixels = ycbcr_of_units(data, 3, 3, (2, 2))
    assert pixels[:, :, 0].tolist() == [[0, 1, 6], [2, 3, 8], [12, 13, 18]]
    assert pixels[:, :, 1].tolist() == [[4, 4, 10], [4, 4, 10], [16, 16, 22]]
    with pytest.raises(ValueError, match="24 bytes are needed, 23"):
        ycbcr_of_units(data[:-1], 3, 3, (2, 2))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("icc", [False, True])
def test_white_of_lab_is_white(kind: type, icc: bool) -> None:
    """In both forms of Lab, of 8 and of 16 bits."""
    unit = 1 if kind is np.uint8 else 256
    light = 255 * unit if icc else np.iinfo(kind).max
    zero = 128 * unit if icc else 0
    white = np.array([[[light, zero, zero]]], kind)
    full = np.iinfo(kind).max
    assert np.abs(rgb_of_lab(white, icc=icc).astype(int) - full).max() <= full // 255
