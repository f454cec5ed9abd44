"""What a gap means, by where it lies: no rule of thumb does, so each packing has its own."""

from __future__ import annotations

import io
import os
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cytowatch.formats.completeness import announced, arrival, whole
from cytowatch.formats.completeness.gaps import LEAST_BYTES, ZeroRuns
from cytowatch.formats.structure.tiff import Tiff
from tests import builders
from tests.builders import cellsens, others, picture, vendors

NOISE = np.random.default_rng(1).integers(0, 255, (600, 800, 3)).astype(np.uint8)
FLAT = np.full((1800, 1800, 3), 255, np.uint8)


def looked(path: Path) -> arrival.Arrival:
    """What is said of a file after all of it was read."""
    watch = arrival.of_native(str(path))
    data = path.read_bytes()
    for at in range(0, len(data), 10_000):
        watch.feed(data[at : at + 10_000])
    return watch.verdict()


def zeroed(path: Path, begin: int, length: int) -> Path:
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes(length))
    return path


def _jpeg(pixels: np.ndarray, **options: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        Image.fromarray(pixels).save(path, "JPEG", quality=90, **options)
        return path

    return make


def _tiff(pixels: np.ndarray, compression: str, **options: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        tifffile.imwrite(
            path, pixels, compression=compression, photometric="rgb", metadata=None, **options
        )
        return path

    return make


def _png(pixels: np.ndarray, **options: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        Image.fromarray(pixels).save(path, "PNG", **options)
        return path

    return make


def _stored(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.pgm", b"P5 1000 20 255\n" + bytes(20_000))
    return path


def _in_an_exif(path: Path) -> Path:
    stream = io.BytesIO()
    Image.fromarray(NOISE).save(stream, "JPEG", quality=80)
    data, note = stream.getvalue(), bytes(20_000)
    segment = b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note
    path.write_bytes(data[:2] + segment + data[2:])
    return path


def _before_a_palette(path: Path) -> Path:
    """PackBits that end in a black pixel, and behind them a palette without red."""
    grey = picture(403, 300)[:, :, 1].copy()
    grey[-1, -1] = 0
    strip = b"".join(imagecodecs.packbits_encode(np.ascontiguousarray(row)) for row in grey)
    assert strip.endswith(b"\0")
    palette = np.zeros((3, 256), "<u2")
    palette[2] = np.arange(256) * 257
    content = strip + palette.tobytes()
    at = 8 + len(content) + len(content) % 2
    tags = [
        (256, 4, 1, 403), (257, 4, 1, 300), (258, 3, 1, 8), (259, 3, 1, 32773), (262, 3, 1, 3),
        (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 300), (279, 4, 1, len(strip)),
        (320, 3, 768, 8 + len(strip)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *one) for one in tags)
    head = struct.pack("<2sHI", b"II", 42, at) + content
    path.write_bytes(head.ljust(at, b"\0") + directory + bytes(4))
    return path


def _black_tile(path: Path) -> Path:
    """An .ets that is not packed and ends in black; the list of its tiles, which begins at 0, 0, follows."""
    path.write_bytes(cellsens.stack({(0,): NOISE[:300, :300, 0]}, packing=cellsens.RAW))
    return path


HONEST: dict[str, Callable[[Path], Path]] = {
    "white JPEG, its own tables": _jpeg(FLAT, optimize=True),
    "white JPEG, progressive": _jpeg(FLAT, progressive=True),
    "white JPEG, grey": _jpeg(FLAT[:, :, 0], optimize=True),
    "zeros in a segment of a JPEG": _in_an_exif,
    "flat deflate": _tiff(FLAT, "zlib", rowsperstrip=1800),
    "deflate that only stores": _tiff(
        np.concatenate([NOISE, NOISE * 0]), "zlib", compressionargs={"level": 0}
    ),
    "flat LZW": _tiff(FLAT, "lzw"),
    "PackBits before a palette": _before_a_palette,
    "black tile of a VSI": _black_tile,
    "flat zstd": _tiff(FLAT, "zstd"),
    "PNG that only stores": _png(np.concatenate([NOISE, NOISE * 0]), compress_level=0),
    "flat PNG": _png(FLAT),
    "member that is only stored": _stored,
    "black rows": lambda path: (path.write_bytes(b"P5 1000 20 255\n" + bytes(20_000)), path)[1],
}


@pytest.mark.parametrize("name", HONEST)
def test_zeros_that_are_pixels_are_no_gap(name: str, tmp_path: Path) -> None:
    """Packed or not: tables, checksums and counts tell them from what never came."""
    path = HONEST[name](tmp_path / "a")
    found = looked(path)
    assert (found.lacks, found.damaged, found.blank) == (None, None, ())


GAPS: dict[str, Callable[[Path], Path]] = {
    "JPEG": _jpeg(NOISE),
    "JPEG, its own tables": _jpeg(NOISE, optimize=True),
    "deflate": _tiff(NOISE, "zlib", rowsperstrip=100),
    "LZW": _tiff(NOISE, "lzw", rowsperstrip=100),
    "zstd": _tiff(NOISE, "zstd", rowsperstrip=100),
    "LZMA": _tiff(NOISE, "lzma", rowsperstrip=100),
    "JPEG in TIFF": _tiff(NOISE, "jpeg", tile=(256, 256)),
    "JPEG 2000 in TIFF": _tiff(NOISE, "jpeg2000", tile=(256, 256)),
    "WebP in TIFF": _tiff(NOISE, "webp", tile=(256, 256), compressionargs={"lossless": True}),
    "PNG": _png(NOISE),
    "JPEG 2000": others.jp2,
    "SVS": builders.aperio_svs,
    "SCN": vendors.leica_scn,
    "Philips": vendors.philips_tiff,
    "Huron": vendors.huron_tiff,
}


@pytest.mark.parametrize("length", [700, 4096, 20_000])
@pytest.mark.parametrize("name", GAPS)
def test_zeros_in_packed_pixels_never_came(name: str, length: int, tmp_path: Path) -> None:
    """However long the run, and wherever it begins."""
    if name == "zstd" and length < 2304:
        pytest.skip("noise is kept as it is, and so may be some zeros in it")
    path = GAPS[name](tmp_path / "a")
    data = path.read_bytes()
    said = []
    for share in (0.28, 0.32, 0.36):
        begin = int(len(data) * share)
        if set(data[begin : begin + length]) == {0}:
            continue
        path.write_bytes(data)
        said.append(looked(zeroed(path, begin, min(length, len(data) - begin - 600))))
    packed = [one for one in said if one.lacks is not None]
    assert len(packed) >= len(said) - 1, said
    assert all("only zeros" in str(one.lacks) for one in packed)


def test_the_first_bytes_of_every_tile_are_looked_at(tmp_path: Path) -> None:
    """A few bytes are enough for OpenSlide to refuse a tile, of any level, and too few for a run."""
    made = builders.pyramidal_tiff(tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tiles = [at for page in tiff.pages for at in page.aspage().dataoffsets if at]
    for at in tiles[::5]:
        for junk, said in ((bytes(8), "lacks"), (b"\1" * 8, "damaged")):
            path = tmp_path / "b.tif"
            path.write_bytes(made[:at] + junk + made[at + 8 :])
            found = looked(path)
            assert f"the bytes at {at:,}" in str(getattr(found, said)), at
            watch = arrival.of_native(str(path))
            watch.look()
            assert watch.verdict() == found


def test_a_label_that_was_taken_out_is_no_gap(tmp_path: Path) -> None:
    """Its directory is kept, its strips are zeros, in the middle of the file."""
    path = tmp_path / "a.svs"
    about = {"description": "Aperio Image Library\r\nAppMag = 20|MPP = 0.5", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            picture(1024, 768), tile=(256, 256), compression="jpeg", photometric="rgb", **about
        )
        label = {**about, "description": "Aperio Image Library\r\nlabel 300x300"}
        tiff.write(NOISE[:300, :300], rowsperstrip=300, compression="lzw", photometric="rgb",
                   subfiletype=1, **label)  # fmt: skip
        macro = {**about, "description": "Aperio Image Library\r\nmacro 500x200"}
        tiff.write(NOISE[:200, :500], rowsperstrip=200, compression="jpeg", photometric="rgb",
                   subfiletype=9, **macro)  # fmt: skip
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[1].aspage()
        zeroed(path, page.dataoffsets[0], page.databytecounts[0])
        last = tiff.pages[2].aspage()
    with path.open("rb") as file:
        assert whole.missing(file.fileno(), path.stat().st_size) is None
    found = looked(path)
    assert (found.lacks, found.blank) == (None, ("label",))
    # Half of it, or the end of the file: that is a copy that was cut.
    zeroed(path, last.dataoffsets[0] + 20, last.databytecounts[0] // 2)
    assert looked(path).lacks


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 1500)), max_size=20), st.integers(1, 4000))
def test_every_run_is_found_in_any_chunks(parts: list[tuple[bool, int]], chunk: int) -> None:
    """The same as a look at the whole."""
    data = b"".join(bytes([not zero]) * length for zero, length in parts)
    runs = ZeroRuns()
    for at in range(0, len(data), chunk):
        runs.feed(data[at : at + chunk])
    found = [(gap.begin, gap.end) for gap in runs.end()]
    assert found == [one.span() for one in re.finditer(rb"\0{%d,}" % LEAST_BYTES, data)]


def _lacking(data: bytes) -> str | None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return whole.missing(file.fileno(), len(data))


@pytest.mark.parametrize("make", [others.bmp, others.pgm, others.ppm, builders.planar_tiff])
def test_zeros_to_the_end_of_plain_pixels(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """They begin in the middle of a row, under a row that is bright: no honest picture does that."""
    path = make(tmp_path / "a")
    data = path.read_bytes()
    seen = 0
    shares = [number / 41 for number in range(8, 40)]
    for share in shares:
        keep = int(len(data) * share)
        seen += _lacking(data[:keep] + bytes(len(data) - keep)) is not None
    # At the first or last pixels of a row, and under a black one, nothing tells it.
    assert seen >= 0.6 * len(shares)
    # A black edge, straight or a step of one row, is honest where the row before is black there too.
    row = 403 * 3
    head = b"P6 403 300 255\n"
    assert _lacking(head + b"\x80" * row * 200 + bytes(row * 100)) is None
    stepped = (b"\x80" * 600 + bytes(row - 600)) * 3
    assert _lacking(head + b"\x80" * row * 197 + stepped + bytes(row * 100)) is None


def _promise(text: str, software: str = "") -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        with tifffile.TiffWriter(path, bigtiff=True) as tiff:
            for level in range(2):
                tiff.write(
                    picture(512, 512)[:: 2**level, :: 2**level], tile=(128, 128), photometric="rgb",
                    metadata=None, description=text if level == 0 else None,
                    software=software or False,
                )  # fmt: skip
        with path.open("rb") as file:
            return announced.lacking(Tiff(file.fileno(), path.stat().st_size))


def test_levels_that_are_announced_are_waited_for() -> None:
    """By Leica, Philips and OME, each in its own way; what lies in another file is none of these."""
    scn = '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">{}</scn>'
    rows = "".join(f'<dimension sizeX="9" r="{n}" ifd="{n}"/>' for n in range(3))
    assert "announces 3, and has 2" in str(_promise(scn.format(rows)))
    assert _promise(scn.format(rows[: rows.index("<dim", 5)])) is None
    level = '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER">0</Attribute>'
    philips = '<DataObject ObjectType="DPUfsImport">{}</DataObject>'
    assert _promise(philips.format(level * 4), "Philips DP v1.0")
    assert _promise(philips.format(level * 2), "Philips DP v1.0") is None
    assert _promise(philips.format(level * 4)) is None
    ome = (
        '<OME><Image><Pixels><TiffData IFD="{}" PlaneCount="1">{}</TiffData></Pixels></Image></OME>'
    )
    assert _promise(ome.format(2, ""))
    assert _promise(ome.format(1, "")) is None
    assert _promise(ome.format(9, '<UUID FileName="b.tif">x</UUID>')) is None


def test_a_level_whose_place_is_reserved_is_waited_for(tmp_path: Path) -> None:
    """libtiff writes the list of SubIFDs first, as zeros."""
    data = bytearray(others.ome_pyramid(tmp_path / "a.tif").read_bytes())
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        tag = Tiff(file.fileno(), len(data)).directories[0].tags[330]
    data[tag.offset : tag.end] = bytes(tag.end - tag.offset)
    assert _lacking(bytes(data)) == "a level (its place is reserved and still empty)"


@pytest.mark.parametrize("make", [builders.jpeg, others.bmp, builders.aperio_svs, others.czi])
def test_a_hole_in_the_middle_is_waited_for(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """In any format: nobody ever wrote it. Behind all parts it harms nothing."""
    data = make(tmp_path / "a").read_bytes()
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        file.write(data[:4096])
        file.seek(8192)
        file.write(data[8192:])
        file.flush()
        said = whole.missing(file.fileno(), len(data))
        assert said
        assert "were never written" in said
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        file.write(data)
        file.truncate(len(data) + 1_000_000)
        file.flush()
        size = os.fstat(file.fileno()).st_size
        said = whole.missing(file.fileno(), size)
        # A CZI and a bitmap know their length; of a JPEG and a TIFF the end is what was read.
        assert said is None


def test_a_last_picture_may_be_taken_out_too(tmp_path: Path) -> None:
    """Zeros from exactly its beginning to the end of the file; from a block of the disk on it is a cut."""
    path = tmp_path / "a.svs"
    about = {"description": "Aperio Image Library\r\nAppMag = 20|MPP = 0.5", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            picture(1024, 768), tile=(256, 256), compression="jpeg", photometric="rgb", **about
        )
        macro = {**about, "description": "Aperio Image Library\r\nmacro 800x600"}
        tiff.write(NOISE, rowsperstrip=600, compression="jpeg", photometric="rgb", **macro)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[1].aspage()
        begin, length = page.dataoffsets[0], page.databytecounts[0]
    data = path.read_bytes()
    zeroed(path, begin, length)
    assert _lacking(path.read_bytes()) is None
    assert looked(path).blank == ("macro",)
    block = -(-begin // 4096) * 4096
    assert _lacking(data[:block] + bytes(len(data) - block))
