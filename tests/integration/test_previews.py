"""The picture of a TIFF is the image that is meant, and not its preview."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import tifffile

from tests.builders import picture
from tests.lab.pictures import Pictures

PIXELS = picture(300, 200)
WIDE = PIXELS.astype(np.uint16) * 257


def _preview(path: Path, *, marked: bool, levels: int = 1, kind: str = "rgb") -> None:
    """A small page, and in its SubIFDs the image and its levels, as cameras and Bio-Formats' tools write it."""
    image = (
        {"mode": "rgb", "pixels": PIXELS}
        if kind == "rgb"
        else {"mode": kind, "pixels": WIDE[:, :, 0]}
    )
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            PIXELS[::4, ::4].copy(), photometric="rgb", subfiletype=int(marked), subifds=levels, metadata=None,
            resolution=(10_000, 10_000), resolutionunit="CENTIMETER",
        )  # fmt: skip
        for level in range(levels):
            tiff.write(
                image["pixels"][:: 2**level, :: 2**level].copy(), photometric=image["mode"],
                subfiletype=int(level > 0), metadata=None,
                resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
            )  # fmt: skip


def test_an_image_within_its_preview_is_the_picture(pictures: Pictures) -> None:
    """A page that is smaller than an image in its SubIFDs is a thumbnail, no matter what it calls itself."""
    _preview(pictures.inbox / "marked.tif", marked=True)
    _preview(pictures.inbox / "unmarked.tif", marked=False)
    _preview(pictures.inbox / "levels.tif", marked=True, levels=2)
    assert pictures.treated() == 0
    found = pictures.by_name()
    assert len(found) == 3
    for name, one in found.items():
        [image] = one["images"]
        assert (image["width"], image["height"], image["mpp_x"]) == (300, 200, 0.25), name
        assert any("preview" in line for line in one["warnings"]), name
        with openslide.OpenSlide(one["_path"] / image["file"]) as slide:
            shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        assert np.abs(shown.astype(int) - PIXELS).mean() < 1.5, name


def test_the_preview_of_a_raw_photograph_is_not_taken_for_it(pictures: Pictures) -> None:
    """What the camera saw is in the SubIFD, and nothing here turns that into colours."""
    _preview(pictures.inbox / "photograph.dng", marked=True, kind="cfa")
    pictures.treated()
    [found] = pictures.manifests().values()
    assert found["error"]["reason"] == "unsupported_samples"
