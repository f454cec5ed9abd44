"""Rows that are had without libvips are those of the reader, however its blocks lie."""

from __future__ import annotations

import numpy as np
import pytest
import pyvips

from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.regions import Scene
from cytowatch.pyramid.virtual import VirtualTiff, as_image, is_plain
from cytowatch.record.errors import ConversionError


class Region:
    def __init__(self, pixels: Pixels, block_rows: int, fails_at: int | None = None) -> None:
        self.pixels = pixels
        self.height, self.width, self.samples = pixels.shape
        self.dtype = pixels.dtype
        self.block_rows = block_rows
        self.fails_at = fails_at

    def rows(self, top: int, bottom: int) -> Pixels:
        if self.fails_at is not None and bottom > self.fails_at:
            raise ConversionError("damaged", "here it ends")
        return self.pixels[top:bottom]


def picture(height: int, width: int, samples: int) -> Pixels:
    dice = np.random.default_rng(height)
    return dice.integers(0, 255, (height, width, samples), np.uint8)


@pytest.mark.parametrize("block_rows", [1, 100, 512, 1024])
@pytest.mark.parametrize(
    ("height", "width", "samples"), [(1300, 4000, 3), (3000, 11, 1), (1, 5, 3)]
)
def test_all_rows_come_once_in_rows_of_tiles(
    height: int, width: int, samples: int, block_rows: int
) -> None:
    """However high the blocks of the reader are."""
    pixels = picture(height, width, samples)
    virtual = VirtualTiff(Region(pixels, block_rows))
    bands = list(virtual.bands(256))
    virtual.close()
    assert np.array_equal(np.concatenate(bands), pixels)
    assert all(len(band) <= 256 for band in bands)
    if 256 % block_rows == 0 or block_rows % 256 == 0:
        assert all(len(band) == 256 for band in bands[:-1])


def test_libvips_and_the_rows_themselves_say_the_same() -> None:
    """The image that libvips opens has the pixels of the region."""
    pixels = picture(900, 700, 3)
    image, virtual = as_image(Scene(region=Region(pixels, 100)))
    assert np.array_equal(image.numpy(), pixels)
    virtual.close()


def test_what_the_reader_raised_is_kept() -> None:
    """libvips has words of its own; the error of the reader is the one that counts."""
    virtual = VirtualTiff(Region(picture(5000, 4000, 3), 512, fails_at=3000))
    with pytest.raises(pyvips.Error, match="here it ends"):
        list(virtual.bands(256))
    virtual.close()
    assert isinstance(virtual.error, ConversionError)


def test_only_what_a_pyramid_holds_as_it_is_goes_past_libvips() -> None:
    """Grey and RGB of 8 bits, and nothing else."""
    plain = picture(4, 4, 3)
    assert is_plain(Scene(region=Region(plain, 1)))
    assert is_plain(Scene(region=Region(plain[:, :, :1], 1)))
    assert not is_plain(Scene(region=Region(plain.astype(np.uint16), 1)))
    assert not is_plain(Scene(region=Region(picture(4, 4, 4), 1)))
    assert not is_plain(Scene(region=Region(picture(4, 4, 4), 1), cmyk=True))
