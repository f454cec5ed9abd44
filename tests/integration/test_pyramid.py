"""A derived pyramid: the pixels of the source, in place, with its pixel size and its profile."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import pyvips
import tifffile

from cytowatch.config import from_mapping
from cytowatch.model import Outcome, UploadedFile
from cytowatch.pyramid.encode import writer
from cytowatch.record import entries, manifest
from cytowatch.record.errors import ConversionError
from cytowatch.record.status import Status
from cytowatch.stages.convert import convert
from cytowatch.stages.detect import detect
from tests import builders


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "out.1").mkdir()
    monkeypatch.chdir(tmp_path)
    # libvips remembers what it opened by name, and every test here uses the same ones.
    pyvips.cache_set_max(0)
    monkeypatch.setenv("TMPDIR", "out.1")
    return tmp_path


def converted(place: Path, config: dict[str, Any] | None = None) -> Outcome:
    [source] = (place / "source").iterdir()
    file = entries.FileEntry(
        role="source", path=f"source/{source.name}", size_bytes=source.stat().st_size,
        sha256=None, status="CONVERTING",
    )  # fmt: skip
    first = manifest.new(
        id="20261123-141502-k3f9-a", user="ann", name=source.name, drop_path="ann/a",
        files=[file], now=datetime.now(UTC), software={},
    )  # fmt: skip
    return convert(UploadedFile(manifest=first, out="out.1", config=from_mapping(config or {})))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def levels(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as tiff:
        return [page.asarray() for page in tiff.pages]


@pytest.mark.parametrize("make", [builders.planar_tiff, builders.png])
def test_jpeg_pixels_are_close_and_in_place_on_every_level(place: Path, make: Any) -> None:
    """PSNR above 38 dB, no shift and no channel swap; each level is half of the one before."""
    make(place / "source" / "a", width=1300, height=1000)
    outcome = converted(place)
    source = builders.picture(1300, 1000)
    found = levels(place / "out.1" / "a.tiff")
    assert [level.shape for level in found] == [
        (1000, 1300, 3), (500, 650, 3), (250, 325, 3), (125, 162, 3),
    ]  # fmt: skip
    assert psnr(found[0], source) > 38
    assert psnr(found[1], source.reshape(500, 2, 650, 2, 3).mean((1, 3))) > 38
    [image] = outcome.changes["images"]
    assert [level["width"] for level in image["levels"]] == [1300, 650, 325, 162]
    assert {level["tile_width"] for level in image["levels"]} == {256}
    assert outcome.changes["sha256"] == outcome.changes["files"][0]["sha256"]


def test_lossless_is_identical(place: Path) -> None:
    """On request for 8 bits, always for 16."""
    builders.png(place / "source" / "a")
    converted(place, {"convert": {"compression": "lossless"}})
    assert np.array_equal(levels(place / "out.1" / "a.tiff")[0], builders.picture(400, 300))


def test_sixteen_bits_are_kept(place: Path) -> None:
    """Without loss, and said so."""
    pixels = (np.arange(300 * 400, dtype=np.uint32).reshape(300, 400) * 7 % 65536).astype(np.uint16)
    tifffile.imwrite(place / "source" / "a", pixels, photometric="minisblack")
    outcome = converted(place)
    assert np.array_equal(levels(place / "out.1" / "a.tiff")[0], pixels)
    assert outcome.changes["images"][0]["bits_per_sample"] == 16
    assert any("16-bit" in one for one in outcome.changes["warnings"])


@pytest.mark.parametrize("unit", ["CENTIMETER", "INCH"])
def test_pixel_size_survives_in_either_unit(place: Path, unit: str) -> None:
    """0.25 um/px in the source is 0.25 um/px in the manifest and in OpenSlide."""
    per_unit = (10_000 if unit == "CENTIMETER" else 25_400) / 0.25
    builders.planar_tiff(
        place / "source" / "a", resolution=(per_unit, per_unit), resolutionunit=unit
    )
    [image] = converted(place).changes["images"]
    assert (image["mpp_x"], image["mpp_y"]) == (pytest.approx(0.25), pytest.approx(0.25))
    with openslide.OpenSlide(place / "out.1" / "a.tiff") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25, rel=1e-4)


def test_a_resolution_without_a_unit_is_no_pixel_size(place: Path) -> None:
    """libvips by itself would take 4000 for pixels per millimetre."""
    builders.planar_tiff(place / "source" / "a", resolution=(4000, 4000), resolutionunit="NONE")
    [image] = converted(place).changes["images"]
    assert image["mpp_x"] is None
    with openslide.OpenSlide(place / "out.1" / "a.tiff") as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_the_profile_is_kept(place: Path) -> None:
    """Byte for byte, on level 0."""
    image = pyvips.Image.new_from_array(builders.picture(300, 200)).copy(interpretation="srgb")
    image.icc_transform("p3", input_profile="srgb").jpegsave(str(place / "source" / "a"))
    profile = pyvips.Image.new_from_file(str(place / "source" / "a")).get("icc-profile-data")
    assert converted(place).changes["images"][0]["icc_profile"]
    written = pyvips.Image.new_from_file(str(place / "out.1" / "a.tiff"))
    assert written.get("icc-profile-data") == profile


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_upright(place: Path, orientation: int) -> None:
    """As Pillow turns it, for all eight orientations; axes and pixel size go along."""
    from PIL import Image, ImageOps

    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(builders.picture(320, 200)).save(
        place / "source" / "a", "JPEG", quality=95, exif=exif
    )
    with Image.open(place / "source" / "a") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    converted(place)
    found = levels(place / "out.1" / "a.tiff")[0]
    assert found.shape == upright.shape
    assert psnr(found, upright) > 38


def test_a_large_one_is_a_bigtiff(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the size on that a classic TIFF might not hold."""
    monkeypatch.setattr(writer, "_BIG_BYTES", 100_000)
    builders.png(place / "source" / "a")
    converted(place)
    assert (place / "out.1" / "a.tiff").read_bytes()[:4] in (b"II+\0", b"MM\0+")


def test_too_many_pixels_are_refused_from_the_header(place: Path) -> None:
    """With both numbers in the detail, and nothing written."""
    builders.png(place / "source" / "a")
    with pytest.raises(ConversionError) as raised:
        converted(place, {"limits": {"max_pixels": 100_000}})
    assert raised.value.reason == "too_many_pixels"
    assert "120,000" in raised.value.detail
    assert "100,000" in raised.value.detail
    assert [one for one in (place / "out.1").rglob("*") if one.is_file()] == []


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (257, 256)])
def test_odd_shapes_become_pyramids_that_openslide_opens(
    place: Path, width: int, height: int
) -> None:
    """From one pixel on."""
    builders.png(place / "source" / "a", width=width, height=height)
    converted(place)
    with openslide.OpenSlide(place / "out.1" / "a.tiff") as slide:
        assert slide.dimensions == (width, height)
        slide.read_region((0, 0), slide.level_count - 1, (1, 1))


def test_small_ones_stay_as_they_are_on_request(place: Path) -> None:
    """``derive = "large"``: deployed natively when neither side is over 1024 px."""
    builders.png(place / "source" / "a")
    file = entries.FileEntry(
        role="source", path="source/a", size_bytes=os.stat("source/a").st_size, sha256=None,
        status="DETECTING_FORMAT",
    )  # fmt: skip
    first = manifest.new(
        id="20261123-141502-k3f9-a", user="ann", name="a", drop_path="ann/a", files=[file],
        now=datetime.now(UTC), software={},
    )  # fmt: skip
    for derive, status in (("always", Status.CONVERTING), ("large", Status.DEPLOYING)):
        config = from_mapping({"convert": {"derive": derive}})
        assert detect(UploadedFile(manifest=first, out="out.1", config=config)).status is status
    # A damaged one goes where words say so.
    data = bytearray((place / "source" / "a").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (place / "source" / "a").write_bytes(data)
    assert detect(UploadedFile(manifest=first, out="out.1", config=config)).status is (
        Status.CONVERTING
    )


def test_small_ones_that_would_be_shown_otherwise_are_derived(place: Path) -> None:
    """No matter what ``derive`` says: a first page that is not the image, samples that libvips misreads."""
    config = from_mapping({"convert": {"derive": "large"}})
    pixels = builders.picture(300, 200)
    plain = {"photometric": "rgb", "metadata": None}

    def status() -> Status:
        file = entries.FileEntry(
            role="source", path="source/a", size_bytes=os.stat("source/a").st_size, sha256=None,
            status="DETECTING_FORMAT",
        )  # fmt: skip
        first = manifest.new(
            id="20261123-141502-k3f9-a", user="ann", name="a", drop_path="ann/a", files=[file],
            now=datetime.now(UTC), software={},
        )  # fmt: skip
        return detect(UploadedFile(manifest=first, out="out.1", config=config)).status

    tifffile.imwrite("source/a", pixels, **plain)
    assert status() is Status.DEPLOYING
    more = np.concatenate([pixels, pixels[:, :, :1]], axis=2)
    tifffile.imwrite("source/a", more, extrasamples=[0], **plain)
    assert status() is Status.CONVERTING
    with tifffile.TiffWriter("source/a") as tiff:
        tiff.write(pixels[::4, ::4].copy(), subfiletype=1, **plain)
        tiff.write(np.tile(pixels, (10, 10, 1)), **plain)
    assert status() is Status.CONVERTING


def test_what_is_damaged_is_said_in_the_words_that_tell_something(place: Path) -> None:
    """libjpeg's own, and not which call of libvips failed."""
    builders.jpeg(place / "source" / "a", width=900, height=700)
    data = (place / "source" / "a").read_bytes()
    (place / "source" / "a").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with pytest.raises(ConversionError) as raised:
        converted(place)
    assert raised.value.reason == "damaged"
    assert "premature end" in raised.value.detail.lower()
    assert "unable to" not in raised.value.detail
