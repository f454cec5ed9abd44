"""Converted pixels against an independent decode of the source, for each reader, in place."""

from __future__ import annotations

import shutil
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytowatch.config import from_mapping
from cytowatch.pyramid import pixels as of_pixels
from cytowatch.pyramid.readers import vsi
from cytowatch.pyramid.readers.jp2 import open_jp2
from cytowatch.pyramid.readers.pages import open_page
from cytowatch.record.errors import ConversionError
from tests.builders import others, picture
from tests.lab.pictures import Pictures
from tests.lab.root import Root

VSI = Path(__file__).resolve().parents[2].parent / "shared/samples/vsi/vsi-ets-test-jpg2k"


def _noisy(width: int, height: int) -> np.ndarray:
    """The picture with fine detail, so that a shift of one pixel or a swap of channels shows."""
    noise = np.random.default_rng(7).integers(-3, 4, (height, width, 3))
    return (picture(width, height).astype(int) + noise).clip(0, 255).astype(np.uint8)


def _sources(folder: Path) -> dict[str, np.ndarray]:
    """Each file, and what a library that cytowatch does not use for it says of its pixels."""
    pixels = _noisy(1003, 700)
    others.jp2_tiled(folder / "a.jp2", pixels=pixels)
    Image.fromarray(pixels).save(folder / "a.bmp", "BMP")
    Image.fromarray(pixels).save(folder / "a.ppm", "PPM")
    Image.fromarray(pixels[:, :, 0]).save(folder / "a.pgm", "PPM")
    tifffile.imwrite(folder / "a.ome.tif", pixels, ome=True, photometric="rgb", compression="zstd")
    tifffile.imwrite(
        folder / "second.tif", pixels, photometric="rgb", compression="zstd", tile=(96, 80)
    )
    others.czi(folder / "a.czi")
    others.czi(folder / "16.czi", dtype=np.uint16)
    others.czi(folder / "zstd.czi", compression="zstd1:ExplicitLevel=3")
    seventy = picture(700, 500)
    return {
        "a.jp2": pixels,
        "a.bmp": pixels,
        "a.ppm": pixels,
        "a.pgm": pixels[:, :, 0],
        "a.ome.tif": pixels,
        "second.tif": pixels,
        "a.czi": seventy,
        "16.czi": seventy.astype(np.uint16) * 257,
        "zstd.czi": seventy,
    }


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    most = 65535 if one.dtype == np.uint16 else 255
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(most**2 / error)


@pytest.mark.parametrize("compression", ["jpeg", "lossless"])
def test_each_reader(root: Root, tmp_path: Path, compression: str) -> None:
    """Lossless is identical, JPEG of quality 90 above 38 dB, 16 bits are always identical."""
    root.configure(more=f'[convert]\ncompression = "{compression}"')
    folder = tmp_path / "made"
    folder.mkdir()
    sources = _sources(folder)
    for name in sources:
        root.drop(folder / name)
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    for name, document in root.by_name().items():
        [image] = document["images"]
        shown = tifffile.imread(document["_path"] / image["file"], key=0)
        made = sources[name]
        assert shown.shape == made.shape, name
        assert shown.dtype == made.dtype, name
        if compression == "lossless" or made.dtype == np.uint16:
            assert np.array_equal(shown, made), name
        else:
            assert _psnr(shown, made) > 38, (name, _psnr(shown, made))
        assert document["conversion"]["reader"] in (
            "imagecodecs", "cytowatch", "tifffile", "pylibCZIrw",
        )  # fmt: skip
    root.assert_clean()


@pytest.mark.parametrize("threads_from_bytes", [1, 1 << 40])
def test_tiles_of_a_large_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads_from_bytes: int
) -> None:
    """Decoded in threads or one by one, each is where it belongs; one that is damaged is reported."""
    monkeypatch.setattr(of_pixels, "_IN_THREADS_BYTES", threads_from_bytes)
    pixels = _noisy(1003, 700)
    others.jp2_tiled(tmp_path / "a.jp2", pixels=pixels)
    planes = {"photometric": "rgb", "planarconfig": "separate", "tile": (96, 80)}
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(pixels, 2, 0), compression="zstd", **planes)
    config = from_mapping({})
    for opened in (open_jp2(str(tmp_path / "a.jp2"), config), open_page(str(tmp_path / "a.tif"), config)):  # fmt: skip
        region = opened.scenes[0].region
        assert np.array_equal(region.rows(0, 700), pixels)
        assert np.array_equal(region.rows(123, 457), pixels[123:457])
        opened.close()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        at = tiff.pages[0].aspage().dataoffsets[50]
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(at)
        file.write(b"no zstandard")
    opened = open_page(str(tmp_path / "a.tif"), config)
    with pytest.raises(ConversionError, match="cannot be read"):
        opened.scenes[0].region.rows(0, 700)
    opened.close()


@pytest.mark.skipif(not VSI.is_dir(), reason="the real VSI is beside the repository only")
def test_cellsens_pixels(pictures: Pictures) -> None:
    """Against imagecodecs, which decodes the JPEG 2000 codestream of each plane."""
    import imagecodecs
    import slideio

    inbox = pictures.inbox
    shutil.copytree(VSI, inbox, dirs_exist_ok=True)
    for path in (inbox, *inbox.rglob("*")):
        path.chmod(0o755)
    ets = next(VSI.rglob("*.ets")).read_bytes()
    axes = struct.unpack_from("<I", ets, 12)[0]
    where, count = struct.unpack_from("<QI", ets, 32)
    planes = {}
    for number in range(count):
        entry = where + number * (20 + 4 * axes)
        place = struct.unpack_from(f"<{axes}I", ets, entry + 4)
        offset, length = struct.unpack_from("<QI", ets, entry + 4 + 4 * axes)
        planes[place] = imagecodecs.jpeg2k_decode(ets[offset : offset + length])
    assert pictures.treated() == 0
    [document] = pictures.manifests().values()
    shown = tifffile.imread(document["_path"] / document["images"][0]["file"], key=0)
    assert np.array_equal(shown, planes[(0,) * axes])
    # The first plane of this file is black, so another one shows that rows are where they belong.
    scene = slideio.open_slide(str(next(VSI.glob("*.vsi"))), "VSI").get_scene(0)
    region = vsi._Region(scene, threading.Lock(), [0])
    bright = max(planes.values(), key=np.mean)
    z = next(
        n
        for n in range(11)
        if np.array_equal(scene.read_block(channel_indices=[0], slices=(n, n + 1)), bright)
    )
    assert bright.max() > 1000
    region._scene = _Plane(scene, z)
    assert np.array_equal(region.rows(100, 300), bright[100:300])


class _Plane:
    """A scene whose first plane is another one."""

    def __init__(self, scene: object, z: int) -> None:
        self._scene, self._z = scene, z

    def read_block(self, rect: tuple, **options: object) -> np.ndarray:
        return self._scene.read_block(rect, **{**options, "slices": (self._z, self._z + 1)})
