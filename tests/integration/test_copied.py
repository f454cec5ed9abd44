"""JPEG tiles of a source are in its pyramid as they were, byte for byte, and every reader sees the same."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import Image

from cytowatch.config import from_mapping
from cytowatch.config.keys import Convert
from cytowatch.formats.structure import jpeg
from cytowatch.pyramid.copied import Unlike
from cytowatch.pyramid.derive import _image
from cytowatch.pyramid.encode import writer
from cytowatch.pyramid.readers import pages
from cytowatch.pyramid.readers.ome import open_ome
from cytowatch.pyramid.virtual import VirtualTiff
from tests.builders import picture
from tests.builders.others import ome_jpeg as ome
from tests.lab.pictures import Pictures
from tests.lab.root import Root

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


def rewritten(
    path: Path, change: Callable[[bytes], bytes], *, stated: int | None = None, level: int = 0,
    alone: int | None = None,
) -> Path:  # fmt: skip
    """Every tile from `level` on changed, or the one numbered `alone` of that level; `stated` is tag 262."""
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        levels = tiff.series[0].levels[level:]
        for one in levels if alone is None else levels[:1]:
            page = one.pages[0].aspage()
            offsets, counts = list(page.dataoffsets), list(page.databytecounts)
            for number in range(len(offsets)) if alone is None else [alone]:
                data = change(stream(tiff, page, number))
                offsets[number], counts[number] = len(raw), len(data)
                raw += data
            page.tags[324].overwrite(offsets)
            page.tags[325].overwrite(counts)
            if stated is not None:
                page.tags[262].overwrite(stated)
    with path.open("r+b") as file:
        at = file.seek(0, 2)
        file.write(raw[at:])
    return path


JFIF = b"\xff\xe0\0\x10JFIF\0\1\2\0\0\1\0\1\0\0"
ADOBE_RGB = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"


def without_marks(data: bytes) -> bytes:
    """A stream that says nothing of its colours."""
    kept = [data[at:end] for marker, at, end in jpeg.segments(data) if marker not in (0xE0, 0xEE)]
    last = max(end for _, _, end in jpeg.segments(data))
    return b"\xff\xd8" + b"".join(kept) + data[last:]


def marked(*marks: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:2] + b"".join(marks) + without_marks(data)[2:]


def named_rgb(data: bytes) -> bytes:
    """Its components are called R, G and B."""
    made = bytearray(without_marks(data))
    for marker, at, end in jpeg.segments(bytes(made)):
        if marker == 0xC0:
            made[at + 10 : end : 3] = b"RGB"
            scan = end
    scan = made.index(b"\xff\xda", scan)
    made[scan + 5 : scan + 11 : 2] = b"RGB"
    return bytes(made)


def states_rgb(path: Path) -> Path:
    """YCbCr in JFIF of which the directory says that it is RGB, as Bio-Formats wrote it for years."""
    return rewritten(ome(path), marked(JFIF), stated=2)


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
    "RGB with tables": (lambda path: by_libvips(path, 90), 4),
    "YCbCr with tables": (lambda path: by_libvips(path, 75), 4),
    "JFIF that is said to be RGB": (states_rgb, 3),
    "only a level": (lambda path: ome(path, subs=0), 1),
    "by fours": (lambda path: ome(path, subs=1, step=4), 2),
    "a step too large": (lambda path: ome(path, subs=1, step=8), 1),
    "of another shape": (lambda path: ome(path, subs=1, squeeze=2), 1),
    "a lower one that nobody can read": (lower_of_an_unknown_kind, 1),
    "one tile": (lambda path: ome(path, width=120, height=90, subs=0), 1),
}


@pytest.mark.parametrize("name", SOURCES)
def test_tiles_are_copied(pictures: Pictures, tmp_path: Path, name: str) -> None:
    """The same bytes, the same pixels by three readers, and the levels below them made of the last."""
    make, levels = SOURCES[name]
    source = make(tmp_path / "slide.ome.tif")
    pictures.drop(source)
    assert pictures.treated() == 0, pictures.said()
    [document] = pictures.manifests().values()
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


def one_unlike(path: Path) -> Path:
    """The last tile of the first level is of another kind of JPEG, as large and as readable."""
    pixels = np.full((128, 128, 3), 200, np.uint8)
    other = bytes(imagecodecs.jpeg8_encode(pixels, level=90, subsampling="444"))
    return rewritten(ome(path), lambda _data: other, alone=47)


def one_missing(path: Path) -> Path:
    """It is left out, as a writer may whose tile is empty."""
    ome(path)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        page.tags[324].overwrite([*page.dataoffsets[:-1], 0])
        page.tags[325].overwrite([*page.databytecounts[:-1], 0])
    return path


def one_for_all(path: Path) -> Path:
    """Every place is that of the same, padded tile: a pyramid of them would be as large as they are many."""
    padding = b"\xff\xfe\xff\xff" + bytes(65533)
    data = b""

    def first(found: bytes) -> bytes:
        nonlocal data
        data = data or found[:2] + padding + found[2:]
        return data

    rewritten(ome(path, width=3000, height=2000, subs=0), first)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        page.tags[324].overwrite([page.dataoffsets[0]] * len(page.dataoffsets))
    os.truncate(path, page.dataoffsets[0] + len(data))
    return path


#: Colours that are stated in two ways that are against each other, or in one that viewers do not see.
DOUBTFUL: list[Callable[[Path], Path]] = [
    lambda path: rewritten(ome(path), marked(JFIF, ADOBE_RGB), stated=6),
    lambda path: rewritten(by_libvips(path, 90), marked(ADOBE_RGB, JFIF)),
    lambda path: rewritten(ome(path), named_rgb, stated=6),
    lambda path: rewritten(by_libvips(path, 90), marked(JFIF, ADOBE_RGB), stated=2),
]


def check_all_is_encoded(source: Path, document: dict[str, Any]) -> None:
    assert not [line for line in document["warnings"] if "own JPEG tiles" in line]
    assert document["conversion"]["tile"] == 256
    with tifffile.TiffFile(source) as before:
        wanted = before.pages[0].asarray().astype(int)
    with tifffile.TiffFile(document["_path"] / document["images"][0]["file"]) as after:
        shown = [page.asarray().astype(int) for page in after.pages]
    assert np.abs(shown[0] - wanted).mean() < 2
    for one in shown:
        assert np.abs(one.mean((0, 1)) - wanted.mean((0, 1))).max() < 4


@pytest.mark.parametrize("make", [
    one_unlike, one_missing, lambda path: ome(path, samples=1, photometric="minisblack"),
    lambda path: ome(path, width=300, height=200, tile=1024, subs=0),
    lambda path: ome(path, tile=32), one_for_all, *DOUBTFUL,
])  # fmt: skip
def test_all_is_encoded_where_tiles_cannot_be_copied(
    pictures: Pictures, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """A tile of another kind or left out, or sizes or colours that cannot be trusted."""
    source = make(tmp_path / "slide.ome.tif")
    pictures.drop(source)
    assert pictures.treated() == 0, pictures.said()
    [document] = pictures.manifests().values()
    check_all_is_encoded(source, document)


@pytest.mark.parametrize("more", ["copy_tiles = false", 'compression = "lossless"'])
def test_all_is_encoded_if_the_configuration_says_so(root: Root, tmp_path: Path, more: str) -> None:
    """Although the tiles could be copied."""
    root.configure(more=f"[convert]\n{more}")
    source = ome(tmp_path / "slide.ome.tif")
    root.drop(source)
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    [document] = root.manifests().values()
    check_all_is_encoded(source, document)
    root.assert_clean()


def test_a_damaged_tile_is_no_pyramid(pictures: Pictures, tmp_path: Path) -> None:
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
    pictures.drop(source)
    assert pictures.treated() == 1
    [document] = pictures.manifests().values()
    assert document["error"]["reason"] == "damaged"
    assert source.read_bytes() == next((document["_path"] / "source").iterdir()).read_bytes()


def _cut(data: bytes) -> bytes:
    """The last third of it is gone, and its end marker is there."""
    return data[: 2 * len(data) // 3] + b"\xff\xd9"


def test_a_lower_level_that_viewers_refuse_is_made_anew(pictures: Pictures, tmp_path: Path) -> None:
    """libjpeg itself only warns of it. What is above it is copied all the same; OpenSlide reads all."""
    source = rewritten(ome(tmp_path / "slide.ome.tif"), _cut, level=1, alone=5)
    pictures.drop(source)
    assert pictures.treated() == 0, pictures.said()
    [document] = pictures.manifests().values()
    [told] = [line for line in document["warnings"] if "own JPEG tiles" in line]
    assert "the first level is" in told
    with openslide.OpenSlide(document["_path"] / document["images"][0]["file"]) as slide:
        for number, size in enumerate(slide.level_dimensions):
            slide.read_region((0, 0), number, size)


def test_a_tile_that_ends_early_is_damage(pictures: Pictures, tmp_path: Path) -> None:
    """As it is in any other TIFF: what is lost is not shown as grey."""
    source = rewritten(ome(tmp_path / "slide.ome.tif"), _cut, alone=5)
    pictures.drop(source)
    assert pictures.treated() == 1
    [document] = pictures.manifests().values()
    assert document["error"]["reason"] == "damaged"
    assert "premature end" in document["error"]["detail"]


@pytest.mark.parametrize("tile", [512, 1024])
def test_a_small_image_with_large_tiles(root: Root, tmp_path: Path, tile: int) -> None:
    """libvips opens no tile that is much larger than its image, so it gets smaller ones."""
    for compression in ("jpeg", "lossless"):
        root.configure(more=f'[convert]\ntile = {tile}\ncompression = "{compression}"')
        Image.fromarray(picture(70, 60)).save(tmp_path / f"{compression}.png")
        root.drop(tmp_path / f"{compression}.png")
        assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    for document in root.manifests().values():
        path = document["_path"] / document["images"][0]["file"]
        assert pyvips.Image.tiffload(str(path)).width == 70
        assert document["conversion"]["tile"] == 256


def test_of_several_images_each_is_told(pictures: Pictures, tmp_path: Path) -> None:
    """One is copied, the other is not: the manifest says which, and no quality that only holds for one."""
    pixels = picture(700, 500)
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "ycbcr", "compression": "jpeg"}
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as tiff:
        tiff.write(pixels, metadata={"axes": "YXS", "Name": "first"}, **options)
        plain = {"photometric": "rgb", "compression": "zlib", "tile": (128, 128)}
        tiff.write(pixels, metadata={"axes": "YXS", "Name": "second"}, **plain)
    pictures.drop(tmp_path / "two.ome.tif")
    assert pictures.treated() == 0, pictures.said()
    [document] = pictures.manifests().values()
    [told] = [line for line in document["warnings"] if "own JPEG tiles" in line]
    assert told.startswith("the first level of first is")
    assert document["conversion"]["quality"] is None
    assert [image["levels"][0]["tile_width"] for image in document["images"]] == [128, 256]


@pytest.mark.parametrize("levels", [2, 4])
def test_progress_is_told_while_tiles_are_copied(tmp_path: Path, levels: int) -> None:
    """From little to all of it, also where nothing is left to be made."""
    opened = open_ome(
        str(ome(tmp_path / "a.ome.tif", width=2100, height=1500, subs=levels - 1)), from_mapping({})
    )
    copied = opened.scenes[0].copied()
    assert len(copied) == levels
    image = pyvips.Image.black(2100, 1500, bands=3).copy(interpretation="srgb")
    told: list[float] = []
    feed = VirtualTiff(copied[-1])
    path = str(tmp_path / "a.tiff")
    writer.write_pyramid(image, path, Convert(), None, told.append, bands=feed.bands, copied=copied)
    feed.close()
    opened.close()
    assert told == sorted(told)
    assert told[0] < 0.3
    assert told[-1] == pytest.approx(1)
    assert len(told) > 5


@pytest.mark.parametrize(("fault", "raised"), [(errno.EIO, OSError), (errno.EINVAL, Unlike)])
def test_a_fault_of_the_machine_is_none_of_the_file(
    tmp_path: Path, fault: int, raised: type[Exception]
) -> None:
    """What may pass is raised as it is, and the stage is tried again; nothing is encoded for it."""
    opened = open_ome(str(ome(tmp_path / "a.ome.tif")), from_mapping({}))

    def stream(_number: int) -> bytes:
        raise OSError(fault, os.strerror(fault))

    level = replace(opened.scenes[0].copied()[0], stream=stream)
    with pytest.raises(raised):
        level.checked(0)
    with pytest.raises(raised):
        level.rows(0, 10)
    opened.close()


@pytest.mark.parametrize("copy_tiles", [True, False])
def test_a_share_that_goes_stale_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy_tiles: bool
) -> None:
    """Wherever in the file it does: no slide is called damaged for it."""
    ome(tmp_path / "a.ome.tif")
    for until in (0, 3, 30):
        left = iter(range(until))
        real = pages.Page._data

        def data(page: Any, index: int, left: Any = left, real: Any = real) -> bytes:
            if next(left, None) is None:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return bytes(real(page, index))

        monkeypatch.setattr(pages.Page, "_data", data)
        opened = open_ome(str(tmp_path / "a.ome.tif"), from_mapping({}))
        [scene] = opened.scenes
        with pytest.raises(OSError, match="Stale"):
            copied = scene.copied() if copy_tiles else ()
            with _image(scene, copied) as (image, feed):
                writer.write_pyramid(
                    image, str(tmp_path / "a.tiff"), Convert(), None, lambda _: None,
                    bands=feed.bands, copied=copied,
                )  # fmt: skip
        opened.close()
        monkeypatch.undo()


def test_a_file_of_many_images_is_one_descriptor(tmp_path: Path) -> None:
    """A child may have a thousand of them open."""
    with tifffile.TiffWriter(tmp_path / "many.ome.tif", ome=True) as tiff:
        for _ in range(40):
            tiff.write(picture(160, 140), tile=(128, 128), compression="jpeg", photometric="ycbcr")
    before = len(os.listdir("/proc/self/fd"))
    opened = open_ome(str(tmp_path / "many.ome.tif"), from_mapping({}))
    assert len(opened.scenes) == 40
    assert all(len(scene.copied()) == 1 for scene in opened.scenes)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    opened.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_jpeg_says_of_itself() -> None:
    """Kinds that are not copied have no head; what is not a JPEG is said to be none."""
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
