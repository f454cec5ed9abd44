"""Odd images are handled, and what was done is said; pixels against Pillow or the picture itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from tests.acceptance.conftest import Root, root
from tests.builders import others, picture

__all__ = ["root"]

PIXELS = picture(300, 200)
GREY = PIXELS[:, :, 1]
LONG = 100_000


@dataclass(frozen=True)
class Odd:
    """What is dropped, what its pyramid must show (8 or 16 bits), and a word of what is said."""

    make: Callable[[Path], object]
    shown: np.ndarray
    word: str | None = None
    far: float = 1.5
    mpp: float | None = None


def _tiff(pixels: np.ndarray, **options: object) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def _pillow(image: Image.Image, kind: str, **options: object) -> Callable[[Path], object]:
    return lambda path: image.save(path, kind, **options)


def _over_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[:, :, 3:].astype(float) / 255
    return (rgba[:, :, :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def _spread() -> np.ndarray:
    twelve = GREY.astype(np.uint32) * 4095 // 255
    return ((twelve * 65535 + 2047) // 4095).astype(np.uint16)


IMAGE = Image.fromarray(PIXELS)
RGBA = np.dstack([PIXELS, np.tile(np.linspace(0, 255, 300).astype(np.uint8), (200, 1))])
WIDE = PIXELS.astype(np.uint16) * 257
FLOAT = np.linspace(-1, 3, 60_000, dtype=np.float32).reshape(200, 300)
PALETTE = IMAGE.quantize(32)
BITS = (np.indices((200, 300)).sum(axis=0) % 2).astype(np.uint8)
FEW = (np.indices((200, 300)).sum(axis=0) % 16).astype(np.uint8)
LAB = ImageCms.profileToProfile(
    IMAGE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
)
CMYK = IMAGE.convert("CMYK")
ROW = np.tile(np.arange(LONG, dtype=np.uint32).astype(np.uint8), (1, 1))


def _four_bits(path: Path) -> None:
    packed = (FEW[:, ::2] << 4 | FEW[:, 1::2]).astype(np.uint8).tobytes()
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter([packed]), shape=(200, 300), dtype=np.uint8, bitspersample=4, compression="none",
            photometric="minisblack", rowsperstrip=200, metadata=None,
        )  # fmt: skip


ODD = {
    "rgb16.png": Odd(lambda p: pyvips.Image.new_from_array(WIDE).copy(interpretation="rgb16").pngsave(str(p), bitdepth=16), WIDE, "16-bit"),
    "grey16.tif": Odd(_tiff(WIDE[:, :, 1]), WIDE[:, :, 1], "16-bit", 0),
    "float.tif": Odd(_tiff(FLOAT), np.rint((FLOAT - FLOAT.min()) * 65535 / np.ptp(FLOAT)).astype(np.uint16), "scaled", 2),
    "1bit.png": Odd(_pillow(Image.fromarray(BITS * 255).convert("1"), "PNG"), BITS * 255, "1-bit"),
    "1bit.tif": Odd(_tiff(BITS.astype(bool), photometric="minisblack"), BITS * 255, "1-bit"),
    "4bit.tif": Odd(_four_bits, (FEW.astype(int) * 17).astype(np.uint8), "4-bit", 2),
    "palette.png": Odd(_pillow(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB")), "palette", 3),
    "palette.tif": Odd(_pillow(PALETTE, "TIFF"), np.asarray(PALETTE.convert("RGB")), None, 3),
    "alpha.png": Odd(_pillow(Image.fromarray(RGBA), "PNG"), _over_white(RGBA), "white", 2),
    "alpha.tif": Odd(_tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]), _over_white(RGBA), "white", 2),
    "cmyk.jpg": Odd(_pillow(CMYK, "JPEG", quality=95), PIXELS, "CMYK", 30),
    "cmyk.tif": Odd(_pillow(CMYK, "TIFF"), PIXELS, "CMYK", 30),
    "cmyk zstd.tif": Odd(_tiff(np.asarray(CMYK), photometric="separated", compression="zstd"), PIXELS, "CMYK", 30),
    "lab.tif": Odd(_pillow(LAB, "TIFF"), PIXELS, "lab", 4),
    "big endian.tif": Odd(_tiff(PIXELS, byteorder=">", photometric="rgb"), PIXELS),
    "bigtiff.tif": Odd(_tiff(PIXELS, bigtiff=True, photometric="rgb"), PIXELS),
    "planar.tif": Odd(_tiff(np.moveaxis(PIXELS, -1, 0), planarconfig="separate", photometric="rgb"), PIXELS),
    "planar tiles.tif": Odd(_tiff(np.moveaxis(PIXELS, -1, 0), planarconfig="separate", photometric="rgb", tile=(64, 64)), PIXELS, "tifffile"),
    "zstd.tif": Odd(_tiff(PIXELS, compression="zstd", photometric="rgb"), PIXELS, "tifffile"),
    "white is zero.tif": Odd(_tiff(GREY, photometric="miniswhite"), 255 - GREY),
    "pages.tif": Odd(_tiff(np.stack([PIXELS, PIXELS[::-1]]), photometric="rgb"), PIXELS, "2 pages"),
    "interlaced.png": Odd(lambda p: pyvips.Image.new_from_array(PIXELS).pngsave(str(p), interlace=True), PIXELS),
    "progressive.jpg": Odd(_pillow(IMAGE, "JPEG", quality=95, progressive=True, subsampling=0), PIXELS, None, 2),
    "inch.tif": Odd(_tiff(PIXELS, photometric="rgb", resolution=(50_800, 50_800), resolutionunit="INCH"), PIXELS, mpp=0.5),
    "cm.tif": Odd(_tiff(PIXELS, photometric="rgb", resolution=(40_000, 40_000), resolutionunit="CENTIMETER"), PIXELS, mpp=0.25),
    "no unit.tif": Odd(_tiff(PIXELS, photometric="rgb", resolution=(4000, 4000), resolutionunit="NONE"), PIXELS),
    "screen.tif": Odd(_tiff(PIXELS, photometric="rgb", resolution=(72, 72), resolutionunit="INCH"), PIXELS),
    "one.png": Odd(_pillow(Image.fromarray(PIXELS[:1, :1]), "PNG"), PIXELS[:1, :1], None, 3),
    "one.bmp": Odd(_pillow(Image.fromarray(PIXELS[:1, :1]), "BMP"), PIXELS[:1, :1], None, 3),
    "one.jp2": Odd(lambda p: others.jp2(p, width=1, height=1), picture(1, 1), None, 3),
    "one.pgm": Odd(lambda p: others.pgm(p, width=1, height=1), picture(1, 1)[:, :, 1], None, 3),
    "long.tif": Odd(_tiff(ROW), ROW, None, 3),
    "tall.tif": Odd(_tiff(ROW.T.copy()), ROW.T, None, 3),
    "tall.pgm": Odd(lambda p: p.write_bytes(f"P5 1 {LONG} 255\n".encode() + ROW.tobytes()), ROW.T, None, 3),
    "tall.bmp": Odd(_pillow(Image.fromarray(ROW.T.copy()), "BMP"), ROW.T, None, 3),
    "12 bit.pgm": Odd(lambda p: others.pgm(p, width=300, height=200, most=4095), _spread(), "4095", 0),
}  # fmt: skip


def _shown(path: Path, bits: int) -> np.ndarray:
    if bits == 8:
        with openslide.OpenSlide(path) as slide:
            assert slide.level_count >= 1
            return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    return np.asarray(tifffile.imread(path, key=0))


def test_each_is_handled_and_said(root: Root, tmp_path: Path) -> None:
    """One daemon; every pyramid opens, shows the pixels in place, and no pixel size is made up."""
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    for name, odd in ODD.items():
        odd.make(inbox / name)
    code = root.run_until_idle()
    found = root.by_name()
    wrong = {n: d["error"] for n, d in found.items() if d["error"]}
    assert (code, wrong) == (0, {})
    assert found.keys() == ODD.keys()
    for name, odd in ODD.items():
        document = found[name]
        [image] = document["images"]
        said = " / ".join(document["warnings"])
        assert odd.word is None or odd.word in said, (name, said)
        assert image["mpp_x"] == (pytest.approx(odd.mpp, rel=1e-3) if odd.mpp else None), name
        path = document["_path"] / image["file"]
        with tifffile.TiffFile(path) as tiff:
            unit = tiff.pages[0].tags[296].value
            assert (unit == 1) == (odd.mpp is None), name
        shown = _shown(path, image["bits_per_sample"])
        made = odd.shown
        if shown.ndim == 3 and made.ndim == 2:
            made = np.repeat(made[:, :, np.newaxis], 3, axis=2)
        assert shown.shape == made.shape, name
        far = np.abs(shown.astype(float) - made.astype(float)).mean()
        assert far <= odd.far, (name, far)
    root.check_hashes()


def test_an_icc_profile_survives(root: Root, tmp_path: Path) -> None:
    """In the pyramid, byte for byte."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    for name, kind in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.tif", "TIFF")):
        IMAGE.save(inbox / name, kind, icc_profile=profile)
    assert root.run_until_idle() == 0
    for document in root.manifests().values():
        [image] = document["images"]
        assert image["icc_profile"], document["name"]
        with tifffile.TiffFile(document["_path"] / image["file"]) as tiff:
            assert tiff.pages[0].tags[34675].value == profile
