"""JPEG 2000 of every odd kind, against `opj_decompress` of Debian's libopenjp2-tools."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from cytowatch.config import from_mapping
from cytowatch.formats.completeness.whole import missing
from cytowatch.pyramid.readers import jp2_planes
from cytowatch.pyramid.readers.jp2 import open_jp2
from cytowatch.record.errors import ConversionError
from tests.builders import others, picture
from tests.lab.pictures import Pictures
from tests.needs import needs

CONFIG = from_mapping({})

needs_tools = needs("opj_compress", "opj_decompress")


def ours(path: Path) -> np.ndarray:
    """All rows, read in pieces that do not fit the tiles."""
    opened = open_jp2(str(path), CONFIG)
    [scene] = opened.scenes
    height = scene.region.height
    return np.concatenate([scene.region.rows(y, min(height, y + 37)) for y in range(0, height, 37)])


def theirs(path: Path, ending: str = "ppm") -> np.ndarray:
    target = path.with_suffix(f".{ending}")
    subprocess.run(
        ["opj_decompress", "-i", path, "-o", target], check=True, stdout=subprocess.DEVNULL
    )
    found = np.asarray(Image.open(target))
    return found if found.ndim == 3 else found[:, :, np.newaxis]


def compressed(folder: Path, *options: str, mode: str = "RGB") -> Path:
    source = folder / "x.ppm"
    Image.fromarray(picture(403, 300)).convert(mode).save(source, "PPM")
    target = folder / "x.jp2"
    subprocess.run(
        ["opj_compress", "-i", source, "-o", target, *options],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return target


@needs_tools
def test_bytes_between_the_parts_of_a_tile(tmp_path: Path) -> None:
    """The parts behind them are not found any more, and a tile without its last parts is a blurred one."""
    path = compressed(tmp_path, "-t", "128,128", "-TP", "R")
    data = path.read_bytes()
    whole = ours(path)
    parts = [at for at in range(len(data)) if data.startswith(b"\xff\x90\0\x0a", at)]
    assert len(parts) > 20
    for at in (parts[3] + 40, parts[len(parts) // 2], parts[-1] + 40):
        path.write_bytes(data[:at] + b"\7" * 16 + data[at:])
        with pytest.raises(ConversionError) as raised:
            ours(path)
        assert raised.value.reason == "damaged"
    path.write_bytes(data + bytes(500))
    assert np.array_equal(ours(path), whole)


@needs_tools
def test_bytes_in_the_only_tile(tmp_path: Path) -> None:
    """The box of the codestream ends before its end then, and OpenJPEG shows what it finds up to there."""
    path = compressed(tmp_path)
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half] + b"\7\7" + data[half:])
    with pytest.raises(ConversionError) as raised:
        ours(path)
    assert raised.value.reason == "damaged"


def raw(folder: Path, pixels: np.ndarray, form: str, *options: str) -> Path:
    source = folder / "x.raw"
    source.write_bytes(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).tobytes())
    target = folder / "x.jp2"
    subprocess.run(
        ["opj_compress", "-i", source, "-o", target, "-F", form, *options],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return target


@needs_tools
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-t", "128,96"),
        ("-t", "128,128", "-TP", "R"),
        ("-t", "100,100", "-p", "RPCL", "-SOP", "-EPH"),
        ("-t", "128,128", "-d", "33,17"),
        ("-t", "128,128", "-T", "20,10", "-d", "33,17"),
        ("-t", "128,128", "-r", "20,10,1"),
        ("-I", "-r", "5", "-t", "160,160"),
        ("-n", "1", "-t", "64,64"),
    ],
    ids=lambda options: "_".join(options) or "plain",
)
def test_tiles_and_orders(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Tile by tile is what the whole is, wherever image and tiles begin."""
    path = compressed(tmp_path, *options)
    assert np.array_equal(ours(path), theirs(path))


@needs_tools
def test_grey(tmp_path: Path) -> None:
    """One component."""
    path = compressed(tmp_path, "-t", "128,128", mode="L")
    assert np.array_equal(ours(path), theirs(path, "pgm"))


@needs_tools
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_signed(tmp_path: Path, bits: int) -> None:
    """The middle of the range is shifted to half of it; 12 bits are spread over 16."""
    grey = picture(120, 90)[:, :, 1:2].astype(np.int32)
    signed = (grey - 128) * (1 << (bits - 8))
    stored = signed.astype(np.int8 if bits == 8 else ">i2")
    path = raw(tmp_path, stored, f"120,90,1,{bits},s", "-t", "64,64")
    wanted = grey << (bits - 8)
    assert np.array_equal(ours(path), wanted if bits != 12 else (wanted * 65535 + 2047) // 4095)


@needs_tools
def test_subsampled(tmp_path: Path) -> None:
    """Colour of half the size: it is enlarged, or refused with a reason; never shifted."""
    y, x = np.mgrid[0:96, 0:128]
    luma = (x + y).astype(np.uint8)
    half = np.full((48, 64), 128, np.uint8)
    source = tmp_path / "x.raw"
    source.write_bytes(luma.tobytes() + half.tobytes() + half.tobytes())
    path = tmp_path / "x.jp2"
    subprocess.run(
        ["opj_compress", "-i", source, "-o", path, "-F", "128,96,3,8,u@1x1:2x2:2x2", "-mct", "0"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    found = ours(path)
    assert found.shape == (96, 128, 3)
    far = np.abs(found.astype(int) - luma[:, :, np.newaxis].astype(int)).max()
    assert far <= 2, far


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_spread(tmp_path: Path, bits: int) -> None:
    """White is white."""
    most = (1 << bits) - 1
    values = (np.indices((90, 120)).sum(axis=0) % (most + 1)).astype(np.uint8)
    path = tmp_path / "f.jp2"
    path.write_bytes(imagecodecs.jpeg2k_encode(values, level=0, bitspersample=bits))
    assert np.array_equal(ours(path)[:, :, 0], values.astype(int) * 255 // most)


def boxes(*parts: tuple[bytes, bytes]) -> bytes:
    return b"".join(struct.pack(">I4s", len(data) + 8, kind) + data for kind, data in parts)


def wrapped(codestream: bytes, *, size: tuple[int, int], count: int, header: bytes) -> bytes:
    signature = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + boxes((b"ftyp", b"jp2 \0\0\0\0jp2 "))
    ihdr = struct.pack(">IIHBBBB", size[1], size[0], count, 7, 7, 0, 0)
    return signature + boxes((b"jp2h", boxes((b"ihdr", ihdr)) + header), (b"jp2c", codestream))


def test_palette(tmp_path: Path) -> None:
    """Indices become the colours of their palette."""
    indices = (np.indices((90, 120)).sum(axis=0) % 16).astype(np.uint8)
    colours = np.random.default_rng(1).integers(0, 256, (16, 3), dtype=np.uint8)
    pclr = struct.pack(">HB3B", 16, 3, 7, 7, 7) + colours.tobytes()
    cmap = b"".join(struct.pack(">HBB", 0, 1, channel) for channel in range(3))
    colr = struct.pack(">BBBI", 1, 0, 0, 16)
    stream = imagecodecs.jpeg2k_encode(indices, level=0, codecformat="j2k")
    header = boxes((b"colr", colr), (b"pclr", pclr), (b"cmap", cmap))
    path = tmp_path / "p.jp2"
    path.write_bytes(wrapped(stream, size=(120, 90), count=1, header=header))
    assert np.array_equal(ours(path), colours[indices])


def test_sycc(tmp_path: Path) -> None:
    """YCC by its header becomes RGB."""
    rgb = picture(120, 90)
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    stream = imagecodecs.jpeg2k_encode(ycc, level=0, codecformat="j2k", mct=False)
    header = boxes((b"colr", struct.pack(">BBBI", 1, 0, 0, 18)))
    path = tmp_path / "s.jp2"
    path.write_bytes(wrapped(stream, size=(120, 90), count=3, header=header))
    assert np.abs(ours(path).astype(int) - rgb.astype(int)).max() <= 3


def test_without_tiles_and_too_large_for_memory(tmp_path: Path) -> None:
    """It is refused from its header, with the numbers."""
    small = from_mapping({"sandbox": {"memory_bytes": 268_435_456}})
    with pytest.raises(ConversionError) as raised:
        open_jp2(str(others.jp2(tmp_path / "a", width=3000, height=3000)), small)
    assert raised.value.reason == "too_large_for_memory"


def test_a_tile_that_is_not_there(tmp_path: Path) -> None:
    """Zeros are not made up for it."""
    path = others.jp2_tiled(tmp_path / "a.jp2")
    data = path.read_bytes()
    at = data.index(b"\xff\x90", data.index(b"\xff\x90") + 1)
    [length] = struct.unpack_from(">I", data, at + 6)
    (tmp_path / "b.jp2").write_bytes(data[:at] + data[at + length :])
    with pytest.raises(ConversionError, match="is not in the file"):
        ours(tmp_path / "b.jp2")


def boxed(path: Path, colours: int, *channels: tuple[int, int, int]) -> Path:
    """The codestream of a JP2 again, with these colours (EnumCS) and channels (number, use, place)."""
    data = path.read_bytes()
    stream = data[data.index(b"jp2c") - 4 :]
    [size] = struct.unpack_from(">I", data, data.index(b"jp2h") - 4)
    old = data[data.index(b"jp2h") + 4 : data.index(b"jp2h") - 4 + size]
    kept = b"".join(box for box in apart(old) if box[4:8] not in (b"colr", b"cdef"))
    kept += struct.pack(">I4sBBBI", 15, b"colr", 1, 0, 0, colours)
    if channels:
        told = b"".join(struct.pack(">HHH", *one) for one in channels)
        kept += struct.pack(">I4sH", 10 + len(told), b"cdef", len(channels)) + told
    head = data[: data.index(b"jp2h") - 4]
    path.write_bytes(head + struct.pack(">I4s", 8 + len(kept), b"jp2h") + kept + stream)
    return path


def apart(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        [size] = struct.unpack_from(">I", data, at)
        found.append(data[at : at + size])
        at += size
    return found


COLOUR = [(0, 0, 1), (1, 0, 2), (2, 0, 3)]


@needs_tools
@pytest.mark.parametrize("tiles", [(), ("-t", "128,128")])
def test_what_is_no_colour_is_no_transparency(tmp_path: Path, tiles: tuple[str, ...]) -> None:
    """A channel that is said to be opacity is, or one that nothing is said of; others are left out."""
    pixels = picture(300, 200)
    more = np.concatenate([pixels, pixels[:, :, :1], pixels[:, :, 1:2]], axis=2)
    for count in (2, 4, 5):
        path = raw(tmp_path, more[:, :, :count], f"300,200,{count},8,u", "-mct", "0", *tiles)
        path = boxed(path, 16 if count > 2 else 17)
        # One more than there are colours is opacity for OpenJPEG, Pillow and libvips.
        assert np.array_equal(ours(path), more[:, :, : 3 if count == 5 else count]), count
        [scene] = open_jp2(str(path), CONFIG).scenes
        assert any("taken for transparency" in line for line in scene.done) == (count < 5)
    path = raw(tmp_path, more[:, :, :2], "300,200,2,8,u", "-mct", "0", *tiles)
    assert np.array_equal(ours(boxed(path, 17, (0, 0, 1), (1, 65535, 65535))), more[:, :, :1])
    path = raw(tmp_path, more[:, :, :4], "300,200,4,8,u", "-mct", "0", *tiles)
    assert np.array_equal(ours(boxed(path, 16, *COLOUR, (3, 65535, 65535))), pixels)
    assert np.array_equal(ours(boxed(path, 16, *COLOUR, (3, 1, 0))), more[:, :, :4])
    [scene] = open_jp2(str(boxed(path, 12)), CONFIG).scenes
    assert not any("transparency" in line for line in scene.done)
    assert (scene.cmyk, scene.region.samples) == (True, 4)


@needs_tools
def test_colours_that_were_multiplied_by_their_opacity(tmp_path: Path) -> None:
    """They are divided by it again, so that it is not laid over white twice."""
    pixels = picture(300, 200)
    opacity = np.full((200, 300, 1), 128, np.uint8)
    multiplied = np.rint(pixels * (128 / 255)).astype(np.uint8)
    data = np.concatenate([multiplied, opacity], axis=2)
    path = raw(tmp_path, data, "300,200,4,8,u", "-mct", "0")
    found = ours(boxed(path, 16, *COLOUR, (3, 2, 0)))
    assert np.abs(found[:, :, :3].astype(int) - pixels).max() <= 1
    assert np.array_equal(found[:, :, 3:], opacity)


@needs_tools
def test_colours_that_nothing_converts(tmp_path: Path) -> None:
    """They are refused by name, and never shown as RGB."""
    path = raw(tmp_path, picture(300, 200), "300,200,3,8,u", "-mct", "0")
    with pytest.raises(ConversionError, match="CIELab") as caught:
        open_jp2(str(boxed(path, 14)), CONFIG)
    assert caught.value.reason == "unsupported_samples"


@needs_tools
@pytest.mark.parametrize("tile", ["63,49", "63,48", "64,49"])
def test_tiles_that_begin_between_two_samples_of_colour(tmp_path: Path, tile: str) -> None:
    """At the edges of such tiles the colours are those of the whole."""
    rgb = picture(128, 96)
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr").resize((64, 48)))
    luma = np.asarray(Image.fromarray(rgb).convert("L"))
    source, path = tmp_path / "x.raw", tmp_path / "x.jp2"
    planes = (luma, ycc[:, :, 1], ycc[:, :, 2])
    source.write_bytes(b"".join(np.ascontiguousarray(one).tobytes() for one in planes))
    form = "128,96,3,8,u@1x1:2x2:2x2"
    subprocess.run(
        ["opj_compress", "-i", source, "-o", path, "-F", form, "-mct", "0", "-t", tile],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert np.array_equal(ours(path), imagecodecs.jpeg2k_decode(path.read_bytes()))


@needs_tools
def test_twelve_bits_and_their_opacity(tmp_path: Path) -> None:
    """White is white, and what is opaque is: both have 12 bits, and become 16."""
    pixels = picture(120, 90).astype(np.uint32) * 4095 // 255
    data = np.concatenate([pixels, np.full((90, 120, 1), 4095, np.uint32)], axis=2)
    path = raw(tmp_path, data.astype(">u2"), "120,90,4,12,u", "-mct", "0")
    found = ours(boxed(path, 16, *COLOUR, (3, 1, 0)))
    assert np.array_equal(found, (data * 65535 + 2047) // 4095)


@needs_tools
@pytest.mark.parametrize("number", [11, 21, 24, 99])
def test_colours_of_any_other_number(tmp_path: Path, number: int) -> None:
    """CMY, ROMM-RGB, e-sYCC and unknown ones are not sRGB."""
    path = raw(tmp_path, picture(60, 50), "60,50,3,8,u", "-mct", "0")
    with pytest.raises(ConversionError) as caught:
        open_jp2(str(boxed(path, number)), CONFIG)
    assert caught.value.reason == "unsupported_samples"


def test_profiles_of_other_colours(tmp_path: Path) -> None:
    """One of inks says that they are inks, and goes with them; one of Lab is refused."""
    grey = pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb")
    inks = bytes(grey.icc_transform("cmyk").get("icc-profile-data"))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    pixels = np.dstack([picture(60, 50), picture(60, 50)[:, :, 0]])
    path = tmp_path / "i.jp2"
    for profile, count in ((inks, 4), (lab, 3)):
        told = np.ascontiguousarray(pixels[:, :, :count])
        stream = imagecodecs.jpeg2k_encode(told, level=0, codecformat="j2k", mct=False)
        header = boxes((b"colr", b"\x02\0\0" + profile))
        path.write_bytes(wrapped(stream, size=(60, 50), count=count, header=header))
        if profile is lab:
            with pytest.raises(ConversionError, match="an ICC profile for Lab"):
                open_jp2(str(path), CONFIG)
        else:
            [scene] = open_jp2(str(path), CONFIG).scenes
            assert (scene.cmyk, scene.icc_profile) == (True, inks)
            assert np.array_equal(scene.region.rows(0, 50), pixels)


def test_a_palette_of_more_than_8_bits(tmp_path: Path) -> None:
    """Its colours have bits of their own, and are spread."""
    indices = (np.indices((90, 120)).sum(axis=0) % 16).astype(np.uint8)
    colours = np.random.default_rng(1).integers(0, 4096, (16, 3), dtype=np.uint16)
    pclr = struct.pack(">HB3B", 16, 3, 11, 11, 11) + colours.astype(">u2").tobytes()
    cmap = b"".join(struct.pack(">HBB", 0, 1, channel) for channel in range(3))
    colr = struct.pack(">BBBI", 1, 0, 0, 16)
    stream = imagecodecs.jpeg2k_encode(indices, level=0, codecformat="j2k")
    path = tmp_path / "p.jp2"
    header = boxes((b"colr", colr), (b"pclr", pclr), (b"cmap", cmap))
    path.write_bytes(wrapped(stream, size=(120, 90), count=1, header=header))
    assert np.array_equal(ours(path), (colours[indices].astype(int) * 65535 + 2047) // 4095)


@needs_tools
def test_components_of_different_depths(tmp_path: Path) -> None:
    """They are not called damaged: nothing here reads them."""
    path = raw(tmp_path, picture(60, 50) // 32, "60,50,3,8,u", "-mct", "0")
    data = bytearray(path.read_bytes())
    # The last component of SIZ, whose first is 40 bytes behind the marker.
    data[data.index(b"\xff\x51") + 40 + 6] = 3
    path.write_bytes(bytes(data))
    with pytest.raises(ConversionError, match="8, 8, 4 bits") as caught:
        open_jp2(str(path), CONFIG)
    assert caught.value.reason == "unsupported_samples"


def _subsampled(folder: Path, steps: str, *options: str, colours: int | None = None) -> tuple[Path, list[np.ndarray]]:  # fmt: skip
    """Planes of the picture (of its YCbCr where there are three), each with its steps, and the file."""
    size = (120, 96)
    rgb = picture(*size)
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    each = steps.split(":")
    source = ycc if len(each) > 2 else rgb
    planes = []
    for number, step in enumerate(each):
        across, down = map(int, step.split("x"))
        planes.append(np.ascontiguousarray(source[::down, ::across, min(number, 2)]))
    raw_file, path = folder / "x.raw", folder / "x.jp2"
    raw_file.write_bytes(b"".join(one.tobytes() for one in planes))
    form = f"{size[0]},{size[1]},{len(each)},8,u@{steps}"
    subprocess.run(
        ["opj_compress", "-i", raw_file, "-o", path, "-F", form, "-mct", "0", *options],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return (path if colours is None else boxed(path, colours)), planes


TILES = [(), ("-t", "48,48")]


@needs_tools
@pytest.mark.parametrize("tiles", TILES, ids=["whole", "tiles"])
@pytest.mark.parametrize(
    "steps", ["2x2", "2x1", "1x2", "4x4", "2x2:2x2:2x2", "1x2:1x2:1x2", "3x3:3x3:3x3"]
)
def test_all_components_with_the_same_steps(tmp_path: Path, steps: str, tiles: tuple[str, ...]) -> None:  # fmt: skip
    """It has as many pixels as samples: none is made up, tile by tile or whole."""
    path, planes = _subsampled(tmp_path, steps, *tiles, colours=16 if ":" in steps else 17)
    assert np.array_equal(ours(path), np.dstack(planes))


@needs_tools
@pytest.mark.parametrize("tiles", TILES, ids=["whole", "tiles"])
@pytest.mark.parametrize(
    "steps",
    [
        "1x1:1x2:1x2",
        "1x1:4x1:4x1",
        "1x1:4x4:4x4",
        "2x2:1x1:1x1",
        "1x1:2x2:2x1",
        "1x1:1x1:2x2",
        "1x1:2x2:2x2",
    ],
)
def test_components_with_steps_of_their_own(tmp_path: Path, steps: str, tiles: tuple[str, ...]) -> None:  # fmt: skip
    """Each is enlarged, and YCbCr becomes RGB, as OpenJPEG reads it."""
    path, _ = _subsampled(tmp_path, steps, *tiles, colours=18)
    found = ours(path)
    assert found.shape == (96, 120, 3)
    assert np.abs(found.astype(int) - picture(120, 96)).mean() < 4
    [scene] = open_jp2(str(path), CONFIG).scenes
    assert scene.done[0] == "its subsampled components were enlarged"


@needs_tools
def test_components_that_are_no_colours_of_ycbcr(tmp_path: Path) -> None:
    """Of four the last two are half as large: they are enlarged, and stay what they are."""
    path, planes = _subsampled(tmp_path, "1x1:1x1:2x2:2x2", colours=16)
    found = ours(boxed(path, 16, *COLOUR, (3, 65535, 65535)))
    assert np.array_equal(found[:, :, :2], np.dstack(planes[:2]))
    assert np.array_equal(found[:, :, 2], planes[2].repeat(2, 0).repeat(2, 1))


@needs_tools
def test_what_the_decoder_cannot_do_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where OpenJPEG itself is not to be found the file is whole, and its kind is not supported."""
    path, _ = _subsampled(tmp_path, "1x1:4x4:4x4", colours=18)
    monkeypatch.setattr(jp2_planes, "_library", lambda: None)
    with pytest.raises(ConversionError) as caught:
        open_jp2(str(path), CONFIG)
    assert caught.value.reason == "unsupported_format"


@needs_tools
@pytest.mark.parametrize("tiles", TILES, ids=["whole", "tiles"])
def test_markers_without_a_length(tmp_path: Path, tiles: tuple[str, ...]) -> None:
    """FF30 to FF3F stand alone (table A.2): what follows them is the next marker."""
    path = compressed(tmp_path, *tiles)
    data = path.read_bytes()
    begin = data.index(b"\xff\x4f\xff\x51")
    [length] = struct.unpack_from(">H", data, begin + 4)
    at = begin + 4 + length
    alone = b"\xff\x30\xff\x3f\xff\x37"
    [size] = struct.unpack_from(">I", data, begin - 8)
    wider = struct.pack(">I", size and size + len(alone))
    path.write_bytes(data[: begin - 8] + wider + data[begin - 4 : at] + alone + data[at:])
    assert np.array_equal(ours(path), picture(403, 300))
    with path.open("rb") as file:
        assert missing(file.fileno(), path.stat().st_size) is None
        cut = path.stat().st_size - 200
    path.write_bytes(path.read_bytes()[:cut])
    with path.open("rb") as file:
        assert missing(file.fileno(), cut) is not None


INDICES = (np.indices((90, 120)).sum(axis=0) % 16).astype(np.uint8)
ENTRIES = np.random.default_rng(1).integers(0, 256, (16, 3), dtype=np.uint8)
MAP = b"".join(struct.pack(">HBB", 0, 1, channel) for channel in range(3))


def _palette(path: Path, *, inside: bytes, beside: bytes = b"", data: np.ndarray = INDICES) -> Path:
    pclr = struct.pack(">HB3B", 16, 3, 7, 7, 7) + ENTRIES.tobytes()
    header = boxes((b"colr", struct.pack(">BBBI", 1, 0, 0, 16)), (b"pclr", pclr)) + inside
    stream = imagecodecs.jpeg2k_encode(data, level=0, codecformat="j2k", mct=False)
    count = 1 if data.ndim == 2 else data.shape[2]
    made = wrapped(stream, size=(120, 90), count=count, header=header)
    at = made.index(b"jp2c") - 4
    path.write_bytes(made[:at] + beside + made[at:])
    return path


def test_a_palette_whose_map_lies_elsewhere(tmp_path: Path) -> None:
    """Beside its header, or nowhere at all: then each column is a channel."""
    for inside, beside in (
        (boxes((b"cmap", MAP)), b""), (b"", boxes((b"cmap", MAP))), (b"", b""),
    ):  # fmt: skip
        path = _palette(tmp_path / "p.jp2", inside=inside, beside=beside)
        assert np.array_equal(ours(path), ENTRIES[INDICES])


def test_a_palette_beside_a_component_of_opacity(tmp_path: Path) -> None:
    """The component goes past the palette; OpenJPEG refuses such a map."""
    opacity = picture(120, 90)[:, :, 1]
    channels = [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0)]
    cdef = struct.pack(">H", 4) + b"".join(struct.pack(">HHH", *one) for one in channels)
    inside = boxes((b"cmap", MAP + struct.pack(">HBB", 1, 0, 0)), (b"cdef", cdef))
    path = _palette(tmp_path / "p.jp2", inside=inside, data=np.dstack([INDICES, opacity]))
    assert np.array_equal(ours(path), np.dstack([ENTRIES[INDICES], opacity]))


def _grey_profile() -> bytes:
    """Of gamma 2.2, with no more than ICC.1:2001 asks for."""
    white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)
    curve = struct.pack(">4s4xIH2x", b"curv", 1, 563)
    name = struct.pack(">4s4xI5s78x", b"desc", 5, b"grey")
    name += bytes(-len(name) % 4)
    tags = [(b"desc", name), (b"wtpt", white), (b"kTRC", curve), (b"cprt", b"text\0\0\0\0x\0\0\0")]
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for kind, data in tags:
        table += struct.pack(">4sII", kind, at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s12x4s28x3i", at + len(body), b"lcms", 0x2100000, b"mntr", b"GRAY", b"XYZ ", b"acsp", 63190, 65536, 54061)  # fmt: skip
    return head.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("with_opacity", [False, True])
def test_one_component_with_a_profile_of_grey(tmp_path: Path, with_opacity: bool) -> None:
    """It stays one component, as it is stored, and the profile goes with it."""
    pixels = picture(120, 90)[:, :, : 2 if with_opacity else 1]
    profile = _grey_profile()
    assert ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip() == "GRAY"
    told = np.ascontiguousarray(pixels if with_opacity else pixels[:, :, 0])
    stream = imagecodecs.jpeg2k_encode(told, level=0, codecformat="j2k", mct=False)
    header = boxes((b"colr", b"\x02\0\0" + profile))
    path = tmp_path / "g.jp2"
    path.write_bytes(wrapped(stream, size=(120, 90), count=pixels.shape[2], header=header))
    assert np.array_equal(ours(path), pixels)
    [scene] = open_jp2(str(path), CONFIG).scenes
    assert scene.icc_profile == profile


def test_opacity_is_laid_over_white(pictures: Pictures) -> None:
    """As of every other format: by Pillow's JP2, which says it, and by a bare codestream, which does not."""
    inbox = pictures.inbox
    colours = picture(300, 200)
    opacity = np.tile(np.linspace(0, 255, 300).astype(np.uint8), (200, 1))
    pixels = np.dstack([colours, opacity])
    Image.fromarray(pixels).save(inbox / "said.jp2")
    bare = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")
    (inbox / "bare.j2k").write_bytes(bare)
    assert pictures.treated() == 0, pictures.said()
    share = opacity[:, :, np.newaxis] / 255
    wanted = colours * share + 255 * (1 - share)
    for name, document in pictures.by_name().items():
        shown = tifffile.imread(document["_path"] / document["images"][0]["file"], key=0)
        assert np.abs(shown - wanted).mean() < 2, name
        assert "its transparency was laid over white" in document["warnings"]
