"""Three channels that ImageJ shows as one picture are one; all other stacks stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile

from tests.builders import picture
from tests.lab.pictures import Pictures

PIXELS = picture(300, 200)
PLANES = np.ascontiguousarray(np.moveaxis(PIXELS, 2, 0))
RAMP = np.arange(256, dtype=np.uint8)


def _table(*lit: int) -> np.ndarray:
    table = np.zeros((3, 256), np.uint8)
    table[list(lit)] = RAMP
    return table


RED, GREEN, BLUE, CYAN, GREY = (_table(*lit) for lit in ((0,), (1,), (2,), (1, 2), (0, 1, 2)))


def _write(path: Path, planes: np.ndarray = PLANES, **about: Any) -> None:
    tifffile.imwrite(
        path,
        planes,
        imagej=True,
        resolution=(4, 4),
        metadata={"axes": "CYX", "unit": "um", **about},
    )


#: How a stack was written, and which of its planes are red, green and blue; None where its first one is the picture.
STACKS: dict[str, tuple[dict[str, Any], str | None]] = {
    "composite.tif": ({"mode": "composite"}, "rgb"),
    "tables.tif": ({"mode": "composite", "LUTs": [RED, GREEN, BLUE]}, "rgb"),
    "exchanged.tif": ({"mode": "composite", "LUTs": [BLUE, GREEN, RED]}, "bgr"),
    "labels.tif": ({"mode": "color", "Labels": ["Red", "Green", "Blue"]}, "rgb"),
    "grey.tif": ({"mode": "grayscale"}, None),
    "grey tables.tif": ({"mode": "composite", "LUTs": [GREY, GREY, GREY]}, None),
    "other colours.tif": ({"mode": "composite", "LUTs": [CYAN, GREEN, BLUE]}, None),
    "fluorescence.tif": ({"mode": "composite", "Labels": ["DAPI", "FITC", "Cy3"]}, None),
    "focal planes.tif": ({"axes": "ZYX"}, None),
}  # fmt: skip


def test_three_channels_of_imagej(pictures: Pictures) -> None:
    """By their lookup tables and names; without any they are red, green and blue, as ImageJ shows them."""
    for name, (about, _) in STACKS.items():
        _write(pictures.inbox / name, **about)
    assert pictures.treated() == 0
    found = pictures.by_name()
    assert found.keys() == STACKS.keys()
    for name, (_, order) in STACKS.items():
        [image] = found[name]["images"]
        assert image["mpp_x"] == 0.25, name
        with openslide.OpenSlide(found[name]["_path"] / image["file"]) as slide:
            shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        planes = order or "rrr"
        meant = np.stack([PIXELS[:, :, "rgb".index(one)] for one in planes], axis=2)
        assert np.abs(shown.astype(int) - meant).mean() < 1.5, name
        word = "one RGB picture" if order else "3 pages"
        assert any(word in line for line in found[name]["warnings"]), name
