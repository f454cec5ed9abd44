"""Headers that promise too much are refused from the header, with the number and the limit."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from tests import builders
from tests.lab.root import Root


def many_pages(path: Path) -> None:
    page = builders.picture(16, 16)
    with tifffile.TiffWriter(path) as out:
        for _ in range(30):
            out.write(page, photometric="rgb")


def many_tags(path: Path) -> None:
    extra = [(60000 + n, "H", 1, n, True) for n in range(40)]
    tifffile.imwrite(path, builders.picture(16, 16), photometric="rgb", extratags=extra)


def many_samples(path: Path) -> None:
    pyvips.Image.black(40, 40, bands=20).tiffsave(str(path))


def long_side(path: Path) -> None:
    pyvips.Image.black(9000, 2).tiffsave(str(path))


def white(path: Path) -> None:
    # 1.2 GB of pixels in about a megabyte.
    pyvips.Image.black(40_000, 30_000).tiffsave(str(path), compression="deflate", tile=True)


def progressive(path: Path) -> None:
    Image.new("RGB", (6000, 6000)).save(path, "JPEG", progressive=True)


def interlaced(path: Path) -> None:
    pyvips.Image.black(8000, 8000, bands=3).pngsave(str(path), interlace=True, compression=1)


def no_samples(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((100, 100), bool), photometric="minisblack")
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags["SamplesPerPixel"].valueoffset  # type: ignore[union-attr]
    data = bytearray(path.read_bytes())
    data[at : at + 2] = bytes(2)
    path.write_bytes(data)


def huge_native(path: Path) -> None:
    builders.aperio_svs(path, width=1200, height=900)


#: By the settings of a daemon: the file, how it is made, its status, its reason and the number in its detail.
CASES: dict[str, list[tuple[str, Callable[[Path], None], str, str, str]]] = {
    "[limits]\nmax_pages = 20\nmax_tags = 30\nmax_samples = 16\nmax_side = 8000\nmax_pixels = 1_000_000": [
        ("a.tif", many_pages, "ERROR_FORMAT", "too_many_pages", "30"),
        ("b.tif", many_tags, "ERROR_FORMAT", "too_many_tags", "30"),
        ("n.tif", no_samples, "ERROR_CONVERSION", "no_pixels", "without samples"),
        ("c.tif", many_samples, "ERROR_CONVERSION", "too_many_samples", "20"),
        ("d.tif", long_side, "ERROR_CONVERSION", "side_too_long", "9,000"),
        ("h.svs", huge_native, "ERROR_FORMAT", "too_many_pixels", "1,080,000"),
    ],
    "[limits]\nmax_expansion = 100": [
        ("e.tif", white, "ERROR_CONVERSION", "expansion", "1,200,000,000"),
    ],
    "[sandbox]\nmemory_bytes = 268_435_456": [
        ("f.jpg", progressive, "ERROR_CONVERSION", "too_large_for_memory", "progressive JPEG"),
        ("g.png", interlaced, "ERROR_CONVERSION", "too_large_for_memory", "interlaced"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("settings", CASES)
def test_each_has_its_reason_and_the_number(root: Root, tmp_path: Path, settings: str) -> None:
    """Nothing was decoded, and the original is there."""
    root.configure(more=settings)
    for name, make, *_ in CASES[settings]:
        make(tmp_path / name)
        root.drop(tmp_path / name)
    assert root.run_until_idle() == 1
    documents = root.by_name()
    for name, _, status, reason, number in CASES[settings]:
        document = documents[name]
        assert (document["status"], document["error"]["reason"]) == (status, reason), document[
            "error"
        ]
        assert number in document["error"]["detail"], document["error"]
        assert not (document["_path"] / "derived").exists()
    root.check_hashes()


def test_a_small_file_whose_directories_lie_over_each_other(root: Root) -> None:
    """A hundred thousand directories of thousands of tags in a few kB: no look at it takes long."""
    # Each directory has 2,000 entries, and begins two bytes after the one before.
    tags = 2000
    data = bytearray(b"\0" * 300_000)
    data[:8] = struct.pack("<2sHI", b"II", 42, 8)
    for number in range(1000):
        at = 8 + number * 2
        struct.pack_into("<H", data, at, tags)
        following = at + 2 + tags * 12
        struct.pack_into("<I", data, following, at + 2)
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    (inbox / "bomb.tif").write_bytes(data)
    (inbox / "bomb.tif").with_name("good.svs").write_bytes(
        builders.aperio_svs(root.path.parent / "a.svs").read_bytes()
    )
    root.configure(inbox="incomplete_after_s = 1.0")
    root.start()
    began = time.monotonic()
    root.wait(lambda: root.by_name().get("good.svs", {}).get("status") == "DEPLOYED")
    root.wait(lambda: root.by_name().get("bomb.tif", {}).get("status", "").startswith("ERROR"))
    assert time.monotonic() - began < 30
    assert root.stop() == 0
