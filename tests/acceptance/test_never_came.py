"""Bytes that never came, with a real daemon: what waits, what is an error, what is published already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests import builders
from tests.builders import others, picture
from tests.lab import samba
from tests.lab.root import Root
from tests.lab.samba import Samba


def _large(path: Path) -> bytes:
    """A slide of a hundred tiles."""
    noise = np.random.default_rng(1).integers(0, 80, (2048, 2048, 3)).astype(np.uint8)
    about = "Aperio Image Library v1\r\nAppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 4):
            part = np.ascontiguousarray((picture(2048, 2048) // 2 + noise)[::step, ::step])
            tiff.write(
                part, tile=(256, 256), compression="jpeg", photometric="rgb", metadata=None,
                description=about,
            )  # fmt: skip
    return path.read_bytes()


def _zeroed(data: bytes, begin: int, length: int) -> bytes:
    return data[:begin] + bytes(length) + data[begin + length :]


def _error(document: dict[str, Any]) -> tuple[str, str]:
    return document["status"], document["error"] and document["error"]["reason"]


def test_a_hole_is_filled_late(root: Root, tmp_path: Path) -> None:
    """A copy in several parts: its middle comes last, and until then it waits."""
    slide = _large(tmp_path / "a.svs")
    third = len(slide) // 3 // 4096 * 4096
    root.start()
    target = root.path / "inbox" / "ann" / "a.svs"
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        file.write(slide[:third])
        file.seek(2 * third)
        file.write(slide[2 * third :])
    [waits] = root.wait(lambda: [one for one in root.waiting() if one["why"] == "incomplete"])
    assert "were never written" in waits["detail"]
    with target.open("r+b") as file:
        file.seek(third)
        file.write(slide[third : 2 * third])
    root.wait(lambda: root.by_name().get("a.svs", {}).get("status") == "DEPLOYED")
    assert root.stop() == 0


@pytest.mark.parametrize("hash_", ["before", "after"])
def test_zeros_in_the_middle_are_an_error(hash_: str, root: Root, tmp_path: Path) -> None:
    """A tenth of a native slide, and of what is converted: before anything is published."""
    root.configure(storage={"hash": hash_})
    slide = _large(tmp_path / "a.svs")
    (tmp_path / "b.svs").write_bytes(_zeroed(slide, len(slide) // 2, len(slide) // 10))
    root.drop(tmp_path / "b.svs")
    picture_ = builders.png(tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(_zeroed(picture_, picture_.index(b"IDAT") + 500, 2000))
    root.drop(tmp_path / "c.png")
    root.drop(others.czi(tmp_path / "d.czi", compression="zstd1:ExplicitLevel=2"), "d.czi")
    damaged = root.path / "inbox" / "ann" / "d.czi"
    data = damaged.read_bytes()
    damaged.write_bytes(_zeroed(data, len(data) // 2, 8192))
    assert root.run_until_idle() == 1
    found = root.by_name()
    assert _error(found["b.svs"]) == ("ERROR_FORMAT", "incomplete")
    assert _error(found["c.png"]) == ("ERROR_CONVERSION", "incomplete")
    assert _error(found["d.czi"]) == ("ERROR_CONVERSION", "incomplete")
    root.assert_clean()


def test_what_a_late_hash_finds_is_told(root: Root, tmp_path: Path) -> None:
    """Zeros inside of one tile, whose first bytes are right: it is published, and says so itself."""
    root.configure(storage={"hash": "after"})
    slide = _large(tmp_path / "a.svs")
    with tifffile.TiffFile(tmp_path / "a.svs") as tiff:
        page = tiff.pages[0].aspage()
        begin, length = page.dataoffsets[20], page.databytecounts[20]
    (tmp_path / "a.svs").write_bytes(_zeroed(slide, begin + 1000, length // 2))
    root.drop(tmp_path / "a.svs")
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()
    assert document["status"] == "DEPLOYED"
    [said] = document["warnings"]
    assert said.startswith("it is not whole, send it again: missing ")
    assert "a part of tile 20 of directory 0" in said
    assert '"not_whole"' in root.log.read_text()


def test_levels_that_are_appended(root: Root, tmp_path: Path) -> None:
    """Each state is a whole TIFF; what announces its levels waits for the last of them."""
    pixels = picture(1024, 1024)
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="1024" '
        'SizeY="1024" SizeC="3" SizeZ="3" SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="3"/>'
        '<TiffData IFD="0" PlaneCount="3"/></Pixels></Image></OME>'
    )
    root.start()
    target = root.path / "inbox" / "ann" / "a.ome.tif"
    target.parent.mkdir(parents=True)
    for plane in range(3):
        staged = tmp_path / "a.ome.tif"
        with tifffile.TiffWriter(staged) as tiff:
            for number in range(plane + 1):
                tiff.write(
                    pixels, tile=(256, 256), compression="jpeg", photometric="rgb", metadata=None,
                    description=text if number == 0 else None,
                )  # fmt: skip
        # As a writer does that opens the file again for each.
        target.write_bytes(staged.read_bytes())
        if plane < 2:
            root.wait(
                lambda plane=plane: any(
                    f"announces 3, and has {plane + 1}" in one["detail"] for one in root.waiting()
                )
            )
            assert root.manifests() == {}
    root.wait(
        lambda: root.by_name().get("a.ome.tif", {}).get("status") in ("CONVERTED", "DEPLOYED")
    )
    assert len(root.manifests()) == 1
    assert root.stop() == 0


@pytest.mark.skipif(samba.missing() is not None, reason=samba.missing() or "")
def test_holes_and_zeros_through_samba(root: Root, tmp_path: Path) -> None:
    """The same over SMB: the hole waits, the zeros are an error, and nothing wrong is published."""
    slide = _large(tmp_path / "a.svs")
    third = len(slide) // 3 // 4096 * 4096
    user = samba.getpass.getuser()
    for part in ("inbox", "status", "storage"):
        (root.path / part / user).mkdir(exist_ok=True, mode=0o770)
    tmp_path.chmod(0o755)
    share = Samba(tmp_path / "smb", root.path)
    try:
        root.start()
        with share.open("hole.svs") as file:
            file.truncate(len(slide))
            file.seek(0)
            file.write(slide[:third])
            file.seek(2 * third)
            file.write(slide[2 * third :])
        share.put("zeros.svs", _zeroed(slide, third, third // 2))
        share.put("whole.svs", slide)
        root.wait(lambda: {"zeros.svs", "whole.svs"} <= set(root.by_name()))
        root.wait(
            lambda: all(
                one["status"] in ("DEPLOYED", "ERROR_FORMAT") for one in root.manifests().values()
            )
        )
        found = root.by_name()
        assert _error(found["zeros.svs"]) == ("ERROR_FORMAT", "incomplete")
        assert found["whole.svs"]["status"] == "DEPLOYED"
        [waits] = root.wait(lambda: [one for one in root.waiting() if one["why"] == "incomplete"])
        assert "were never written" in waits["detail"]
        assert root.stop() == 0
    finally:
        share.stop()
