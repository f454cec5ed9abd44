"""JPEG tiles of another size than their TIFF states are shown where they belong, or refused."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from cytowatch.formats.completeness import arrival
from cytowatch.formats.structure.tiff import Tiff
from cytowatch.pyramid import tile_sizes
from tests.builders import aperio_svs, bare_tiff, picture, pyramidal_tiff, vendors
from tests.lab.pictures import Pictures

PIXELS = picture(700, 500)
_TILE = 128


def _tiles(pixels: np.ndarray, cut: str) -> Iterator[bytes]:
    """JPEGs of whole tiles, of those at the edge cut off there, or of each without its last rows or columns."""
    for top in range(0, pixels.shape[0], _TILE):
        for left in range(0, pixels.shape[1], _TILE):
            inside = pixels[top : top + _TILE, left : left + _TILE]
            missing = [(0, _TILE - inside.shape[0]), (0, _TILE - inside.shape[1]), (0, 0)]
            whole = np.pad(inside, missing, mode="edge")
            tile = {"none": whole, "edges": inside, "rows": whole[:120], "columns": whole[:, :112]}[
                cut
            ]
            stream = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(tile)).save(stream, "JPEG", quality=95)
            yield stream.getvalue()


def _write(
    path: Path, cut: str, *, levels: int, description: str | None = None, subifds: bool = False
) -> None:
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            pixels = np.ascontiguousarray(PIXELS[:: 2**level, :: 2**level])
            tiff.write(
                _tiles(pixels, cut), shape=pixels.shape, dtype=np.uint8, tile=(_TILE, _TILE), compression="jpeg",
                photometric="ycbcr", subsampling=(2, 2), subfiletype=int(level > 0), metadata=None,
                description=None if level else description, subifds=levels - 1 if subifds and not level else None,
            )  # fmt: skip


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYCZT" Type="uint8" SizeX="700" SizeY="500" SizeC="3" SizeZ="1" SizeT="1">'
    '<Channel ID="Channel:0" SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
)


SVS = "Aperio Image Library v1\r\n700x500 (128x128) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"


def test_tiles_that_are_cut_off_at_the_edge(pictures: Pictures) -> None:
    """A flat image, pyramids that OpenSlide would refuse at their edges, and an OME-TIFF whose tiles are copied."""
    for cut in ("none", "edges"):
        _write(pictures.inbox / f"flat {cut}.tif", cut, levels=1)
        _write(pictures.inbox / f"pyramid {cut}.tif", cut, levels=3)
        _write(pictures.inbox / f"{cut}.ome.tif", cut, levels=3, description=OME, subifds=True)
        _write(pictures.inbox / f"{cut}.svs", cut, levels=3, description=SVS)
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    assert len(found) == 8
    native = [name for name, one in found.items() if one["status"] == "DEPLOYED"]
    assert sorted(native) == ["none.svs", "pyramid none.tif"]
    assert any(
        "a pyramid is derived: it has JPEG tiles of other sizes" in said
        for said in found["edges.svs"]["warnings"]
    )
    for name, one in found.items():
        [image] = one["images"]
        with openslide.OpenSlide(one["_path"] / image["file"]) as slide:
            for level, size in enumerate(slide.level_dimensions):
                # No tile of it may be refused.
                slide.read_region((0, 0), level, size)
            shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        assert shown.shape == PIXELS.shape, name
        assert np.abs(shown.astype(int) - PIXELS).mean(axis=(1, 2)).max() < 5, name


def test_an_image_without_width_has_no_edges(tmp_path: Path) -> None:
    """It has tiles nevertheless, and another check refuses it."""
    path = bare_tiff(
        tmp_path / "a.tif", b"x" * 64, width=0, height=8, tag_258=(8,), tag_259=(7,), tag_322=(16,),
        tag_323=(16,), tag_324=(8, 8, 8), tag_325=(8, 8, 8),
    )  # fmt: skip
    with path.open("rb") as file:
        assert tile_sizes.at_edges(Tiff(file.fileno(), path.stat().st_size)) is None


@pytest.mark.parametrize("more", [0, 16])
def test_tiles_of_lerc_that_are_too_large(pictures: Pictures, more: int) -> None:
    """Their rows are longer than those of a tile: cut off somewhere, they would be shown askew."""
    pixels = np.ascontiguousarray(PIXELS[:256, :256])
    tiles = (
        imagecodecs.lerc_encode(np.pad(part, ((0, more), (0, more), (0, 0)), mode="edge"))
        for top in (0, _TILE)
        for left in (0, _TILE)
        for part in [np.ascontiguousarray(pixels[top : top + _TILE, left : left + _TILE])]
    )
    tifffile.imwrite(
        pictures.inbox / "a.tif", tiles, shape=pixels.shape, dtype=np.uint8, tile=(_TILE, _TILE),
        compression="lerc", photometric="rgb", metadata=None,
    )  # fmt: skip
    assert pictures.treated() == int(more > 0), pictures.said()
    [found] = pictures.manifests().values()
    assert (found["error"] or {}).get("reason") == ("damaged" if more else None)


def test_tiles_of_lerc_that_are_taller_than_the_image(pictures: Pictures) -> None:
    """They are as tall as they say, and what lies below the image is cut off."""
    pixels = np.ascontiguousarray(PIXELS[:100, :256])
    tifffile.imwrite(
        pictures.inbox / "a.tif", pixels, tile=(256, 128), compression="lerc", photometric="rgb", metadata=None,
    )  # fmt: skip
    assert pictures.treated() == 0, pictures.said()


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("cut", ["rows", "columns"])
def test_tiles_without_their_last_pixels_are_damaged(
    pictures: Pictures, cut: str, levels: int
) -> None:
    """What is not there was shown as what was in memory, and the slide was a success."""
    _write(pictures.inbox / "a.tif", cut, levels=levels)
    assert pictures.treated() == 1
    [found] = pictures.manifests().values()
    assert found["error"]["reason"] == "damaged", found["error"]


_WHOLE = 256
#: What a tile holds in place of _WHOLE x _WHOLE pixels in colour: (width, height), Pillow's mode, and what is said of it.
_OTHERS = {
    "rows": ((_WHOLE, 240), "RGB", "256 x 240 pixels, not 256 x 256"),
    "columns": ((240, _WHOLE), "RGB", "240 x 256 pixels, not 256 x 256"),
    "larger": ((272, _WHOLE), "RGB", "272 x 256 pixels, not 256 x 256"),
    "grey": ((_WHOLE, _WHOLE), "L", "1 samples per pixel, not 3"),
    "inks": ((_WHOLE, _WHOLE), "CMYK", "4 samples per pixel, not 3"),
}
_MAKERS: dict[str, Callable[[Path], Path]] = {
    "a.svs": aperio_svs, "b.scn": vendors.leica_scn, "c.tiff": vendors.philips_tiff, "d.bif": vendors.ventana_bif,
    "e.tif": vendors.huron_tiff, "f.tif": vendors.trestle, "g.tif": pyramidal_tiff,
}  # fmt: skip


def _jpeg(size: tuple[int, int], mode: str, *, profile: bytes = b"") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 200 if mode == "L" else None).save(stream, "JPEG", icc_profile=profile)
    return stream.getvalue()


def _put_inside(path: Path, stream: bytes) -> None:
    """Let `stream` be a tile of the largest level that touches none of its edges."""
    with path.open("r+b") as file:
        tiff = Tiff(file.fileno(), path.stat().st_size)
        page = max((one for one in tiff.directories if one.tiled), key=lambda one: one.size)
        number = -(-page.size[0] // page.number(322)) + 1
        place = file.seek(0, os.SEEK_END)
        file.write(stream)
        for tag, value in ((324, place), (325, len(stream))):
            kind, bytes_ = {3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}[page.tags[tag].kind]
            file.seek(page.tags[tag].offset + bytes_ * number)
            file.write(struct.pack(tiff.order + kind, value))


@pytest.mark.parametrize("other", _OTHERS)
def test_one_tile_of_another_size_inside_a_native_slide(pictures: Pictures, other: str) -> None:
    """It was deployed, and OpenSlide refused that tile, and all that were asked for after it, in the viewer."""
    size, mode, said = _OTHERS[other]
    for name, make in _MAKERS.items():
        path = make(pictures.inbox / name)
        _put_inside(path, _jpeg(size, mode))
        with openslide.OpenSlide(path) as slide, pytest.raises(openslide.OpenSlideError):
            slide.read_region((0, 0), 0, slide.dimensions)
    sound = aperio_svs(pictures.inbox / "sound.svs")
    # Other tables and a long profile of its own do no harm.
    _put_inside(sound, _jpeg((_WHOLE, _WHOLE), "RGB", profile=bytes(range(1, 251)) * 20))
    assert pictures.treated() == 1
    found = pictures.by_name()
    assert found.pop("sound.svs")["status"] == "DEPLOYED"
    assert sorted(found) == sorted(_MAKERS)
    for name, one in found.items():
        assert one["status"] == "ERROR_FORMAT", name
        assert one["error"]["reason"] == "damaged", (name, one["error"])
        assert said in one["error"]["detail"], (name, one["error"])


def test_a_smaller_tile_of_a_grey_pyramid(pictures: Pictures) -> None:
    """OpenSlide gives grey tiles to libtiff, which shows what is in memory where their pixels end."""
    grey = np.ascontiguousarray(picture(1024, 768)[..., 1])
    path = pictures.inbox / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level in range(3):
            tiff.write(
                np.ascontiguousarray(grey[:: 2**level, :: 2**level]), tile=(_WHOLE, _WHOLE), compression="jpeg",
                photometric="minisblack", metadata=None, subfiletype=int(level > 0),
            )  # fmt: skip
    _put_inside(path, _jpeg((_WHOLE, 240), "L"))
    assert pictures.treated() == 1
    [found] = pictures.manifests().values()
    assert "256 x 240 pixels, not 256 x 256" in found["error"]["detail"]


@pytest.mark.parametrize(
    "shape, said",
    [
        ((240, 256, 3), "256 x 240 pixels, not 256 x 256"),
        ((256, 256), "1 samples per pixel, not 3"),
        ((256, 256, 3), None),
    ],
)
def test_a_tile_in_jpeg_2000(pictures: Pictures, shape: tuple[int, ...], said: str | None) -> None:
    """An SVS may have those; they are refused in the same way."""

    def tiles(pixels: np.ndarray) -> Iterator[bytes]:
        for top in range(0, pixels.shape[0], _WHOLE):
            for left in range(0, pixels.shape[1], _WHOLE):
                yield packed(pixels[top : top + _WHOLE, left : left + _WHOLE])

    def packed(pixels: np.ndarray) -> bytes:
        return imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(pixels), level=0, codecformat="j2k", mct=False
        )

    path = pictures.inbox / "a.svs"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            tiles(picture(1024, 768)), shape=(768, 1024, 3), dtype=np.uint8, tile=(_WHOLE, _WHOLE),
            compression=33005, photometric="rgb", metadata=None, description=SVS, software="",
        )  # fmt: skip
    _put_inside(path, packed(np.full(shape, 90, np.uint8)))
    assert pictures.treated() == int(said is not None), pictures.said()
    [found] = pictures.manifests().values()
    assert (said or "") in (found["error"] or {"detail": ""})["detail"]


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000, 1 << 18])
def test_a_header_is_looked_at_however_the_file_is_cut(tmp_path: Path, chunk_bytes: int) -> None:
    """Also where it is long, and goes on in the next chunks; and where each tile is looked at by itself."""
    path = aperio_svs(tmp_path / "a.svs")
    _put_inside(path, _jpeg((_WHOLE, 240), "RGB", profile=bytes(range(1, 251)) * 20))
    read, looked = arrival.of_native(str(path)), arrival.of_native(str(path))
    data = path.read_bytes()
    # What comes before is sound, and long.
    for begin in range(0, len(data), chunk_bytes):
        read.feed(data[begin : begin + chunk_bytes])
    looked.look()
    for watch in (read, looked):
        assert "256 x 240 pixels, not 256 x 256" in str(watch.verdict().damaged)


@pytest.mark.parametrize(
    "size, mode, said",
    [
        ((_WHOLE, 240), "RGB", "256 x 240 pixels, not 256 x 256"),
        ((_WHOLE, _WHOLE), "L", None),
        ((_WHOLE, _WHOLE), "RGB", None),
    ],
)
def test_a_tile_of_an_mrxs(
    pictures: Pictures, size: tuple[int, int], mode: str, said: str | None
) -> None:
    """Slidedat.ini states the size of all tiles; OpenSlide shows grey ones as well."""
    vendors.mirax_mrxs(pictures.inbox, "M")
    path = pictures.inbox / "M" / "Data0001.dat"
    data = bytearray(path.read_bytes())
    stream = _jpeg(size, mode)
    place = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)][2]
    data[place : place + len(stream)] = stream
    path.write_bytes(data)
    with openslide.OpenSlide(pictures.inbox / "M.mrxs") as slide:
        if said is None:
            slide.read_region((0, 0), 0, slide.dimensions)
        else:
            with pytest.raises(openslide.OpenSlideError):
                slide.read_region((0, 0), 0, slide.dimensions)
    assert pictures.treated() == int(said is not None), pictures.said()
    [found] = pictures.manifests().values()
    assert (said or "") in (found["error"] or {"detail": ""})["detail"]
    assert found["status"] == ("DEPLOYED" if said is None else "ERROR_FORMAT")
