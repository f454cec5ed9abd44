"""What states more than it has is taken when nobody sends the rest: a reader of every pixel decides."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from tests import builders
from tests.builders import others, picture
from tests.lab.pictures import Pictures
from tests.lab.root import Root

PIXELS = picture(300, 200)


def _overstated(path: Path, more: int, **options: Any) -> Path:
    """A TIFF of one strip whose stated length leads beyond the end of the file."""
    options = {"photometric": "rgb", "metadata": None, "rowsperstrip": 200, **options}
    tifffile.imwrite(path, PIXELS, **options)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        begin = page.dataoffsets[0]
        page.tags[279].overwrite(path.stat().st_size - begin + more)
    return path


def _endless(path: Path, make: Any) -> Path:
    """A TIFF whose last directory lies at its end, without the four zeros behind it."""
    data = bytearray(make(path).read_bytes())
    at, link = struct.unpack_from("<I", data, 4)[0], 4
    while at:
        count = struct.unpack_from("<H", data, at)[0]
        begin, size = at, 2 + 12 * count
        following = struct.unpack_from("<I", data, at + size)[0]
        if not following:
            struct.pack_into("<I", data, link, len(data))
            path.write_bytes(bytes(data) + data[begin : begin + size])
            return path
        link, at = at + size, following
    raise AssertionError("it has no directory")


def _shown(document: dict[str, Any]) -> np.ndarray:
    with openslide.OpenSlide(document["_path"] / document["images"][0]["file"]) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def test_what_states_too_much_is_taken_late(root: Root, tmp_path: Path) -> None:
    """It waits, and then its pixels are all there; a manifest says what its structure misses."""
    root.configure(inbox="incomplete_after_s = 2.0")
    made = {
        "plain.tif": _overstated(tmp_path / "plain.tif", 5000),
        "lzw.tif": _overstated(tmp_path / "lzw.tif", 5000, compression="lzw"),
        "zlib.tif": _overstated(tmp_path / "zlib.tif", 5000, compression="zlib"),
        "jpeg.tif": _overstated(tmp_path / "jpeg.tif", 5000, compression="jpeg"),
        "endless.tif": _endless(tmp_path / "endless.tif", builders.planar_tiff),
        "pyramid.tif": _endless(tmp_path / "pyramid.tif", builders.pyramidal_tiff),
    }
    for name, path in made.items():
        root.drop(path, name)
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    found = root.by_name()
    for name in made:
        document = found[name]
        assert document["status"] in ("CONVERTED", "DEPLOYED"), (name, document["error"])
        assert "by its structure it misses" in document["warnings"][0], name
        shown = _shown(document).astype(int)
        size = (shown.shape[1], shown.shape[0])
        assert np.abs(shown - picture(*size)).mean() < 2, name


def test_what_is_cut_is_not_taken_late(root: Root, tmp_path: Path) -> None:
    """Rows that are not in the file are an error, no matter what the reader makes of them."""
    root.configure(inbox="incomplete_after_s = 2.0")
    for compression in (None, "lzw", "zlib", "jpeg"):
        name = f"{compression}.tif"
        path = _overstated(tmp_path / name, 0, compression=compression)
        root.drop(path, name).write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    # In neither a corner nor the middle of its level.
    path = _endless(tmp_path / "tile.tif", builders.pyramidal_tiff)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        begin, size = page.dataoffsets[6], page.databytecounts[6]
    data[begin + size // 2 : begin + size - 2] = b"\xff" * len(
        data[begin + size // 2 : begin + size - 2]
    )
    (root.path / "inbox" / "ann" / "tile.tif").write_bytes(data)
    assert root.run_until_idle() == 1
    for name, document in root.by_name().items():
        assert document["status"].startswith("ERROR"), name
        assert document["error"]["reason"] in ("incomplete", "damaged"), name


def test_the_last_box_of_a_jp2_may_state_too_much(pictures: Pictures, tmp_path: Path) -> None:
    """Its codestream ends: nothing is waited for."""
    data = bytearray(others.jp2(tmp_path / "a.jp2").read_bytes())
    at = data.index(b"jp2c") - 4
    struct.pack_into(">I", data, at, len(data) - at + 70_000)
    inbox = pictures.inbox
    (inbox / "a.jp2").write_bytes(data)
    assert pictures.treated() == 0
    [document] = pictures.manifests().values()
    assert document["status"] == "CONVERTED"


@pytest.mark.parametrize("cut", [1, 3])
def test_a_cut_pointer_waits(cut: int, root: Root, tmp_path: Path) -> None:
    """Of the four bytes behind the last directory some may still come."""
    path = _endless(tmp_path / "a.tif", builders.planar_tiff)
    root.drop(path).write_bytes(path.read_bytes() + bytes(cut))
    assert root.run_until_idle() == 0
    assert root.manifests() == {}
