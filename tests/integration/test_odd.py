"""Odd images are handled, and what was done is said; pixels against Pillow or the picture itself."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from tests.builders import bare_tiff, others, picture
from tests.lab.pictures import Pictures

PIXELS = picture(300, 200)
GREY = PIXELS[:, :, 1]
LONG = 100_000
#: Compression, which libvips does not read.
ZSTD = 50000


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


def _unsaid_ycbcr(chroma: tuple[int, int], compression: str | None) -> Callable[[Path], object]:
    """YCbCr that does not say whether its chroma is stored for each pixel: `chroma` pixels share it."""

    def make(path: Path) -> None:
        whole = np.asarray(IMAGE.convert("YCbCr"))
        across, down = chroma
        light = whole[:, :, 0].reshape(200 // down, down, 300 // across, across).swapaxes(1, 2)
        shared = whole[::down, ::across, 1:]
        units = np.concatenate([light.reshape(*shared.shape[:2], down * across), shared], axis=2)
        data, code = units.tobytes(), 1
        if compression == "lzw":
            data, code = imagecodecs.lzw_encode(data), 5
        bare_tiff(
            path, data, width=300, height=200,
            tag_258=(8, 8, 8), tag_259=(code,), tag_262=(6,), tag_277=(3,), tag_284=(1,),
        )  # fmt: skip

    return make


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


def _packed(
    pixels: np.ndarray, bits: int, photometric: int, compression: int = 1
) -> Callable[[Path], object]:
    """The highest `bits` of 8 or 16 bit samples, without gaps, in one strip."""
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    few = pixels.reshape(200, -1).astype(np.uint32) >> (8 * pixels.dtype.itemsize - bits)
    ones = (few[:, :, np.newaxis] >> np.arange(bits)[::-1]) & 1
    data = np.packbits(ones.astype(np.uint8).reshape(200, -1), axis=1).tobytes()
    return lambda path: bare_tiff(
        path, imagecodecs.zstd_encode(data) if compression == ZSTD else data, width=300, height=200,
        tag_258=(bits,) * samples, tag_259=(compression,), tag_262=(photometric,), tag_277=(samples,),
    )  # fmt: skip


def _high(pixels: np.ndarray, bits: int) -> np.ndarray:
    """The highest `bits` of samples, spread again."""
    full = np.iinfo(pixels.dtype).max
    few = pixels.astype(np.uint64) >> (8 * pixels.dtype.itemsize - bits)
    return np.rint(few * (full / ((1 << bits) - 1))).astype(pixels.dtype)


def _subsampled(path: Path) -> None:
    light, chroma = YCBCR[:, :, 0], YCBCR[:, :, 1:].astype(int)
    fours = light.reshape(100, 2, 150, 2).swapaxes(1, 2).reshape(100, 150, 4)
    means = chroma.reshape(100, 2, 150, 2, 2).mean(axis=(1, 3)).astype(np.uint8)
    data = imagecodecs.zstd_encode(np.concatenate([fours, means], axis=2).tobytes())
    bare_tiff(
        path, data, width=300, height=200, tag_258=(8, 8, 8), tag_259=(ZSTD,), tag_262=(6,),
        tag_277=(3,), tag_530=(2, 2),
    )  # fmt: skip


def _bmp_two_bits(path: Path) -> None:
    few = GREY >> 6
    data = few[:, ::4] << 6 | few[:, 1::4] << 4 | few[:, 2::4] << 2 | few[:, 3::4]
    rows = np.pad(data, ((0, 0), (0, 1)))[::-1].tobytes()
    palette = b"".join(bytes((n * 85, n * 85, n * 85, 0)) for n in range(4))
    head = struct.pack("<IiiHHIIiiII", 40, 300, 200, 1, 2, 0, 0, 0, 0, 4, 0) + palette
    path.write_bytes(b"BM" + struct.pack("<IHHI", 70 + len(rows), 0, 0, 70) + head + rows)


def _bmp_unseen(path: Path) -> None:
    rows = np.dstack([PIXELS[::-1, :, ::-1], np.zeros_like(GREY)]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 108, 300, 200, 1, 32, 3, 0, 0, 0, 0, 0)
    head += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 122 + len(rows), 0, 0, 122) + head + rows)


def _icc_lab(bits: int) -> np.ndarray:
    """The picture in ICC's Lab: a and b without a sign, of 16 bits in 256ths."""
    plain = np.asarray(LAB) ^ np.array([0, 128, 128], np.uint8)
    return plain if bits == 8 else plain.astype(np.uint16) << 8


def _lab16() -> np.ndarray:
    wide = np.asarray(LAB).astype(np.uint16)
    return np.dstack([wide[:, :, 0] * 257, wide[:, :, 1] << 8, wide[:, :, 2] << 8])


def _premultiplied() -> np.ndarray:
    colours = np.rint(RGBA[:, :, :3] * (RGBA[:, :, 3:] / 255)).astype(np.uint8)
    return np.dstack([colours, RGBA[:, :, 3]])


YCBCR = np.asarray(IMAGE.convert("YCbCr"))
LINEAR = np.where(PIXELS > 10, ((PIXELS / 255 + 0.055) / 1.055) ** 2.4, PIXELS / 255 / 12.92)
SCALED = np.rint(PIXELS.astype(float) * (65535 / 255)).astype(np.uint16)
INFINITE = np.where(GREY > 200, np.inf, np.where(GREY < 20, np.nan, GREY)).astype(np.float32)
FINITE = np.rint(np.clip((GREY.astype(float) - 20) / 180, 0, 1) * 65535).astype(np.uint16)
HUGE = 10**18 + GREY.astype(np.uint64)
EIGHTS = np.tile(np.arange(256, dtype=np.uint16), (3, 1))

ODD = {
    "ycbcr whole, unsaid.tif": Odd(_unsaid_ycbcr((1, 1), None), PIXELS, None, 3),
    "ycbcr whole, unsaid, lzw.tif": Odd(_unsaid_ycbcr((1, 1), "lzw"), PIXELS, None, 3),
    "ycbcr halved, unsaid.tif": Odd(_unsaid_ycbcr((2, 2), None), PIXELS, None, 3),
    "ycbcr halved, unsaid, lzw.tif": Odd(_unsaid_ycbcr((2, 2), "lzw"), PIXELS, None, 3),
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
    "pages zstd.tif": Odd(_tiff(np.stack([PIXELS, PIXELS[::-1]]), photometric="rgb", compression="zstd"), PIXELS, "2 pages"),
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
    "ycbcr.tif": Odd(_tiff(YCBCR, photometric="ycbcr"), PIXELS, "YCbCr", 2),
    "ycbcr deflate.tif": Odd(_tiff(YCBCR, photometric="ycbcr", compression="deflate", predictor=True), PIXELS, "YCbCr", 2),
    "ycbcr zstd.tif": Odd(_tiff(YCBCR, photometric="ycbcr", compression="zstd", tile=(64, 64)), PIXELS, "YCbCr", 2),
    "ycbcr 2x2 zstd.tif": Odd(_subsampled, PIXELS, "YCbCr", 2),
    "icc lab.tif": Odd(_tiff(_icc_lab(8), photometric="icclab"), PIXELS, "lab", 4),
    "icc lab 16 zstd.tif": Odd(_tiff(_icc_lab(16), photometric="icclab", compression="zstd"), SCALED, "lab", 4 * 257),
    "lab16.tif": Odd(_tiff(_lab16(), photometric="cielab"), SCALED, "lab", 4 * 257),
    "lab16 zstd.tif": Odd(_tiff(_lab16(), photometric="cielab", compression="zstd"), SCALED, "lab", 4 * 257),
    "infrared.tif": Odd(_tiff(RGBA, photometric="rgb", extrasamples=["unspecified"]), PIXELS, "4 samples per pixel: the first 3 are"),
    "infrared zstd.tif": Odd(_tiff(RGBA, photometric="rgb", extrasamples=["unspecified"], compression="zstd"), PIXELS, "4 samples"),
    "five.tif": Odd(_tiff(np.dstack([RGBA, GREY]), photometric="rgb", planarconfig="contig"), PIXELS, "5 samples"),
    "two.tif": Odd(_tiff(RGBA[:, :, [1, 3]], photometric="minisblack", planarconfig="contig"), GREY, "2 samples per pixel: the first is"),
    "four grey.tif": Odd(_tiff(RGBA, photometric="minisblack", planarconfig="contig"), PIXELS[:, :, 0], "4 samples"),
    "two.ome.tif": Odd(_tiff(RGBA[:, :, [1, 3]], photometric="minisblack", planarconfig="contig", ome=True, metadata={"axes": "YXS"}), GREY, "2 samples"),
    "premultiplied.tif": Odd(_tiff(_premultiplied(), photometric="rgb", extrasamples=["assocalpha"]), _over_white(RGBA), "white", 2),
    "premultiplied zstd.tif": Odd(_tiff(_premultiplied(), photometric="rgb", extrasamples=["assocalpha"], compression="zstd"), _over_white(RGBA), "white", 2),
    "alpha 32.tif": Odd(_tiff(RGBA.astype(np.uint32) * 0x1010101, photometric="rgb", extrasamples=["unassalpha"]), _over_white(RGBA).astype(np.uint16) * 257, "white", 200),
    "alpha float.tif": Odd(_tiff(np.dstack([LINEAR, RGBA[:, :, 3] / 255]).astype(np.float32), photometric="rgb", extrasamples=["unassalpha"]), _over_white(RGBA).astype(np.uint16) * 257, "white", 200),
    "cmyk alpha zstd.tif": Odd(_tiff(np.dstack([np.asarray(CMYK), np.full_like(GREY, 255)]), photometric="separated", planarconfig="contig", extrasamples=["unassalpha"], compression="zstd"), PIXELS, "CMYK", 30),
    "4 bit zstd.tif": Odd(_packed(GREY, 4, 1, ZSTD), _high(GREY, 4), "4-bit", 2),
    "4 bit white zstd.tif": Odd(_packed(GREY, 4, 0, ZSTD), 255 - _high(GREY, 4), "4-bit", 2),
    "4 bit rgb.tif": Odd(_packed(PIXELS, 4, 2), _high(PIXELS, 4), "4-bit", 3),
    "6 bit.tif": Odd(_packed(GREY, 6, 1), _high(GREY, 6), "6-bit", 2),
    "12 bit.tif": Odd(_packed(WIDE[:, :, 1], 12, 1), _high(WIDE[:, :, 1], 12), "12-bit", 1),
    "12 bit white zstd.tif": Odd(_packed(WIDE[:, :, 1], 12, 0, ZSTD), 65535 - _high(WIDE[:, :, 1], 12), "12-bit", 1),
    "12 bit.jpg": Odd(lambda p: p.write_bytes(imagecodecs.jpeg_encode(WIDE >> 4, level=98, bitspersample=12)), WIDE, "12-bit", 300),
    "palette of 8 bits zstd.tif": Odd(_tiff(GREY, photometric="palette", colormap=EIGHTS, compression="zstd"), GREY, "palette"),
    "float 255.tif": Odd(_tiff(PIXELS.astype(np.float32), photometric="rgb"), SCALED, "scaled", 1),
    "float 255 zstd.tif": Odd(_tiff(PIXELS.astype(np.float32), photometric="rgb", compression="zstd"), SCALED, "scaled", 1),
    "linear.tif": Odd(_tiff(LINEAR.astype(np.float32), photometric="rgb"), SCALED, "linear", 100),
    "infinite.tif": Odd(_tiff(INFINITE), FINITE, "infinite", 1),
    "float64.tif": Odd(_tiff(FLOAT.astype(np.float64)), np.rint((FLOAT - FLOAT.min()) * 65535 / np.ptp(FLOAT)).astype(np.uint16), "scaled", 2),
    "float64.ome.tif": Odd(_tiff(FLOAT.astype(np.float64), ome=True), np.rint((FLOAT - FLOAT.min()) * 65535 / np.ptp(FLOAT)).astype(np.uint16), "scaled", 2),
    "uint64.tif": Odd(_tiff(HUGE), SCALED[:, :, 1], "scaled", 1),
    "int16.tif": Odd(_tiff((WIDE[:, :, 1].astype(int) - 32768).astype(np.int16)), WIDE[:, :, 1], "scaled", 1),
    "int32.tif": Odd(_tiff(WIDE[:, :, 1].astype(np.int32)), WIDE[:, :, 1], "unchanged", 0),
    "int8.tif": Odd(_tiff((GREY >> 1).astype(np.int8)), _high(WIDE[:, :, 1], 7), "scaled", 1),
    "2 bit.bmp": Odd(_bmp_two_bits, (GREY >> 6) * 85, "palette"),
    "unseen.bmp": Odd(_bmp_unseen, PIXELS, "left out"),
    "12 bit.pgm": Odd(lambda p: others.pgm(p, width=300, height=200, most=4095), _spread(), "4095", 0),
}  # fmt: skip


def _shown(path: Path, bits: int) -> np.ndarray:
    if bits == 8:
        with openslide.OpenSlide(path) as slide:
            assert slide.level_count >= 1
            return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    return np.asarray(tifffile.imread(path, key=0))


def test_each_is_handled_and_said(pictures: Pictures, tmp_path: Path) -> None:
    """One daemon; every pyramid opens, shows the pixels in place, and no pixel size is made up."""
    inbox = pictures.inbox
    for name, odd in ODD.items():
        odd.make(inbox / name)
    code = pictures.treated()
    found = pictures.by_name()
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
    pictures.check_hashes()


def test_an_icc_profile_survives(pictures: Pictures, tmp_path: Path) -> None:
    """In the pyramid, byte for byte."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    inbox = pictures.inbox
    for name, kind in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.tif", "TIFF")):
        IMAGE.save(inbox / name, kind, icc_profile=profile)
    assert pictures.treated() == 0
    for document in pictures.manifests().values():
        [image] = document["images"]
        assert image["icc_profile"], document["name"]
        with tifffile.TiffFile(document["_path"] / image["file"]) as tiff:
            assert tiff.pages[0].tags[34675].value == profile


def test_an_icc_profile_that_no_viewer_can_use(pictures: Pictures) -> None:
    """One that is damaged, or for other colours, would make a viewer fail at each tile: it is left out, and named."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = profile[:16] + b"GRAY" + profile[20:]
    made = {
        "junk.jpg": (IMAGE, b"junk" * 40, "is damaged"),
        "cut.tif": (IMAGE, profile[:200], "is damaged"),
        "grey in rgb.jpg": (IMAGE, grey, "not for its colours"),
        "abstract.tif": (IMAGE, profile[:12] + b"abst" + profile[16:], "not for its colours"),
        "rgb in grey.jpg": (IMAGE.convert("L"), profile, None),
        "grey.jpg": (IMAGE.convert("L"), grey, None),
    }
    for name, (image, data, _) in made.items():
        image.save(pictures.inbox / name, icc_profile=data)
    assert pictures.treated() == 0
    found = pictures.by_name()
    for name, (_, _, words) in made.items():
        [entry] = found[name]["images"]
        said = [line for line in found[name]["warnings"] if "ICC profile" in line]
        assert entry["icc_profile"] == (words is None), name
        assert len(said) == (words is not None), (name, said)
        assert words is None or words in said[0], (name, said)
        with openslide.OpenSlide(found[name]["_path"] / entry["file"]) as slide:
            assert (slide.color_profile is not None) == (words is None), name


@pytest.mark.parametrize(
    ("kind", "word"), [("cfa", "camera's colour filters"), ("separated", "CMYK colours")]
)
def test_colours_that_nothing_reads_are_named(
    pictures: Pictures, tmp_path: Path, kind: str, word: str
) -> None:
    """In words, and by the number in the file; they are not shown as grey or RGB."""
    inbox = pictures.inbox
    pixels = GREY if kind == "cfa" else np.asarray(CMYK).astype(np.float32)
    tifffile.imwrite(inbox / "a.tif", pixels, photometric=kind)
    pictures.treated()
    [document] = pictures.manifests().values()
    assert document["error"]["reason"] == "unsupported_samples"
    assert word in document["error"]["detail"]
