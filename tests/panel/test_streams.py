"""A tile of a TIFF as a JPEG of its own, and which requests of the IIIF Image API mean what."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cytowatch.panel.pixels import iiif, jpegs, plain
from cytowatch.panel.pixels.slides import open_inside
from cytowatch.pyramid import describe
from tests.builders import picture

LIKE = jpegs.Like(width=64, height=48, samples=3, photometric=jpegs.RGB)
PIXELS = picture(64, 48)


def stream(**options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "JPEG", quality=90, subsampling=0, **options)
    return out.getvalue()


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """(marker, whole segment) up to the scan, and the rest under the marker of the scan."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        found.append((data[at + 1], data[at:end]))
        at = end
    return [*found, (0xDA, data[at:])]


def abbreviated(data: bytes) -> tuple[bytes, bytes]:
    """(tables, image without them): as TIFF keeps them apart."""
    tables = b"".join(one for marker, one in segments(data) if marker in (0xDB, 0xC4))
    rest = b"".join(one for marker, one in segments(data) if marker not in (0xDB, 0xC4))
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest


def shown(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_tables_come_before_an_abbreviated_stream_and_nothing_else_changes() -> None:
    """Byte for byte: the head that was made for all tiles, then the tile without its colour marks."""
    whole = stream()
    tables, tile = abbreviated(whole)
    lead = jpegs.leading(tables, jpegs.YCBCR)
    made = jpegs.standing(tile, lead, LIKE)
    assert np.array_equal(shown(made), shown(whole))
    assert made.startswith(b"\xff\xd8\xff\xee\x00\x0eAdobe")
    rest = b"".join(one for marker, one in segments(tile) if marker != 0xE0)
    assert made == lead + rest
    # Zeros that fill the tag up, and a tag that is missing.
    assert jpegs.leading(tables + bytes(3), jpegs.YCBCR) == lead
    alone = jpegs.standing(whole, jpegs.leading(b"", jpegs.YCBCR), LIKE)
    assert np.array_equal(shown(alone), shown(whole))


def test_the_directory_says_what_the_samples_are() -> None:
    """RGB in a stream that calls itself JFIF, and so YCbCr, is shown as RGB: as OpenSlide does."""
    out = io.BytesIO()
    # Pillow stores the three samples as they are when they are given as YCbCr.
    Image.frombytes("YCbCr", (64, 48), PIXELS.tobytes()).save(
        out, "JPEG", quality=95, subsampling=0
    )
    assert segments(out.getvalue())[0][0] == 0xE0
    made = jpegs.standing(out.getvalue(), jpegs.leading(b"", jpegs.RGB), LIKE)
    assert np.abs(shown(made) - PIXELS).mean() < 2
    assert np.abs(shown(out.getvalue()) - PIXELS).mean() > 20


def test_a_grey_tile_has_no_mark_of_colours() -> None:
    """One sample is what it is."""
    out = io.BytesIO()
    Image.fromarray(PIXELS[:, :, 0]).save(out, "JPEG")
    like = jpegs.Like(width=64, height=48, samples=1, photometric=jpegs.GREY)
    made = jpegs.standing(out.getvalue(), jpegs.leading(b"", jpegs.GREY), like)
    assert b"Adobe" not in made
    assert np.array_equal(shown(made), shown(out.getvalue()))


def _refused(tile: bytes, like: jpegs.Like = LIKE, tables: bytes = b"") -> None:
    with pytest.raises(jpegs.NotPlainError):
        jpegs.standing(tile, jpegs.leading(tables, like.photometric), like)


def test_what_is_not_the_tile_that_its_directory_says_is_left_to_the_decoder() -> None:
    """Another size would be a bomb for a browser; lossless, twelve bits and two images it cannot read."""
    whole = stream()
    at = whole.index(b"\xff\xc0")
    _refused(b"")
    _refused(b"\xff\xd8")
    _refused(b"GIF89a")
    _refused(whole[:at])
    _refused(whole[: at + 8])
    _refused(whole, jpegs.Like(width=32, height=48, samples=3, photometric=jpegs.RGB))
    _refused(whole, jpegs.Like(width=64, height=48, samples=1, photometric=jpegs.GREY))
    huge = bytearray(whole)
    huge[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    _refused(bytes(huge))
    for other in (0xC3, 0xC5, 0xC9, 0xCB):
        lossless = bytearray(whole)
        lossless[at + 1] = other
        _refused(bytes(lossless))
    twelve = bytearray(whole)
    twelve[at + 4] = 12
    _refused(bytes(twelve))
    frame = whole[at : at + 2 + int.from_bytes(whole[at + 2 : at + 4])]
    _refused(whole[:at] + frame + whole[at:])
    # A segment that ends before it begins, and one that ends behind the stream.
    _refused(whole[:2] + b"\xff\xfe\x00\x00" + whole[2:])
    _refused(whole[:2] + b"\xff\xfe\xff\xff" + whole[2:])
    # Tables with an image of their own in them would be shown in the place of the tile.
    _refused(whole, tables=whole)
    _refused(whole, tables=b"II*\0")


@given(st.binary(max_size=300), st.binary(max_size=200))
def test_any_bytes_are_a_tile_or_left_to_the_decoder(data: bytes, tables: bytes) -> None:
    """Nothing else is ever raised."""
    with suppress(jpegs.NotPlainError):
        jpegs.standing(b"\xff\xd8" + data, jpegs.leading(tables, jpegs.RGB), LIKE)


def _levels(path: Path) -> list[plain.PlainLevel | None]:
    slide = describe.open_slide(str(path))
    assert slide is not None
    with slide:
        image = describe.by_openslide(slide, str(path))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return plain.levels(descriptor, image)
    finally:
        os.close(descriptor)


def _write(path: Path, **options: Any) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 2):
            tiff.write(
                np.ascontiguousarray(picture(512, 512)[::step, ::step]), tile=(128, 128),
                metadata=None, subfiletype=step - 1, **{"compression": "jpeg", "photometric": "rgb", **options},
            )  # fmt: skip
    return path


def test_only_levels_that_are_what_they_seem_are_plain(tmp_path: Path) -> None:
    """Offsets that lead elsewhere, lists that are too short and tiles that are left out are not read."""
    good = _write(tmp_path / "good.tif")
    assert all(_levels(good))
    assert not any(_levels(_write(tmp_path / "packed.tif", compression="deflate")))
    with tifffile.TiffFile(good) as tiff:
        page = tiff.pages[0].aspage()
        tags = {code: page.tags[code] for code in (324, 325)}
    data = good.read_bytes()
    level = _levels(good)[0]
    assert level is not None

    def read(changed: bytes) -> bytes:
        return level.read(1, 0, lambda count, offset: changed[offset : offset + count])

    assert read(data)[:2] == b"\xff\xd8"
    for code, values in (
        (324, (0, 1, len(data) - 4, len(data), 0xFFFFFFFF)),
        (325, (0, 1, 3, 0xFFFFFFFF, len(data))),
    ):
        for value in values:
            changed = bytearray(data)
            at = tags[code].valueoffset + (4 if tags[code].dtype == 4 else 2)
            size = 4 if tags[code].dtype == 4 else 2
            changed[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
            with pytest.raises(jpegs.NotPlainError):
                read(bytes(changed))
    for column, row in ((-1, 0), (0, -1), (4, 0), (0, 4)):
        with pytest.raises(IndexError):
            level.read(column, row, lambda count, offset: data[offset : offset + count])
    # It became shorter after it was opened.
    with pytest.raises(jpegs.NotPlainError):
        read(data[:300])


def test_nothing_outside_of_a_slide_is_opened(tmp_path: Path) -> None:
    """Neither by a path, nor by a link anywhere in it, nor is a FIFO waited at."""
    home = tmp_path / "id"
    (home / "source" / "set").mkdir(parents=True)
    (home / "source" / "a.svs").write_bytes(b"a")
    (home / "source" / "set" / "b.dat").write_bytes(b"b")
    (tmp_path / "secret").write_bytes(b"s")
    (home / "manifest.json").write_bytes(b"{}")
    (home / "source" / "link.svs").symlink_to(tmp_path / "secret")
    (home / "source" / "folder").symlink_to(tmp_path)
    (home / "derived").symlink_to(tmp_path)
    os.mkfifo(home / "source" / "fifo")
    for path, inside in (("source/a.svs", b"a"), ("source/set/b.dat", b"b")):
        descriptor = open_inside(home, path)
        assert os.read(descriptor, 9) == inside
        os.close(descriptor)
    before = len(os.listdir("/proc/self/fd"))
    for path in (
        "source/link.svs", "source/folder/secret", "derived/secret", "source/fifo", "source/set",
        "source/../manifest.json", "manifest.json", "../secret", "/etc/passwd", "source", "",
        "source//a.svs", "source/./a.svs", "source/none", "source/a.svs/", "source/a.svs/x",
    ):  # fmt: skip
        with pytest.raises((OSError, ValueError)):
            open_inside(home, path)
    assert len(os.listdir("/proc/self/fd")) == before


IMAGE = (10_000, 8_000)


@pytest.mark.parametrize(
    ("region", "size", "box", "out"),
    [
        ("full", "1000,", (0, 0, 10_000, 8_000), (1000, 800)),
        ("full", ",800", (0, 0, 10_000, 8_000), (1000, 800)),
        ("full", "100,50", (0, 0, 10_000, 8_000), (100, 50)),
        ("square", "500,", (1000, 0, 8_000, 8_000), (500, 500)),
        ("0,0,256,256", "max", (0, 0, 256, 256), (256, 256)),
        ("0,0,256,256", "^max", (0, 0, 256, 256), (256, 256)),
        ("9900,7900,500,500", "max", (9900, 7900, 100, 100), (100, 100)),
        ("9999,7999,1,1", "1,", (9999, 7999, 1, 1), (1, 1)),
        ("0,0,999999999,999999999", "10,8", (0, 0, 10_000, 8_000), (10, 8)),
        ("0,0,10000,1", "10,", (0, 0, 10_000, 1), (10, 1)),
        ("0,0,256,256", "^128,", (0, 0, 256, 256), (128, 128)),
    ],
)  # fmt: skip
def test_what_a_iiif_request_means(
    region: str, size: str, box: tuple[int, ...], out: tuple[int, int]
) -> None:
    """Boxes are cut at the image; a size that is left open keeps the proportions."""
    asked = iiif.parse(region, size, "0", "default.jpg", IMAGE)
    assert (asked.box, asked.size) == (box, out)


@pytest.mark.parametrize(
    ("region", "size", "rotation", "last", "code"),
    [
        *((one, "max", "0", "default.jpg", 400) for one in (
            "", "Full", "pct:0,0,10,10", "1,2,3", "0,0,0,10", "0,0,10,0", "-1,0,10,10", "10000,0,1,1",
            "0,8000,1,1", "0,0,1.5,2", "0,0,NaN,1", "0,0,1e3,1", "00,0,1,1", " 0,0,1,1", "0,0,1,1\n",
            "0,0,9999999999,1", f"0,0,{'9' * 5000},1", "٠,0,1,1", "0,0,+1,1", "random",
        )),
        *(("full", one, "0", "default.jpg", 400) for one in (
            "", ",", "full", "0,", ",0", "0,0", "pct:50", "!100,100", "10001,", ",8001", "10,8001", "-1,",
            "1.5,", "NaN,", "5000,5000", "4097,", "999999999,", "^", "^,", "random", "100", "9999999999,",
        )),
        ("full", "^20000,", "0", "default.jpg", 501),
        ("0,0,10,10", "^11,", "0", "default.jpg", 501),
        *(("full", "10,", one, "default.jpg", 400) for one in ("90", "!0", "", "-0", "0.0", "NaN", "random")),
        *(("full", "10,", "0", one, 400) for one in (
            "default.png", "gray.jpg", "default", "default.", ".jpg", "default.jpg.jpg", "native.jpg",
            "DEFAULT.JPG", "default.exe", "random.jpg", "default.jpg\n",
        )),
    ],
)  # fmt: skip
def test_what_is_no_request_of_level_1_is_refused(
    region: str, size: str, rotation: str, last: str, code: int
) -> None:
    """400; 501 for an enlargement that is asked for by its own sign."""
    with pytest.raises(iiif.RefusedError) as refused:
        iiif.parse(region, size, rotation, last, IMAGE)
    assert refused.value.code == code


@given(
    st.text("0123456789,.^!pctfulsqarem-", max_size=24), st.text("0123456789,.^!pctmax", max_size=14),
    st.tuples(st.integers(1, 300_000), st.integers(1, 300_000)),
)  # fmt: skip
def test_any_request_is_bounded(region: str, size: str, image: tuple[int, int]) -> None:
    """What is answered lies in the image, is not enlarged and is not huge."""
    try:
        asked = iiif.parse(region, size, "0", "default.jpg", image)
    except iiif.RefusedError:
        return
    x, y, width, height = asked.box
    assert 0 <= x < x + width <= image[0]
    assert 0 <= y < y + height <= image[1]
    assert 0 < asked.size[0] <= min(width, 4096)
    assert 0 < asked.size[1] <= min(height, 4096)
    assert asked.size[0] * asked.size[1] <= 2048 * 2048


@given(st.integers(1, 400_000), st.integers(1, 400_000), st.sampled_from([2, 4]))
def test_every_tile_that_info_promises_can_be_asked_for(width: int, height: int, step: int) -> None:
    """At each scale factor the first, the last and each listed size, computed as viewers do."""
    levels = [(width, height)]
    while min(levels[-1]) > 300:
        levels.append((levels[-1][0] // step, levels[-1][1] // step))
    told = iiif.info("http://x/iiif/3/y", levels, (256, 256))
    [tiles] = told["tiles"]
    for factor in tiles["scaleFactors"]:
        across = -(-width // (256 * factor)) - 1
        down = -(-height // (256 * factor)) - 1
        for column, row in {(0, 0), (across, down)}:
            x, y = column * 256 * factor, row * 256 * factor
            w, h = min(256 * factor, width - x), min(256 * factor, height - y)
            size = f"{-(-w // factor)},{-(-h // factor)}"
            asked = iiif.parse(f"{x},{y},{w},{h}", size, "0", "default.jpg", (width, height))
            assert asked.box == (x, y, w, h)
    for one in told["sizes"]:
        iiif.parse("full", f"{one['width']},{one['height']}", "0", "default.jpg", (width, height))
