"""Real files that nobody here wrote, dropped under their own, a wrong and no extension.

The folder is beside the repository where the project is developed, and in CI; elsewhere the slides
that `tests/builders` makes go the same way.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import openslide
import pytest

from tests import builders
from tests.acceptance.conftest import Root, root

__all__ = ["root"]

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared" / "samples"


@dataclass(frozen=True)
class Expected:
    """What section 5 of the design says of a file, and an independent reader of its pixels."""

    path: str
    status: str
    format: str
    size: tuple[int, int]
    levels: int
    mpp: float | None = None
    objective_power: float | None = None


EXPECTED = [
    Expected("svs/libvips__CMU-1-Small-Region.svs", "DEPLOYED", "aperio-svs", (2220, 2967), 1, 0.499, 20),
    Expected("ndpi/slideio-tutorial__test3-DAPI-2-(387).ndpi", "DEPLOYED", "hamamatsu-ndpi", (3968, 4864), 7, 0.228175, 40),
    Expected("tiff_pyramidal/openslide-python__boxes.tiff", "DEPLOYED", "pyramidal-tiff", (300, 250), 4),
    Expected("tiff_pyramidal/large_image__rgba_geotiff.tiff", "DEPLOYED", "pyramidal-tiff", (600, 600), 2),
    Expected("tiff_pyramidal/large_image__yb10kx5k.zstd.tiff", "DEPLOYED", "pyramidal-tiff", (10000, 5000), 5),
    Expected("jpeg/pillow__hopper.jpg", "CONVERTED", "jpeg", (128, 128), 1),
    Expected("jpeg/pillow__hopper_gray.jpg", "CONVERTED", "jpeg", (128, 128), 1),
    Expected("jpeg/sharp__Landscape_1.jpg", "CONVERTED", "jpeg", (600, 450), 3),
    Expected("png/pillow__hopper.png", "CONVERTED", "png", (128, 128), 1),
    Expected("png/go__benchGray.png", "CONVERTED", "png", (256, 256), 1),
    Expected("png/test_images__immunohistochemistry.png", "CONVERTED", "png", (512, 512), 2),
    Expected("tiff_planar/large_image__grey10kx5k.tif", "CONVERTED", "planar-tiff", (10000, 5000), 7),
    Expected("tiff_planar/pillow__hopper.tif", "CONVERTED", "planar-tiff", (128, 128), 1),
    Expected("tiff_planar/pillow__hopper_lzw.tif", "CONVERTED", "planar-tiff", (128, 128), 1),
    Expected("tiff_planar/sharp__uncompressed_tiff.tiff", "CONVERTED", "planar-tiff", (246, 345), 2),
]  # fmt: skip

#: What is damaged or odd: (status, reason or None, a word of its detail or of a warning).
ODD = {
    "tricky/jpeg/sharp__Portrait_6.jpg": ("CONVERTED", None, "upright"),
    "tricky/jpeg/go__video-001.cmyk.jpeg": ("CONVERTED", None, "CMYK"),
    "tricky/jpeg/pillow__photoshop-200dpi-broken.jpg": ("CONVERTED", None, "extraneous"),
    "tricky/png/pillow__star.png": ("CONVERTED", None, "white"),
    "tricky/png/pillow__pil123p.png": ("CONVERTED", None, "palette"),
    "tricky/png/pillow__morph_a.png": ("CONVERTED", None, "1-bit"),
    "tricky/tiff/pillow__16bit.MM.deflate.tif": ("CONVERTED", None, "16-bit"),
    "tricky/tiff/image__rgb32f_color.tiff": ("CONVERTED", None, "floating"),
    "tricky/tiff/imagecodecs__gray.lzma.u1.tif": ("CONVERTED", None, "tifffile"),
    "tricky/tiff/large_image__zero_gi.tif": ("ERROR_CONVERSION", "no_pixels", "2 x 0"),
    "bad/png/go__invalid-crc32.png": ("ERROR_CONVERSION", "damaged", "CRC"),
    "bad/png/pillow__broken.png": ("ERROR_CONVERSION", "damaged", "cannot be read"),
    "bad/tiff/pillow__libtiff_segfault.tif": ("ERROR_CONVERSION", "too_large_for_memory", "bytes"),
    "bad/tiff/pillow__crash-74d2a78403a5a59db1fb0a2b8735ac068a75f6e3.tif": ("CONVERTED", None, "tifffile"),
    "bad/other/histolab__broken.svs": ("ERROR_FORMAT", "unknown_format", "text"),
    "czi/aicspylibczi__tiles.czi": ("ERROR_FORMAT", "unknown_format", "CZI"),
    "ome_tiff/galaxy-image-analysis__res.ome.tiff": ("ERROR_FORMAT", "unsupported_format", "OME-TIFF"),
    "bmp/pillow__rgb24.bmp": ("ERROR_FORMAT", "unknown_format", "BMP"),
}  # fmt: skip

with_samples = pytest.mark.skipif(
    not SAMPLES.is_dir() and not os.environ.get("CI"), reason="no ../shared/samples here"
)


@with_samples
def test_each_ends_where_it_should_whatever_it_is_called(root: Root) -> None:
    """Format id, size, levels, pixel size and objective power, three names each; one daemon."""
    for number, one in enumerate(EXPECTED):
        source = SAMPLES / one.path
        wrong = ".png" if source.suffix != ".png" else ".svs"
        for ending in (source.suffix, wrong, ""):
            root.drop(source, f"{number:02}{ending or '-none'}")
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    found = root.by_name()
    assert len(root.manifests()) == 3 * len(EXPECTED)
    for number, one in enumerate(EXPECTED):
        named = [name for name in found if name.startswith(f"{number:02}")]
        assert len(named) == 3
        for name in named:
            _check(found[name], one)
    root.check_hashes()
    root.assert_clean()


def _check(document: dict, one: Expected) -> None:
    [image] = document["images"]
    assert document["status"] == one.status, one
    assert document["format"]["id"] == one.format, one
    assert (image["width"], image["height"]) == one.size, one
    assert len(image["levels"]) == one.levels, one
    assert image["objective_power"] == one.objective_power, one
    assert image["mpp_x"] == (pytest.approx(one.mpp, rel=1e-4) if one.mpp else None), one
    with openslide.OpenSlide(document["_path"] / image["file"]) as slide:
        assert slide.level_dimensions == tuple(
            (level["width"], level["height"]) for level in image["levels"]
        )
        for level, size in enumerate(slide.level_dimensions):
            slide.read_region((0, 0), level, (min(64, size[0]), min(64, size[1])))
        if document["status"] == "CONVERTED" and one.mpp is None:
            assert openslide.PROPERTY_NAME_MPP_X not in slide.properties


@with_samples
def test_the_odd_and_the_damaged_end_with_a_reason(root: Root) -> None:
    """What was done is a warning, what could not be done a reason that a person agrees with."""
    for path in ODD:
        root.drop(SAMPLES / path)
    assert root.run_until_idle() == 1
    found = root.by_name()
    for path, (status, reason, word) in ODD.items():
        document = found[Path(path).name]
        assert document["status"] == status, (path, document["error"])
        error = document["error"] or {"reason": None, "detail": ""}
        assert error["reason"] == reason, (path, error)
        assert word in f"{error['detail']} {document['warnings']}", (path, document["warnings"])
    root.check_hashes()
    root.assert_clean()


def test_slides_that_are_made_here_go_the_same_way(root: Root, tmp_path: Path) -> None:
    """Every format of the table by a builder, so that nothing depends on files from elsewhere."""
    root.drop(builders.aperio_svs(tmp_path / "a.svs"), "a")
    root.drop(builders.pyramidal_tiff(tmp_path / "b.tif"), "b.svs")
    root.drop(builders.planar_tiff(tmp_path / "c.tif"), "c.png")
    root.drop(builders.png(tmp_path / "d.png"), "d.jpg")
    root.drop(builders.jpeg(tmp_path / "e.jpg"), "e.tif")
    assert root.run_until_idle() == 0
    told = {
        name: (d["format"]["id"], d["images"][0]["mpp_x"]) for name, d in root.by_name().items()
    }
    assert told == {
        "a": ("aperio-svs", 0.499),
        "b.svs": ("pyramidal-tiff", pytest.approx(0.5)),
        "c.png": ("planar-tiff", None),
        "d.jpg": ("png", None),
        "e.tif": ("jpeg", None),
    }
