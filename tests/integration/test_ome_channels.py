"""Channels of an OME-TIFF that are red, green and blue become one RGB picture; all others stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytowatch.config import from_mapping
from cytowatch.pyramid.readers.ome import open_ome
from tests.builders import picture
from tests.lab.pictures import Pictures

WIDTH, HEIGHT = 700, 500
PIXELS = picture(WIDTH, HEIGHT)
RED, GREEN, BLUE, CYAN = -16776961, 16711935, 65535, 16777215
CONFIG = from_mapping({})


def _xml(channels: list[dict[str, Any]], *, order: str = "XYCZT", z: int = 1, kind: str = "uint8", pages: int) -> bytes:  # fmt: skip
    parts = "".join(
        f'<Channel ID="Channel:0:{n}" SamplesPerPixel="1" '
        + " ".join(f'{key}="{value}"' for key, value in one.items())
        + "/>"
        for n, one in enumerate(channels)
    )
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0" Name="s"><Pixels DimensionOrder="{order}" ID="Pixels:0" '
        f'PhysicalSizeX="0.25" PhysicalSizeY="0.25" SizeX="{WIDTH}" SizeY="{HEIGHT}" '
        f'SizeC="{pages // z}" SizeZ="{z}" SizeT="1" Type="{kind}">{parts}'
        + f'<TiffData IFD="0" PlaneCount="{pages}"/></Pixels></Image></OME>'
    ).encode()


def _write(
    path: Path, planes: list[np.ndarray], channels: list[dict[str, Any]], *,
    levels: int = 0, about: dict[str, Any] | None = None, **options: Any,
) -> Path:  # fmt: skip
    """A page per plane, with smaller ones of it in SubIFDs."""
    kind = str(planes[0].dtype)
    text: bytes | None = _xml(channels, kind=kind, pages=len(planes), **(about or {}))
    settings: dict[str, Any] = {"photometric": "minisblack", "metadata": None, "tile": (128, 128), **options}  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for plane in planes:
            tiff.write(plane, description=text, subifds=levels, **settings)
            text = None
            for level in range(1, levels + 1):
                small = np.ascontiguousarray(plane[:: 2**level, :: 2**level])
                tiff.write(small, subfiletype=1, **settings)
    return path


def _planes(order: str = "rgb") -> list[np.ndarray]:
    return [np.ascontiguousarray(PIXELS[:, :, "rgb".index(one)]) for one in order]


def _coloured(*colours: int) -> list[dict[str, Any]]:
    return [{"Color": colour} for colour in colours]


def _named(*names: str) -> list[dict[str, Any]]:
    return [{"Name": name} for name in names]


NOTHING: list[dict[str, Any]] = [{}, {}, {}]
BOTH = [{**colour, **name} for colour, name in zip(_coloured(RED, GREEN, BLUE), _named(*"RGB"), strict=True)]  # fmt: skip
#: Drop, planes, channels, options: all of them show the picture.
COLOURS: dict[str, tuple[list[np.ndarray], list[dict[str, Any]], dict[str, Any]]] = {
    "colours.ome.tif": (_planes(), _coloured(RED, GREEN, BLUE), {}),
    "levels.ome.tif": (_planes(), BOTH, {"levels": 2, "compression": "zlib"}),
    "jpeg.ome.tif": (_planes(), BOTH, {"levels": 2, "compression": "jpeg", "compressionargs": {"level": 95}}),
    "reversed.ome.tif": (_planes("bgr"), _coloured(BLUE, GREEN, RED), {"levels": 1}),
    "names.ome.tif": (_planes("gbr"), _named("Green", "blue", "RED"), {"tile": None, "rowsperstrip": 64}),
    "words.ome.tif": (_planes(), _named("Channel R", "Channel G", "Channel B"), {"levels": 1}),
    "nothing.ome.tif": (_planes(), NOTHING, {"levels": 1}),
    "numbers.ome.tif": (_planes(), _named("Channel 0", "Channel 1", "Channel 2"), {}),
    "alike.ome.tif": (_planes(), [{"Name": "H&amp;E", **one} for one in _coloured(RED, GREEN, BLUE)], {}),
    "white.ome.tif": (_planes(), _coloured(-1, -1, -1), {}),
    "focus.ome.tif": ([one for plane in _planes() for one in (plane, plane[::-1].copy())], BOTH, {"about": {"order": "XYZCT", "z": 2}}),
    "focus last.ome.tif": ([*_planes(), *(one[::-1].copy() for one in _planes())], BOTH, {"about": {"order": "XYCZT", "z": 2}}),
}  # fmt: skip


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def test_red_green_and_blue_are_one_picture(pictures: Pictures) -> None:
    """By colour, by name or by nothing else being said; in planes or with levels; in the stated order."""
    inbox = pictures.inbox
    for name, (planes, channels, options) in COLOURS.items():
        _write(inbox / name, planes, channels, **options)
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    assert found.keys() == COLOURS.keys()
    for name, document in found.items():
        [image] = document["images"]
        shown = tifffile.imread(document["_path"] / image["file"], key=0)
        assert shown.shape == PIXELS.shape, name
        assert _psnr(shown, PIXELS) > 37, (name, _psnr(shown, PIXELS))
        assert (image["samples_per_pixel"], image["mpp_x"]) == (3, 0.25), name
        assert "its three channels are one RGB picture" in document["warnings"], name
        assert not any("3 channels" in line for line in document["warnings"]), name
        assert name.startswith("focus") == any("focal" in line for line in document["warnings"])


WIDE = [one.astype(np.uint16) * 257 for one in _planes()]


@pytest.mark.parametrize(
    ("planes", "channels"),
    [
        (_planes(), _named("DAPI", "FITC", "Cy3")),
        (_planes(), [{**a, **b} for a, b in zip(_coloured(RED, GREEN, BLUE), _named("Texas Red", "FITC", "DAPI"), strict=True)]),
        (_planes(), _coloured(RED, GREEN, CYAN)),
        (_planes(), _coloured(RED, RED, BLUE)),
        (_planes(), [{"EmissionWavelength": 460 + 60 * n} for n in range(3)]),
        (_planes(), [{"Fluor": "DAPI", "Color": BLUE}, {"Color": GREEN}, {"Color": RED}]),
        (_planes(), [{**a, **b} for a, b in zip(_coloured(RED, GREEN, BLUE), _named(*"BGR"), strict=True)]),
        (_planes()[:2], _coloured(RED, GREEN)),
        ([*_planes(), _planes()[0]], [*_coloured(RED, GREEN, BLUE), {}]),
        (WIDE, NOTHING),
    ],
)  # fmt: skip
def test_other_channels_stay_as_they_are(
    tmp_path: Path, planes: list[np.ndarray], channels: list[dict[str, Any]]
) -> None:
    """Dyes, other colours, other counts, colours against names, and 16 bits that say nothing."""
    opened = open_ome(str(_write(tmp_path / "a.ome.tif", planes, channels)), CONFIG)
    [scene] = opened.scenes
    assert scene.region.samples == 1
    assert np.array_equal(scene.region.rows(0, HEIGHT)[:, :, 0], planes[0])
    assert opened.done == (f"it has {len(planes)} channels: the first is the pyramid",)
    opened.close()


def test_sixteen_bits_that_say_their_colours(tmp_path: Path) -> None:
    """They are kept."""
    opened = open_ome(str(_write(tmp_path / "a.ome.tif", WIDE, BOTH)), CONFIG)
    [scene] = opened.scenes
    assert np.array_equal(scene.region.rows(3, 250), np.dstack(WIDE)[3:250])
    opened.close()


def test_pictures_beside_a_slide_are_no_slides(pictures: Pictures) -> None:
    """By the names that Bio-Formats gives them; one of that name that is all there is stays a picture."""
    options: dict[str, Any] = {"photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(pictures.inbox / "slide.ome.tif", ome=True) as tiff:
        for name, step in (
            ("thumbnail image", 8),
            ("slide", 1),
            ("overview image", 4),
            ("label", 5),
        ):
            part = np.ascontiguousarray(PIXELS[::step, ::step])
            tiff.write(part, metadata={"axes": "YXS", "Name": name}, **options)
    with tifffile.TiffWriter(pictures.inbox / "alone.ome.tif", ome=True) as tiff:
        tiff.write(PIXELS, metadata={"axes": "YXS", "Name": "thumbnail"}, **options)
    assert pictures.treated() == 0
    found = pictures.by_name()
    [slide], [alone] = found["slide.ome.tif"]["images"], found["alone.ome.tif"]["images"]
    assert (slide["width"], alone["width"]) == (WIDTH, WIDTH)
    assert sorted(slide["associated"]) == ["label", "macro"]
    assert any(
        "its thumbnail image was left out" in line for line in found["slide.ome.tif"]["warnings"]
    )
