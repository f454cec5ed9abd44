"""Native slides: what is damaged, and what OpenSlide would show wrongly."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytowatch.formats import shown
from cytowatch.formats.structure.tiff import Tiff
from tests.builders import picture
from tests.lab.pictures import Pictures

PIXELS = picture(512, 512)
ABOUT = "Aperio Image Library v1\r\n512x512 (128x128) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"


def _svs(path: Path, *, icc: bytes | None = None) -> None:
    """Two levels, and as pages 1, 3 and 4 a thumbnail, a label and a macro."""
    tiles: dict[str, Any] = {
        "tile": (128, 128), "compression": "jpeg", "photometric": "rgb", "metadata": None,
        "description": ABOUT,
    }  # fmt: skip
    strips: dict[str, Any] = {"photometric": "rgb", "metadata": None, "rowsperstrip": 16}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, **tiles, iccprofile=icc)
        tiff.write(_halved(4), **strips, compression="jpeg", description=ABOUT)
        tiff.write(_halved(2), **tiles)
        label = {"compression": "lzw", "subfiletype": 1, "description": "Aperio\r\nlabel 90x100"}
        tiff.write(picture(90, 100), **strips, **label)
        macro = {"compression": "jpeg", "subfiletype": 9, "description": "Aperio\r\nmacro 200x100"}
        tiff.write(picture(200, 100), **strips, **macro)


def _halved(step: int) -> np.ndarray:
    return np.ascontiguousarray(PIXELS[::step, ::step])


def _damage(path: Path, page: int, segment: int) -> None:
    with tifffile.TiffFile(path) as tiff:
        one = tiff.pages[page].aspage()
        at, count = one.dataoffsets[segment], one.databytecounts[segment]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\1" * count)


def test_what_is_damaged_beside_the_slide_does_not_cost_it(
    pictures: Pictures, tmp_path: Path
) -> None:
    """A label, macro or thumbnail is left out and named; the others are there, and so is a profile."""
    pages = {"thumbnail": 1, "label": 3, "macro": 4}
    for name, page in pages.items():
        _svs(tmp_path / f"{name}.svs")
        _damage(tmp_path / f"{name}.svs", page, 2)
        pictures.drop(tmp_path / f"{name}.svs")
    _svs(tmp_path / "profile.svs", icc=b"no profile that any library reads")
    pictures.drop(tmp_path / "profile.svs")
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    for name in pages:
        document = found[f"{name}.svs"]
        assert document["warnings"] == [f"its {name} is damaged, and was left out"]
        assert document["images"][0]["associated"] == sorted(pages.keys() - {name})
        # A thumbnail is always made: of the slide itself if need be.
        roles = [row["role"] for row in document["files"] if row["role"] != "source"]
        assert sorted(roles) == sorted({*pages} - {name} | {"thumbnail"})
    assert found["profile.svs"]["images"][0]["icc_profile"]


def test_a_slide_that_is_damaged_is_an_error_in_plain_words(
    pictures: Pictures, tmp_path: Path
) -> None:
    """In a corner, or where only its thumbnail shows it: each tile's first bytes are looked at."""
    for name, tile in (("corner.tif", 0), ("inside.tif", 10)):
        with tifffile.TiffWriter(tmp_path / name) as tiff:
            for level in (1, 2):
                tiff.write(
                    _halved(level), tile=(64, 64), compression="jpeg", photometric="rgb",
                    metadata=None, subfiletype=level - 1,
                )  # fmt: skip
        _damage(tmp_path / name, 0, tile)
        pictures.drop(tmp_path / name)
    assert pictures.treated() == 1
    for document in pictures.by_name().values():
        assert document["status"] == "ERROR_FORMAT"
        assert document["error"]["reason"] == "damaged"
        assert "where its JPEG must begin, are something else" in document["error"]["detail"]
    pictures.check_hashes()


def _pyramid(path: Path, pixels: np.ndarray, **options: Any) -> None:
    with tifffile.TiffWriter(path) as tiff:
        for level in (1, 2):
            planes = len(pixels) < 10
            part = pixels[:, ::level, ::level] if planes else pixels[::level, ::level]
            part = np.ascontiguousarray(part)
            kind = {"subfiletype": level - 1, "metadata": None, **options}
            tiff.write(part, tile=(128, 128), **kind)


GREY = PIXELS[:, :, 1].astype(np.uint16) * 257
RGBA = np.dstack([PIXELS, PIXELS[:, :, 0]])
RGB: dict[str, Any] = {"photometric": "rgb"}
NONE = "samples beside its colours that are not transparency"
ALPHA = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (512, 1))
VEILED = np.dstack([PIXELS[:, :, 1], ALPHA])
UNASSOCIATED: dict[str, Any] = {"photometric": "minisblack", "extrasamples": ["unassalpha"]}
YCBCR = np.asarray(Image.fromarray(PIXELS).convert("YCbCr"))


def _over_white(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha / 255
    return np.rint(grey * share + 255 * (1 - share)).astype(np.uint8)


def _without_subsampling(path: Path) -> None:
    """Take tag 530 of both levels away, as some writers leave it out; its number becomes one that nobody reads."""
    with tifffile.TiffFile(path) as tiff:
        places = [page.tags[530].offset for page in tiff.pages]
    data = bytearray(path.read_bytes())
    for at in places:
        data[at : at + 2] = struct.pack("<H", 531)
    path.write_bytes(data)


def test_what_openslide_would_show_otherwise_is_derived(pictures: Pictures, tmp_path: Path) -> None:
    """Of 16 bits it would show eight, and of those that are signed others; it turns nothing, and more."""
    made: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]] = {
        "wide.tif": (GREY, GREY, {}),
        "signed.tif": ((GREY.astype(int) - 32768).astype(np.int16), GREY, {}),
        "turned.tif": (PIXELS, np.rot90(PIXELS, -1), {**RGB, "extratags": [(274, 3, 1, 6, True)]}),
        "veiled.tif": (VEILED, _over_white(PIXELS[:, :, 1], ALPHA), UNASSOCIATED),
        "veiled planes.tif": (
            np.ascontiguousarray(VEILED.transpose(2, 0, 1)), _over_white(PIXELS[:, :, 1], ALPHA),
            {**UNASSOCIATED, "planarconfig": "separate"},
        ),
        "ycbcr.tif": (YCBCR, PIXELS, {"photometric": "ycbcr", "subsampling": (1, 1)}),
    }  # fmt: skip
    for name, (pixels, _, options) in made.items():
        _pyramid(tmp_path / name, pixels, **options)
        if name == "ycbcr.tif":
            _without_subsampling(tmp_path / name)
        pictures.drop(tmp_path / name)
    assert pictures.treated() == 0, pictures.said()
    for name, document in pictures.by_name().items():
        assert not document["format"]["native"]
        assert "so a pyramid is derived: it has " in document["warnings"][0]
        pixels = tifffile.imread(document["_path"] / document["images"][0]["file"], key=0)
        assert pixels.dtype == made[name][1].dtype
        assert np.abs(pixels.astype(int) - made[name][1].astype(int)).mean() < 1.5, name


def test_a_vendors_slide_of_16_bits_is_refused(pictures: Pictures, tmp_path: Path) -> None:
    """Nothing else reads its vendor's levels, and OpenSlide shows only a part of each sample."""
    about = {"description": ABOUT, **RGB}
    _pyramid(tmp_path / "wide.svs", PIXELS.astype(np.uint16) * 257, **about)
    _pyramid(tmp_path / "turned.svs", PIXELS, **about, extratags=[(274, 3, 1, 6, True)])
    pictures.drop(tmp_path / "wide.svs")
    pictures.drop(tmp_path / "turned.svs")
    assert pictures.treated() == 1
    found = pictures.by_name()
    error = found["wide.svs"]["error"]
    assert (error["reason"], "samples of 16 bits" in error["detail"]) == (
        "unsupported_format",
        True,
    )
    assert found["turned.svs"]["warnings"] == [
        "it has an orientation tag of 6: OpenSlide pays no heed to that"
    ]


@pytest.mark.parametrize(
    ("pixels", "options", "misread", "unheeded"),
    [
        (PIXELS, RGB, None, None),
        (PIXELS[:, :, 0], {}, None, None),
        (RGBA, {**RGB, "extrasamples": ["unassalpha"]}, None, None),
        (RGBA, {**RGB, "extrasamples": ["unspecified"]}, None, NONE),
        (RGBA, {"photometric": "separated"}, None, "colours of inks"),
        (VEILED, UNASSOCIATED, None, "transparency beside grey or a palette"),
        (PIXELS, {"photometric": "icclab"}, None, "Lab colours"),
        (GREY.astype(np.float32), {}, "floating samples", None),
        (GREY > 300, {}, "samples of 1 bit", None),
    ],
)
def test_samples_that_openslide_shows_otherwise(
    pixels: np.ndarray, options: dict[str, Any], misread: str | None, unheeded: str | None,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Recognised only from the tags."""
    _pyramid(tmp_path / "a.tif", pixels, **options)
    with (tmp_path / "a.tif").open("rb") as file:
        tiff = Tiff(file.fileno(), (tmp_path / "a.tif").stat().st_size)
        assert (shown.misread(tiff), shown.unheeded(tiff)) == (misread, unheeded)


def _ascending(path: Path) -> None:
    """A third tiled page that is larger than the second, as some scanners add one."""
    tiles: dict[str, Any] = {
        "tile": (128, 128), "compression": "jpeg", "photometric": "rgb", "metadata": None,
        "compressionargs": {"level": 95},
    }  # fmt: skip
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, description=ABOUT, **tiles)
        tiff.write(_halved(4), description=ABOUT, rowsperstrip=16, photometric="rgb", metadata=None)
        tiff.write(_halved(4), description=ABOUT, **tiles)
        tiff.write(picture(400, 150), description=ABOUT, **tiles)
        label = {"compression": "lzw", "subfiletype": 1, "description": "Aperio\r\nlabel 90x100"}
        tiff.write(picture(90, 100), photometric="rgb", metadata=None, rowsperstrip=16, **label)


def test_an_svs_whose_levels_do_not_descend(pictures: Pictures) -> None:
    """OpenSlide refuses it: a pyramid is derived of its first page, with size, power and label."""
    inbox = pictures.inbox
    _ascending(inbox / "a.svs")
    assert pictures.treated() == 0, pictures.said()
    [document] = pictures.manifests().values()
    assert document["status"] == "CONVERTED"
    [image] = document["images"]
    assert (image["width"], image["mpp_x"], image["objective_power"]) == (512, 0.5, 20)
    assert image["associated"] == ["label"]
    assert any("its level 2, 400 x 150, is not smaller" in line for line in document["warnings"])
    shown = tifffile.imread(document["_path"] / image["file"], key=0)
    assert np.abs(shown.astype(int) - PIXELS.astype(int)).mean() < 2
    pictures.check_hashes()


@pytest.mark.parametrize("compression", ["webp", "jpegxl", "jpegxr"])
def test_an_svs_that_was_packed_again(pictures: Pictures, compression: str) -> None:
    """OpenSlide reads no such tiles, and tifffile does: a pyramid is derived of its first page."""
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "description": ABOUT}
    with tifffile.TiffWriter(pictures.inbox / "a.svs") as tiff:
        for step in (1, 4):
            tiff.write(_halved(step), tile=(128, 128), compression=compression, **options)
    assert pictures.treated() == 0, pictures.said()
    [document] = pictures.manifests().values()
    [image] = document["images"]
    assert (document["status"], image["mpp_x"]) == ("CONVERTED", 0.5)
    assert any("Unsupported TIFF compression" in line for line in document["warnings"])
    shown = tifffile.imread(document["_path"] / image["file"], key=0)
    assert np.abs(shown.astype(int) - PIXELS.astype(int)).mean() < 2


def test_a_slide_of_a_kind_that_openslide_does_not_know(pictures: Pictures) -> None:
    """Its bytes are all there, so that it is not to be copied again."""
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "tile": (128, 128)}
    with tifffile.TiffWriter(pictures.inbox / "a.tif") as tiff:
        for step in (1, 2):
            made = {"datetime": None, "extratags": [(271, 2, 0, "Huron", True)], "description": "x"}
            tiff.write(
                _halved(step), compression="jpegxl", subfiletype=int(step > 1), **made, **options
            )
    assert pictures.treated() == 1
    [document] = pictures.manifests().values()
    assert document["error"]["reason"] == "unsupported_format", document["error"]


def test_an_svs_that_is_refused_for_another_reason(pictures: Pictures) -> None:
    """It stays an error in OpenSlide's words: its first page is not all that is wrong."""
    inbox = pictures.inbox
    with tifffile.TiffWriter(inbox / "a.svs") as tiff:
        tiff.write(PIXELS, description=ABOUT, photometric="rgb", metadata=None, rowsperstrip=64)
    assert pictures.treated() == 1
    [document] = pictures.manifests().values()
    assert document["error"]["reason"] == "unreadable"
