"""What a decoder only warns of: pixels that are lost are reported, and all others are shown as they are."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image, ImageCms

from cytowatch.config import from_mapping
from cytowatch.formats.structure import jpeg
from cytowatch.pyramid import complaints
from cytowatch.pyramid.readers.pages import open_page
from cytowatch.record.errors import ConversionError
from tests.builders import picture
from tests.lab.pictures import Pictures

PIXELS = picture(300, 200)
LARGE = picture(512, 512)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TURNED = np.rot90(PIXELS, -1)
#: A warning of libtiff: the text has no final zero.
UNENDED = (270, 2, 4, b"text", True)


def _jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 95, "subsampling": 0, **options})
    return stream.getvalue()


def _with_stray_bytes(stream: bytes) -> bytes:
    """Before its first table, where they harm nothing."""
    at = stream.index(b"\xff\xdb")
    return stream[:at] + bytes(6) + stream[at:]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _cut_and_ended(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


def _zeros(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes(len(data) - half - 2) + data[-2:]


def _zeros_to_the_end(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes(len(data) - half)


def _without_end(data: bytes) -> bytes:
    return data[:-2]


def _rewritten(path: Path, change: Callable[[bytes], bytes], number: int | None) -> None:
    """Segment `number` of the first page changed, or all of them."""
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        offsets, counts = list(page.dataoffsets), list(page.databytecounts)
        for index in range(len(offsets)) if number is None else [number]:
            data = change(bytes(raw[offsets[index] : offsets[index] + counts[index]]))
            offsets[index], counts[index] = len(raw), len(data)
            raw += data
        page.tags[324 if page.is_tiled else 273].overwrite(offsets)
        page.tags[325 if page.is_tiled else 279].overwrite(counts)
    with path.open("r+b") as file:
        at = file.seek(0, 2)
        # What ends with the file would be waited for.
        file.write(raw[at:] + b"\xff" * 64)


KINDS: dict[str, dict[str, object]] = {
    "tiles.tif": {"tile": (128, 128), "metadata": None},
    "strips.tif": {"rowsperstrip": 128, "metadata": None},
    "tiles.ome.tif": {"tile": (128, 128), "ome": True, "metadata": {"axes": "YXS"}},
}


def _written(path: Path, kind: str, pixels: np.ndarray) -> Path:
    options = dict(KINDS[kind])
    if pixels.ndim == 2 and "ome" in options:
        options["metadata"] = {"axes": "YX"}
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, photometric=photometric, compression="jpeg", compressionargs={"level": 95}, **options)  # fmt: skip
    return path


def test_what_is_lost_of_a_jpeg_in_a_tiff_is_damage(pictures: Pictures) -> None:
    """libjpeg only warns of it, and shows grey: in tiles and strips, of colours and of grey only."""
    inbox = pictures.inbox
    for kind in KINDS:
        for pixels, colours in ((LARGE, "rgb"), (LARGE[:, :, 1], "grey")):
            for change in (_cut, _cut_and_ended, _zeros, _zeros_to_the_end):
                path = inbox / f"{colours}{change.__name__}.{kind}"
                _rewritten(_written(path, kind, pixels), change, 1)
    assert pictures.treated() == 1
    found = pictures.by_name()
    assert len(found) == 24
    for name, document in found.items():
        assert document["error"], name
        # Zeros in the middle of a scan never came; a part that is short of them is damage.
        wanted = (
            ("incomplete", "only zeros") if "zeros" in name else ("damaged", "Corrupt JPEG data")
        )
        assert document["error"]["reason"] == wanted[0], name
        assert wanted[1] in document["error"]["detail"], name


def test_an_end_marker_alone_is_no_loss(pictures: Pictures) -> None:
    """Anyone who leaves it out has written all pixels; and what is whole is shown without a word."""
    inbox = pictures.inbox
    for kind in KINDS:
        _written(inbox / f"whole.{kind}", kind, LARGE)
        _rewritten(_written(inbox / f"open.{kind}", kind, LARGE), _without_end, None)
    assert pictures.treated() == 0
    for name, document in pictures.by_name().items():
        assert np.abs(_shown(document) - LARGE.astype(float)).mean() < 2, name
        assert name.startswith("open") or "libvips" not in str(document["warnings"]), name


def test_a_lost_restart_interval_is_damage(pictures: Pictures) -> None:
    """What is after it would be shown in a wrong place."""
    stream = _jpeg(Image.fromarray(PIXELS), restart_marker_blocks=4)
    marks = [at for at in range(len(stream) - 1) if stream[at] == 255 and 0xD0 <= stream[at + 1] < 0xD8]  # fmt: skip
    inbox = pictures.inbox
    (inbox / "a.jpg").write_bytes(stream[: marks[10]] + stream[marks[12] :])
    assert pictures.treated() == 1
    [document] = pictures.manifests().values()
    assert document["error"]["reason"] == "damaged"
    assert "RST" in document["error"]["detail"]


def _shown(document: dict) -> np.ndarray:  # type: ignore[type-arg]
    [image] = document["images"]
    with openslide.OpenSlide(document["_path"] / image["file"]) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def _tiff(path: Path, turn: int, pixels: np.ndarray = PIXELS, **options: object) -> None:
    tags = [(274, 3, 1, turn, True), *([UNENDED] if options.pop("unended", False) else [])]
    options = {"photometric": "rgb", "metadata": None, **options}
    tifffile.imwrite(path, pixels, extratags=tags, **options)  # type: ignore[arg-type]


def test_the_second_reader_turns_it_as_the_first_does(pictures: Pictures) -> None:
    """Axes and pixel size go along; tiles of what is turned are not copied."""
    inbox = pictures.inbox
    size = {"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}
    _tiff(inbox / "zstd.tif", 6, compression="zstd", **size)
    planes = np.moveaxis(PIXELS, -1, 0)
    _tiff(inbox / "planes.tif", 6, planes, planarconfig="separate", tile=(64, 64))
    about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    _tiff(inbox / "plain.ome.tif", 6, ome=True, metadata=about)
    _tiff(inbox / "tiles.ome.tif", 6, ome=True, metadata=about, tile=(128, 128), compression="jpeg", compressionargs={"level": 95})  # fmt: skip
    exif = Image.Exif()
    exif[274] = 6
    stream = _jpeg(Image.fromarray(PIXELS), exif=exif.tobytes(), icc_profile=PROFILE)
    (inbox / "exif.jpg").write_bytes(_with_stray_bytes(stream))
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    assert len(found) == 5
    for name, document in found.items():
        shown = _shown(document)
        assert shown.shape == TURNED.shape, name
        assert np.abs(shown - TURNED.astype(float)).mean() < 3, name
        assert any("turned upright" in line for line in document["warnings"]), name
    for name in ("zstd.tif", "plain.ome.tif", "tiles.ome.tif"):
        [image] = found[name]["images"]
        assert (image["mpp_x"], image["mpp_y"]) == pytest.approx((0.5, 0.25)), name
    [image] = found["exif.jpg"]["images"]
    assert image["icc_profile"]


def test_a_jpeg_xr_that_is_cut_short(tmp_path: Path) -> None:
    """Its decoder shows what it has, and says nothing."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, LARGE, photometric="rgb", compression="jpegxr", tile=(128, 128))
    opened = open_page(str(path), from_mapping({}))
    assert np.abs(opened.scenes[0].region.rows(0, 512) - LARGE.astype(float)).mean() < 3
    opened.close()
    _rewritten(path, lambda data: data[: 9 * len(data) // 10], 5)
    opened = open_page(str(path), from_mapping({}))
    with pytest.raises(ConversionError, match="tile or strip 5 is cut short"):
        opened.scenes[0].region.rows(0, 512)
    opened.close()


def _places(path: Path, number: int | None, *, offset: int | None = None, count: int) -> None:
    """State another place of a segment of the first page, or of all."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        offsets, counts = list(page.dataoffsets), list(page.databytecounts)
        for index in range(len(offsets)) if number is None else [number]:
            counts[index] = count
            if offset is not None:
                offsets[index] = offset
        page.tags[324 if page.is_tiled else 273].overwrite(offsets)
        page.tags[325 if page.is_tiled else 279].overwrite(counts)


def test_a_strip_or_tile_that_is_not_there(pictures: Pictures) -> None:
    """It is never shown as black without a word, and never as other bytes of the file."""
    inbox = pictures.inbox
    plain = {"photometric": "rgb", "metadata": None}
    for name, options in (("tiles", {"tile": (128, 128)}), ("strips", {"rowsperstrip": 128})):
        for compression in ("none", "zlib"):
            for wrong, places in (("place", {"offset": 0, "count": 9}), ("length", {"count": 0})):
                path = inbox / f"{wrong} of {name} {compression}.tif"
                tifffile.imwrite(path, LARGE, compression=compression, **plain, **options)
                _places(path, 2, **places)
    tifffile.imwrite(inbox / "empty.tif", LARGE, tile=(128, 128), **plain)
    _places(inbox / "empty.tif", None, offset=0, count=0)
    tifffile.imwrite(inbox / "strip.tif", LARGE, rowsperstrip=128, **plain)
    _places(inbox / "strip.tif", 1, offset=0, count=0)
    about = {"axes": "YXS"}
    for name, more in (("left out.tif", {}), ("left out.ome.tif", {"ome": True, "metadata": about})):  # fmt: skip
        tifffile.imwrite(inbox / name, LARGE, tile=(128, 128), **{**plain, **more})
        _places(inbox / name, 2, offset=0, count=0)
    assert pictures.treated() == 1
    found = pictures.by_name()
    assert len(found) == 12
    for name, document in found.items():
        if not name.startswith("left out"):
            assert document["error"]["reason"] == "damaged", name
            assert "not stated" in document["error"]["detail"] or name == "empty.tif", name
            continue
        assert any("empty: 1 of 16" in line for line in document["warnings"]), name
        shown, there = _shown(document), LARGE.copy()
        there[:128, 256:384] = 0
        assert np.abs(shown - there.astype(float)).mean() < 2, name


def test_what_is_left_out_of_ycbcr_is_black(tmp_path: Path) -> None:
    """And no green, which zeros of its chroma would be."""
    path = tmp_path / "a.tif"
    ycbcr = np.asarray(Image.fromarray(LARGE).convert("YCbCr"))
    tifffile.imwrite(path, ycbcr, photometric="ycbcr", subsampling=(1, 1), tile=(128, 128), compression="zlib", metadata=None)  # fmt: skip
    _places(path, 2, offset=0, count=0)
    opened = open_page(str(path), from_mapping({}))
    assert opened.scenes[0].region.rows(0, 128)[:, 256:384].max() == 0
    opened.close()


@pytest.mark.parametrize("compression", ["none", "zlib", "lzw"])
def test_lengths_that_are_not_stated_at_all(tmp_path: Path, compression: str) -> None:
    """Old writers did not; the strips are read as libtiff reads them, up to the next one."""
    path = tmp_path / "a.tif"
    for rows in (128, 512):
        tifffile.imwrite(path, LARGE, photometric="rgb", compression=compression, rowsperstrip=rows, metadata=None)  # fmt: skip
        _places(path, None, count=0)
        opened = open_page(str(path), from_mapping({}))
        assert np.array_equal(opened.scenes[0].region.rows(0, 512), LARGE)
        opened.close()
    planes = np.moveaxis(LARGE, -1, 0)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression=compression, rowsperstrip=128, metadata=None)  # fmt: skip
    _places(path, None, count=0)
    opened = open_page(str(path), from_mapping({}))
    assert np.array_equal(opened.scenes[0].region.rows(0, 512), LARGE)
    opened.close()


def test_a_reduced_page_is_not_the_image(pictures: Pictures) -> None:
    """What calls itself a reduced image is passed over, by both readers, and so is a mask."""
    inbox = pictures.inbox
    size = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    mask = {"photometric": "minisblack", "subfiletype": 4, "metadata": None}
    for compression in ("none", "zstd"):
        options = {"photometric": "rgb", "metadata": None, "compression": compression}
        with tifffile.TiffWriter(inbox / f"small {compression}.tif") as tiff:
            tiff.write(LARGE[::8, ::8].copy(), subfiletype=1, **options)
            tiff.write(LARGE, **options, **size)
        with tifffile.TiffWriter(inbox / f"mask {compression}.tif") as tiff:
            tiff.write(LARGE[:, :, 0] > 128, **mask)
            tiff.write(LARGE, **options, **size)
        tifffile.imwrite(inbox / f"pages {compression}.tif", np.stack([LARGE, 255 - LARGE]), **options)  # fmt: skip
    assert pictures.treated() == 0
    for name, document in pictures.by_name().items():
        assert np.abs(_shown(document) - LARGE.astype(float)).mean() < 2, name
        [told] = [line for line in document["warnings"] if "2 pages" in line]
        assert ("page 2" in told) != name.startswith("pages"), name
        assert document["images"][0]["mpp_x"] == (None if name.startswith("pages") else 0.25), name


def test_inks_in_spite_of_a_warning(pictures: Pictures) -> None:
    """As those of the same JPEG without one."""
    stream = _jpeg(Image.fromarray(PIXELS).convert("CMYK"))
    inbox = pictures.inbox
    (inbox / "a.jpg").write_bytes(stream)
    (inbox / "b.jpg").write_bytes(_with_stray_bytes(stream))
    assert pictures.treated() == 0
    found = pictures.by_name()
    assert np.array_equal(_shown(found["a.jpg"]), _shown(found["b.jpg"]))
    [told, colours] = found["b.jpg"]["warnings"]
    assert "and read the whole image" in told
    assert "CMYK" in colours


def _of_a_later_jfif(stream: bytes) -> bytes:
    return stream.replace(b"JFIF\0\1", b"JFIF\0\2", 1)


def _with_progressive_numbers(stream: bytes) -> bytes:
    """In the head of its one scan, as some telephones write them."""
    [length] = struct.unpack_from(">H", stream, (at := stream.index(b"\xff\xda")) + 2)
    return stream[: at + length - 1] + bytes(3) + stream[at + 2 + length :]


@pytest.mark.parametrize(
    "odd",
    [_with_stray_bytes, _of_a_later_jfif, _with_progressive_numbers],
    ids=lambda odd: odd.__name__,
)
def test_what_is_lost_behind_something_harmless(
    pictures: Pictures, odd: Callable[[bytes], bytes]
) -> None:
    """libjpeg complains of the first thing only, and of the pixels that it loses later it says nothing."""
    stream = odd(_jpeg(Image.fromarray(LARGE)))
    half = len(stream) // 2
    (pictures.inbox / "whole.jpg").write_bytes(stream)
    (pictures.inbox / "lost.jpg").write_bytes(stream[:half] + stream[half + 5000 :])
    assert pictures.treated() == 1
    found = pictures.by_name()
    assert "and read the whole image" in found["whole.jpg"]["warnings"][0]
    assert np.abs(_shown(found["whole.jpg"]) - LARGE.astype(float)).mean() < 3
    assert found["lost.jpg"]["error"]["reason"] == "damaged"


def test_a_stream_with_its_tables() -> None:
    """The tables of the TIFF and the tile make one JPEG, whose loss is found."""
    whole = _jpeg(Image.fromarray(PIXELS))
    ends = [(mark, begin, end) for mark, begin, end in jpeg.segments(whole)]
    tables = (
        b"\xff\xd8" + b"".join(whole[b:e] for m, b, e in ends if m in jpeg.TABLES) + b"\xff\xd9"
    )
    rest = b"\xff\xd8" + b"".join(whole[b:e] for m, b, e in ends if m not in jpeg.TABLES) + whole[ends[-1][2] :]  # fmt: skip
    joined = jpeg.with_tables(rest, tables)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(joined))), np.asarray(Image.open(io.BytesIO(whole))))  # fmt: skip
    complaints.refuse_lost_of_jpeg(joined)
    with pytest.raises(ConversionError, match="premature end"):
        complaints.refuse_lost_of_jpeg(_cut(joined))


@pytest.mark.parametrize("height", [8, 9, 64, 65, 128])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_last_bytes_of_a_jpeg_are_needed(height: int, subsampling: int) -> None:
    """However few rows are in its last row of blocks."""
    for pixels in (LARGE[:height], LARGE[:height, :, 1]):
        stream = _jpeg(Image.fromarray(pixels), subsampling=subsampling)
        complaints.refuse_lost_of_jpeg(stream)
        for lost in (stream[:-4], stream[:-4] + stream[-2:]):
            with pytest.raises(ConversionError, match="premature end"):
                complaints.refuse_lost_of_jpeg(lost)


@pytest.mark.parametrize("side", [8, 16, 64, 72])
def test_a_flat_picture_that_ends_in_zeros_is_whole(side: int) -> None:
    """The commonest code is all zeros, and no padding need follow it."""
    for grey in (128, 200, 255):
        flat = _jpeg(Image.new("L", (side, side), grey), optimize=True, quality=75)
        complaints.refuse_lost_of_jpeg(flat)
        complaints.refuse_lost_of_jpeg(flat[:-2])
    whole = _jpeg(Image.fromarray(PIXELS))
    complaints.refuse_lost_of_jpeg(whole[:-2] + bytes(100) + whole[-2:])
