"""Bytes that never came, anywhere in a file of each format: never a success with wrong pixels.

A hole (nothing was written) and a run of zeros at 20 places each, on the disk and in memory. What
comes of a file with a gap must be an error, or the very pixels of the whole file: then the gap lay
where nothing is. Pixels that are not packed are the exception (docs/formats.md), and only for zeros
that were written.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import Image

from cytowatch.config import from_mapping
from cytowatch.model import UploadedFile
from cytowatch.record import entries, manifest
from cytowatch.record.errors import IngestError
from cytowatch.record.status import Status
from cytowatch.stages.convert import convert
from cytowatch.stages.deploy import deploy
from cytowatch.stages.detect import detect
from tests import builders
from tests.builders import cellsens, others, picture, vendors

PLACES = 20
BLOCK = 4096
VSI = Path(__file__).resolve().parents[2].parent / "shared/samples/vsi/vsi-ets-test-jpg2k"
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Row:
    """One format: how its files are made in a folder, and whether its pixels are packed."""

    id: str
    make: Callable[[Path], object]
    packed: bool = True


def _one(make: Callable[..., Path], **options: Any) -> Callable[[Path], object]:
    return lambda folder: make(folder / "a", **options)


def _large_jpeg(folder: Path, **options: Any) -> None:
    noise = np.random.default_rng(1).integers(0, 60, (900, 1200, 3)).astype(np.uint8)
    Image.fromarray(picture(1200, 900) // 2 + noise).save(
        folder / "a", "JPEG", quality=90, **options
    )


def _compressed(compression: str, **options: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        # Noise, so that it does not pack to less than a block of the disk.
        noise = np.random.default_rng(1).integers(0, 20, (300, 403, 3)).astype(np.uint8)
        tifffile.imwrite(
            folder / "a", picture(403, 300) // 2 + noise, compression=compression,
            photometric="rgb", metadata=None, **options,
        )  # fmt: skip

    return make


def _vsi(folder: Path) -> None:
    shutil.copytree(VSI, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)


ROWS = [
    Row("jpeg", _large_jpeg),
    Row("jpeg optimised", lambda folder: _large_jpeg(folder, optimize=True)),
    Row("jpeg progressive", lambda folder: _large_jpeg(folder, progressive=True)),
    Row("png", _one(builders.png)),
    Row("planar-tiff", _compressed("zlib", rowsperstrip=16)),
    Row("planar-tiff lzw", _compressed("lzw", rowsperstrip=64)),
    Row("planar-tiff zstd", _compressed("zstd", rowsperstrip=64)),
    Row("planar-tiff plain", _one(builders.planar_tiff), packed=False),
    Row("pyramidal-tiff", _one(builders.pyramidal_tiff)),
    Row("jp2", _one(others.jp2)),
    Row("jp2 tiled", _one(others.jp2_tiled)),
    Row("aperio-svs", _one(builders.aperio_svs)),
    Row("hamamatsu-vms", vendors.vms),
    Row("hamamatsu-ndpi", _one(vendors.ndpi)),
    Row("leica-scn", _one(vendors.leica_scn)),
    Row("mirax-mrxs", vendors.mirax_mrxs),
    Row("philips-tiff", _one(vendors.philips_tiff)),
    Row("ventana-bif", _one(vendors.ventana_bif)),
    Row("huron-tiff", _one(vendors.huron_tiff)),
    Row("olympus-vsi", cellsens.olympus_vsi),
    Row("olympus-vsi jpeg 2000", partial(cellsens.olympus_vsi, packing=cellsens.JPEG_2000)),
    Row("olympus-vsi real", _vsi),
    Row("ome-tiff", _one(others.ome_jpeg)),
    Row("zeiss-czi", _one(others.czi, compression="zstd1:ExplicitLevel=2")),
    Row("zeiss-czi zstd0", _one(others.czi, compression="zstd0:ExplicitLevel=2")),
    Row("zeiss-czi plain", _one(others.czi), packed=False),
    Row("pgm", _one(others.pgm), packed=False),
    Row("bmp", _one(others.bmp), packed=False),
]


@pytest.fixture(params=["disk", "memory"])
def place(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for one uploaded file, on the disk or in memory, and nothing kept from the one before."""
    pyvips.cache_set_max(0)
    if request.param == "disk":
        monkeypatch.chdir(tmp_path)
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        monkeypatch.chdir(folder)
        yield Path(folder)
        monkeypatch.chdir(tmp_path)


def _manifest(place: Path) -> entries.Manifest:
    paths = sorted(path for path in (place / "source").rglob("*") if path.is_file())
    heads = {".vms", ".mrxs", ".vsi", ""}
    paths.sort(key=lambda path: path.suffix not in heads)
    rows = [
        entries.FileEntry(
            role="source", path=str(path.relative_to(place)), size_bytes=path.stat().st_size,
            sha256=None, status="UPLOADED",
        )
        for path in paths
    ]  # fmt: skip
    return manifest.new(
        id="20261123-141502-k3f9-a", user="ann", name="a", drop_path="ann/a", files=rows,
        now=datetime.now(UTC), software={},
    )  # fmt: skip


def pixels(place: Path) -> list[np.ndarray]:
    """The pixels of every level of what comes of the files in `place`.

    Raises
    ------
    IngestError
        It ends in an error.
    """
    config = from_mapping({})
    found = _manifest(place)
    shutil.rmtree(place / "out.1", ignore_errors=True)
    (place / "out.1").mkdir()
    detected = detect(UploadedFile(manifest=found, out="out.1", config=config))
    found = {**found, **detected.changes}  # type: ignore[typeddict-item]
    if detected.status is Status.CONVERTING:
        outcome = convert(UploadedFile(manifest=found, out="out.1", config=config))
        names = [row["path"] for row in outcome.changes["files"] if row["role"] == "pyramid"]
        return [tifffile.imread(name.replace("derived", "out.1")) for name in names]
    deploy(UploadedFile(manifest=found, out="out.1", config=config))
    with openslide.OpenSlide(found["files"][0]["path"]) as slide:
        return [
            np.asarray(slide.read_region((0, 0), level, size))
            for level, size in enumerate(slide.level_dimensions)
        ]


def _put(path: Path, data: bytes, begin: int, end: int, *, hole: bool) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.write(data[:begin])
        if not hole:
            file.write(bytes(end - begin))
        file.seek(end)
        file.write(data[end:])
        file.truncate(len(data))


def places(size: int) -> list[tuple[int, int]]:
    """Where the gaps are: a tenth of the file, at least two blocks of the disk."""
    length = max(2 * BLOCK, size // 10 // BLOCK * BLOCK)
    begins = {BLOCK * (share * size // PLACES // BLOCK) for share in range(PLACES)}
    return [(begin, min(begin + length, size)) for begin in sorted(begins)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_no_success_with_wrong_pixels(row: Row, place: Path) -> None:
    """Wherever the gap lies; and a good part of the gaps is called what it is."""
    if row.id == "olympus-vsi real" and not VSI.is_dir():
        pytest.skip("the real VSI is beside the repository only")
    (place / "source").mkdir()
    row.make(place / "source")
    right = pixels(place)
    largest = max((place / "source").rglob("*"), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    incomplete = 0
    wrong = []
    for begin, end in places(len(data)):
        for hole in (True, False):
            _put(largest, data, begin, end, hole=hole)
            try:
                made = pixels(place)
            except IngestError as error:
                incomplete += error.reason == "incomplete"
                continue
            same = len(made) == len(right) and all(
                np.array_equal(one, other) for one, other in zip(made, right, strict=True)
            )
            if not same and (row.packed or hole):
                wrong.append((begin, end, hole))
    assert wrong == []
    assert incomplete >= PLACES // 4 if len(data) > BLOCK * PLACES else incomplete > 0


def _mostly_white(folder: Path, *, optimize: bool = False, progressive: bool = False) -> None:
    """A scan of a slide with little tissue: zeros are flat pixels by its tables, in most of its blocks."""
    width, height = 1200, 800
    y, x = np.mgrid[0:height, 0:width]
    tissue = np.sin(x / 71) * np.cos(y / 53) + np.sin(x / 29 + y / 37) > 1.55
    noise = np.random.default_rng(1).integers(0, 90, (height, width, 3))
    pixels = np.where(tissue[:, :, np.newaxis], 120 + noise, 244).astype(np.uint8)
    options = {"optimize": optimize, "progressive": progressive}
    Image.fromarray(pixels).save(folder / "a", "JPEG", quality=85, **options)


@pytest.mark.parametrize("coding", ["optimize", "progressive"])
def test_zeros_in_place_of_codes_are_no_flat_pixels(
    coding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short runs at random places of a JPEG whose tables allow so many zeros: each is a gap, or changes nothing."""
    pyvips.cache_set_max(0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    _mostly_white(tmp_path / "source", **{coding: True})
    right = pixels(tmp_path)
    [file] = (tmp_path / "source").iterdir()
    data = file.read_bytes()
    rng = random.Random(1)
    wrong = []
    for _ in range(12):
        begin = rng.randrange(1000, len(data) - 5000)
        end = begin + rng.randrange(512, 2048)
        _put(file, data, begin, end, hole=False)
        try:
            made = pixels(tmp_path)
        except IngestError as error:
            assert error.reason == "incomplete"
            continue
        if not np.array_equal(made[0], right[0]):
            wrong.append((begin, end))
    assert wrong == []
