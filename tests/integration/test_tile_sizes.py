"""JPEG tiles of another size than their TIFF states are shown where they belong, or refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from cytowatch.formats.structure.tiff import Tiff
from cytowatch.pyramid import tile_sizes
from tests.builders import bare_tiff, picture
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


def test_tiles_that_are_cut_off_at_the_edge(pictures: Pictures) -> None:
    """A flat image, a pyramid that OpenSlide would refuse at its edges, and an OME-TIFF whose tiles are copied."""
    for cut in ("none", "edges"):
        _write(pictures.inbox / f"flat {cut}.tif", cut, levels=1)
        _write(pictures.inbox / f"pyramid {cut}.tif", cut, levels=3)
        _write(pictures.inbox / f"{cut}.ome.tif", cut, levels=3, description=OME, subifds=True)
    assert pictures.treated() == 0
    found = pictures.by_name()
    assert len(found) == 6
    assert found["pyramid none.tif"]["status"] == "DEPLOYED"
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
