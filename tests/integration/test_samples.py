"""Real files that nobody here wrote, dropped under their own, a wrong and no extension.

The folder is beside the repository where the project is developed, and in CI; elsewhere the slides
that `tests/builders` makes go the same way.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import openslide
import pytest

from tests import builders
from tests.lab.pictures import Pictures
from tests.lab.root import Root

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

#: What comes of every file there, as a person has read it and agreed: path, status, format, reason,
#: shape of the first pyramid, pixel size, and what the warnings or the error say.
TABLE = Path(__file__).with_name("samples.tsv")

with_samples = pytest.mark.skipif(
    not SAMPLES.is_dir() and not os.environ.get("CI"), reason="no ../shared/samples here"
)


@with_samples
def test_each_ends_where_it_should_whatever_it_is_called(pictures: Pictures) -> None:
    """Format id, size, levels, pixel size and objective power, three names each; one daemon."""
    for number, one in enumerate(EXPECTED):
        source = SAMPLES / one.path
        wrong = ".png" if source.suffix != ".png" else ".svs"
        for ending in (source.suffix, wrong, ""):
            pictures.drop(source, f"{number:02}{ending or '-none'}")
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    assert len(pictures.manifests()) == 3 * len(EXPECTED)
    for number, one in enumerate(EXPECTED):
        named = [name for name in found if name.startswith(f"{number:02}")]
        assert len(named) == 3
        for name in named:
            _check(found[name], one)
    pictures.check_hashes()


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


def _shape(document: dict) -> str:
    if not document["images"]:
        return ""
    image = document["images"][0]
    samples, bits = image["samples_per_pixel"], image["bits_per_sample"]
    return f"{image['width']}x{image['height']}x{samples}@{bits}"


@with_samples
def test_every_sample_in_one_go(root: Root) -> None:
    """Good, tricky and bad ones in one daemon, which goes on: each as the table says."""
    root.configure(inbox="incomplete_after_s = 2.0")
    lines = [line.split("\t") for line in TABLE.read_text().splitlines()[1:]]
    known = {line[0] for line in lines}
    for path in sorted(known):
        if path.startswith("vsi/"):
            shutil.copytree((SAMPLES / path).parent, root.path / "inbox" / "vsi")
            continue
        root.drop(SAMPLES / path, path.replace("/", "-", path.count("/") - 1).replace("/", "__"))
    for path in (root.path / "inbox").rglob("*"):
        path.chmod(0o755)
    root.start()
    assert root.process
    pid = root.process.pid
    root.wait(lambda: len(root.manifests()) == len(lines))
    final = {"DEPLOYED", "CONVERTED"}
    root.wait(
        lambda: all(
            one["status"] in final or one["status"].startswith("ERROR")
            for one in root.manifests().values()
        ),
        120,
    )
    assert (root.process.pid, root.process.poll()) == (pid, None)
    assert root.stop() == 0
    found = root.by_name()
    for path, status, format_id, reason, shape, mpp, says in lines:
        name = path.replace("/", "-", path.count("/") - 1).replace("/", "__")
        document = found["vsi-ets-test-jpg2k.vsi" if path.startswith("vsi/") else name]
        error = document["error"] or {"reason": "", "detail": ""}
        assert (document["status"], error["reason"]) == (status, reason), (path, error)
        assert (document["format"]["id"] if document["format"] else "") == format_id, path
        assert _shape(document) == shape, path
        stated = document["images"][0]["mpp_x"] if document["images"] else None
        assert stated == (pytest.approx(float(mpp), rel=1e-3) if mpp else None), path
        # In the words of this version of the libraries; that something is said must stay.
        assert bool(error["detail"] or document["warnings"]) == bool(says), path
    root.check_hashes()
    root.assert_clean()


def test_slides_that_are_made_here_go_the_same_way(pictures: Pictures, tmp_path: Path) -> None:
    """Every format of the table by a builder, so that nothing depends on files from elsewhere."""
    pictures.drop(builders.aperio_svs(tmp_path / "a.svs"), "a")
    pictures.drop(builders.pyramidal_tiff(tmp_path / "b.tif"), "b.svs")
    pictures.drop(builders.planar_tiff(tmp_path / "c.tif"), "c.png")
    pictures.drop(builders.png(tmp_path / "d.png"), "d.jpg")
    pictures.drop(builders.jpeg(tmp_path / "e.jpg"), "e.tif")
    assert pictures.treated() == 0
    told = {
        name: (d["format"]["id"], d["images"][0]["mpp_x"]) for name, d in pictures.by_name().items()
    }
    assert told == {
        "a": ("aperio-svs", 0.499),
        "b.svs": ("pyramidal-tiff", pytest.approx(0.5)),
        "c.png": ("planar-tiff", None),
        "d.jpg": ("png", None),
        "e.tif": ("jpeg", None),
    }
