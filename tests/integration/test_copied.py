"""JPEG tiles of a source are in its pyramid as they were, byte for byte, and every reader sees the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import Image

from cytowatch.pyramid import jpeg
from tests.acceptance.conftest import Root, root
from tests.builders import picture
from tests.builders.others import ome_jpeg as ome

__all__ = ["root"]

OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
    'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{w}" SizeY="{h}" SizeC="3" SizeZ="1" '
    'SizeT="1" PhysicalSizeX="0.25" PhysicalSizeY="0.25"><Channel ID="Channel:0:0" '
    'SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
)


def by_libvips(path: Path, quality: int) -> Path:
    """The same by libvips, whose tiles have their tables in the directory; RGB from quality 90 on."""
    pixels = picture(1003, 700)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gstr_type, "image-description", OME.format(w=1003, h=700))
    image.tiffsave(
        str(path), tile=True, tile_width=128, tile_height=128, pyramid=True, subifd=True,
        compression="jpeg", Q=quality,
    )  # fmt: skip
    return path


def states_rgb(path: Path) -> Path:
    """YCbCr in JFIF of which the directory says that it is RGB, as Bio-Formats wrote it for years."""
    ome(path)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for level in tiff.series[0].levels:
            level.pages[0].aspage().tags[262].overwrite(2)
        assert tiff.pages[0].is_tiled
        head = stream(tiff, tiff.pages[0], 0)
    found = jpeg.head(head)
    if found is None or not found.jfif:
        # tifffile writes no JFIF marker: every tile gets one.
        raw = bytearray(path.read_bytes())
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            for level in tiff.series[0].levels:
                page = level.pages[0].aspage()
                places = []
                for number in range(len(page.dataoffsets)):
                    data = stream(tiff, page, number)
                    marked = data[:2] + b"\xff\xe0\0\x10JFIF\0\1\2\0\0\1\0\1\0\0" + data[2:]
                    places.append((len(raw), len(marked)))
                    raw += marked
                page.tags[324].overwrite([at for at, _ in places])
                page.tags[325].overwrite([count for _, count in places])
        with path.open("r+b") as file:
            file.seek(0, 2)
            file.write(raw[file.tell() :])
    return path


def stream(tiff: Any, page: Any, number: int) -> bytes:
    tiff.filehandle.seek(page.dataoffsets[number])
    return bytes(tiff.filehandle.read(page.databytecounts[number]))


def lower_of_an_unknown_kind(path: Path) -> Path:
    """A SubIFD that says nonsense of its colours: nobody needs it."""
    ome(path)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.series[0].levels[1].pages[0].aspage().tags[262].overwrite(32803)
    return path


SOURCES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "4:2:0": (ome, 3),
    "grey": (lambda path: ome(path, samples=1, photometric="minisblack"), 3),
    "RGB with tables": (lambda path: by_libvips(path, 90), 4),
    "YCbCr with tables": (lambda path: by_libvips(path, 75), 4),
    "JFIF that is said to be RGB": (states_rgb, 3),
    "a level alone": (lambda path: ome(path, subs=0), 1),
    "by fours": (lambda path: ome(path, subs=1, step=4), 2),
    "a step too large": (lambda path: ome(path, subs=1, step=8), 1),
    "of another shape": (lambda path: ome(path, subs=1, squeeze=2), 1),
    "a lower one that nobody can read": (lower_of_an_unknown_kind, 1),
    "one tile": (lambda path: ome(path, width=120, height=90, subs=0), 1),
}


@pytest.mark.parametrize("name", SOURCES)
def test_tiles_are_copied(root: Root, tmp_path: Path, name: str) -> None:
    """The same bytes, the same pixels by three readers, and the levels below them made of the last."""
    make, levels = SOURCES[name]
    source = make(tmp_path / "slide.ome.tif")
    root.drop(source)
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    [document] = root.manifests().values()
    pyramid = document["_path"] / document["images"][0]["file"]
    with tifffile.TiffFile(source) as before, tifffile.TiffFile(pyramid) as after:
        wanted = before.series[0].levels
        for number in range(levels):
            old, new = wanted[number].pages[0].aspage(), after.pages[number]
            assert [stream(before, old, i) for i in range(len(old.dataoffsets))] == [
                stream(after, new, i) for i in range(len(new.dataoffsets))
            ]
            assert np.array_equal(old.asarray(), new.asarray())
        sizes = [(page.imagewidth, page.imagelength) for page in after.pages]
        shown = [page.asarray() for page in after.pages]
    assert max(sizes[-1]) <= 128
    assert all(one == (w // 2, h // 2) for one, (w, h) in zip(sizes[levels:], sizes[levels - 1 :], strict=False))  # fmt: skip
    for number in range(levels, len(shown)):
        above, (width, height) = shown[number - 1].astype(float), sizes[number]
        four = (above[y : 2 * height : 2, x : 2 * width : 2] for y in (0, 1) for x in (0, 1))
        assert np.abs(sum(four) / 4 - shown[number]).mean() < 1.5
    with openslide.OpenSlide(pyramid) as slide:
        assert slide.level_dimensions == tuple(sizes)
        for number, size in enumerate(sizes):
            seen = np.asarray(slide.read_region((0, 0), number, size).convert("RGB")).astype(int)
            one = shown[number] if shown[number].ndim == 3 else shown[number][:, :, None]
            assert np.abs(seen - one).max() <= 1
    for number, one in enumerate(shown):
        page = pyvips.Image.tiffload(str(pyramid), page=number, fail_on="warning").numpy()
        assert np.abs(page.reshape(one.shape).astype(int) - one).max() <= 1
    told = [line for line in document["warnings"] if "own JPEG tiles" in line]
    assert len(told) == 1
    assert document["conversion"]["quality"] is None
    assert document["conversion"]["tile"] == 128
    assert document["images"][0]["mpp_x"] == pytest.approx(0.25)
    root.assert_clean()


def one_unlike(path: Path) -> Path:
    """The last tile of the first level is of another kind of JPEG, as large and as readable."""
    ome(path)
    pixels = np.full((128, 128, 3), 200, np.uint8)
    other = imagecodecs.jpeg8_encode(pixels, level=90, subsampling="444")
    _replace_last(path, bytes(other))
    return path


def one_missing(path: Path) -> Path:
    ome(path)
    _replace_last(path, b"")
    return path


def _replace_last(path: Path, data: bytes) -> None:
    at = path.stat().st_size
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        offsets, counts = list(page.dataoffsets), list(page.databytecounts)
        page.tags[324].overwrite([*offsets[:-1], at if data else 0])
        page.tags[325].overwrite([*counts[:-1], len(data)])
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize(("make", "more"), [
    (one_unlike, ""), (one_missing, ""), (ome, "copy_tiles = false"),
    (ome, 'compression = "lossless"'), (lambda path: ome(path, tile=32), ""),
])  # fmt: skip
def test_all_is_encoded_where_tiles_cannot_be_copied(
    root: Root, tmp_path: Path, make: Callable[[Path], Path], more: str
) -> None:
    """One tile of another kind, one that is left out, tiles too small for a viewer; or who says so."""
    root.configure(more=f"[convert]\n{more}")
    source = make(tmp_path / "slide.ome.tif")
    root.drop(source)
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    [document] = root.manifests().values()
    assert not [line for line in document["warnings"] if "own JPEG tiles" in line]
    assert document["conversion"]["tile"] == 256
    with tifffile.TiffFile(source) as before:
        wanted = before.pages[0].asarray().astype(int)
    shown = tifffile.imread(document["_path"] / document["images"][0]["file"], key=0).astype(int)
    assert np.abs(shown - wanted).mean() < 2
    root.assert_clean()


def test_a_damaged_tile_is_no_pyramid(root: Root, tmp_path: Path) -> None:
    """Of a level that need not be decoded for anything else: it is decoded all the same."""
    source = ome(tmp_path / "slide.ome.tif")
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[0].aspage()
        at = page.dataoffsets[5]
        # Behind a head that is as it should be: tables that no decoder takes.
        tables = stream(tiff, page, 5).index(b"\xff\xc4")
    with source.open("r+b") as file:
        file.seek(at + tables + 5)
        file.write(b"\xff" * 16)
    root.drop(source)
    assert root.run_until_idle() == 1
    [document] = root.manifests().values()
    assert document["error"]["reason"] == "damaged"
    assert source.read_bytes() == next((document["_path"] / "source").iterdir()).read_bytes()


def test_what_a_jpeg_says_of_itself() -> None:
    """Kinds that are not copied have no head; what is no JPEG is said to be none."""
    pixels = picture(64, 48)
    plain = jpeg.head(bytes(imagecodecs.jpeg8_encode(pixels, level=90, subsampling="420")))
    assert plain is not None
    assert (plain.width, plain.height, plain.samples, plain.sampling) == (64, 48, 3, (2, 2))
    for options in ({"progressive": True}, {}):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", **options)
        assert (jpeg.head(buffer.getvalue()) is None) == bool(options)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(buffer, "JPEG")
    assert jpeg.head(buffer.getvalue()) is None
    for wrong in (b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\0\x03", b"II*\0", buffer.getvalue()[:200]):
        with pytest.raises(ValueError, match="JPEG"):
            jpeg.head(wrong)
