"""The pyramid that our own encoder writes: as libvips' in everything but the time that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest
import pyvips
import tifffile

from cytowatch.pyramid.encode import levels
from cytowatch.pyramid.encode import settings as settings_module
from tests import builders


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = ((one.astype(float) - other.astype(float)) ** 2).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def picture(width: int, height: int, samples: int = 3) -> np.ndarray:
    made = builders.picture(max(width, 16), max(height, 16))[:height, :width]
    return np.ascontiguousarray(made[:, :, :samples])


def encode(path: Path, pixels: np.ndarray, **changes: object) -> None:
    settings = settings_module.Settings(
        **{"tile": 256, "quality": 90, "ycbcr": False, "big": False, **changes}  # type: ignore[arg-type]
    )
    height, width, samples = pixels.shape

    def blocks() -> Iterator[np.ndarray]:
        for top in range(0, height, settings.tile):
            yield pixels[top : top + settings.tile]

    levels.encode(blocks(), width, height, samples, str(path), settings)


def by_libvips(path: Path, pixels: np.ndarray) -> None:
    pyvips.Image.new_from_array(pixels).copy(interpretation="srgb").tiffsave(
        str(path), tile=True, tile_width=256, tile_height=256, pyramid=True, compression="jpeg",
        Q=90, depth="onetile",
    )  # fmt: skip


SHAPES = [(1, 1), (1, 700), (700, 1), (2, 2), (255, 257), (256, 256), (257, 255), (513, 1025),
          (1023, 767), (3001, 1999)]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_levels_and_pixels_are_those_of_libvips(tmp_path: Path, width: int, height: int) -> None:
    """Sizes of all levels, and their pixels as near to the original; every reader opens them."""
    pixels = picture(width, height)
    encode(tmp_path / "own.tif", pixels)
    by_libvips(tmp_path / "vips.tif", pixels)
    with tifffile.TiffFile(tmp_path / "own.tif") as own, tifffile.TiffFile(tmp_path / "vips.tif") as ref:  # fmt: skip
        mine = [page.asarray() for page in own.pages]
        theirs = [page.asarray() for page in ref.pages]
    # Of a line libvips writes no further level; ours halves it as well.
    seen = len(theirs) if min(width, height) == 1 else len(mine)
    assert [one.shape for one in mine[:seen]] == [one.shape for one in theirs]
    assert psnr(mine[0], pixels) >= psnr(theirs[0], pixels) - 0.05
    # libvips fills what is beyond the image with black, which a few pixels' block feels.
    least = 1.5 if min(width, height) >= 64 else 8.0
    for one, other in zip(mine, theirs, strict=False):
        assert np.abs(one.astype(int) - other.astype(int)).mean() < least
    with openslide.OpenSlide(tmp_path / "own.tif") as slide:
        assert slide.level_dimensions == tuple(one.shape[1::-1] for one in mine)
        for level, size in enumerate(slide.level_dimensions):
            shown = np.asarray(slide.read_region((0, 0), level, size).convert("RGB"))
            assert np.abs(shown.astype(int) - mine[level].astype(int)).max() <= 2
    for number, one in enumerate(mine):
        page = pyvips.Image.tiffload(str(tmp_path / "own.tif"), page=number, fail_on="warning")
        assert np.abs(page.numpy().astype(int) - one.astype(int)).max() <= 2


@pytest.mark.parametrize(("changes", "least_db"), [
    ({"ycbcr": True}, 32.0), ({"ycbcr": True, "quality": 75}, 24.0), ({"quality": 97}, 38.0),
    ({"tile": 64}, 33.0), ({"big": True}, 33.0), ({"threads": 1}, 33.0), ({"threads": 7}, 33.0),
])  # fmt: skip
def test_every_setting_is_read_by_every_reader(
    tmp_path: Path, changes: dict[str, object], least_db: float
) -> None:
    """Colours as YCbCr with and without subsampling, other tiles, a BigTIFF, any number of threads."""
    pixels = picture(1000, 700)
    encode(tmp_path / "a.tif", pixels, **changes)
    assert psnr(tifffile.imread(tmp_path / "a.tif", key=0), pixels) > least_db
    read = pyvips.Image.new_from_file(str(tmp_path / "a.tif"), fail_on="warning").numpy()
    assert psnr(read[:, :, :3], pixels) > least_db
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    assert psnr(shown, pixels) > least_db
    big = (tmp_path / "a.tif").read_bytes()[2:4] == b"+\0"
    assert big == bool(changes.get("big"))


def test_it_is_the_same_file_each_time(tmp_path: Path) -> None:
    """The threads may do it in any order."""
    pixels = picture(2000, 1500)
    for number, threads in enumerate((1, 2, 5, 5)):
        encode(tmp_path / f"{number}.tif", pixels, threads=threads)
    first = (tmp_path / "0.tif").read_bytes()
    assert all((tmp_path / f"{number}.tif").read_bytes() == first for number in (1, 2, 3))


def test_grey_resolution_and_profile(tmp_path: Path) -> None:
    """One sample; pixels per centimetre, smaller in each level; the ICC profile in each."""
    profile = bytes(range(256)) * 3
    encode(tmp_path / "a.tif", picture(900, 600, 1), per_cm=(20_000.0, 40_000.0), icc_profile=profile)  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif") as found:
        assert [page.photometric.name for page in found.pages] == ["MINISBLACK"] * 3
        for number, page in enumerate(found.pages):
            x, y = (page.tags[code].value for code in (282, 283))
            assert x[0] / x[1] == pytest.approx(20_000 / 2**number, rel=1e-3)
            assert y[0] / y[1] == pytest.approx(40_000 / 2**number, rel=1e-3)
            assert page.tags[34675].value == profile
            assert page.tags[254].value == (1 if number else 0)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25)
    encode(tmp_path / "b.tif", picture(900, 600))
    with openslide.OpenSlide(tmp_path / "b.tif") as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_a_source_that_ends_too_soon_and_one_that_fails(tmp_path: Path) -> None:
    """No pyramid with a hole: the error comes through, and the threads end."""
    pixels = picture(600, 600)
    settings = settings_module.Settings(tile=256, quality=90, ycbcr=False, big=False)
    with pytest.raises(ValueError, match="512 of 600 rows"):
        levels.encode([pixels[:256], pixels[256:512]], 600, 600, 3, str(tmp_path / "a"), settings)

    def failing() -> Iterator[np.ndarray]:
        yield pixels[:256]
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        levels.encode(failing(), 600, 600, 3, str(tmp_path / "b"), settings)
