"""Stacks of a CellSens VSI: one plane is the picture, others are named, and none is mixed with another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from cytowatch.config import from_mapping
from cytowatch.formats.structure import vsi as structure
from cytowatch.pyramid.readers.vsi import open_vsi
from cytowatch.record.errors import ConversionError
from tests.builders import cellsens, picture
from tests.lab.pictures import Pictures

WIDTH, HEIGHT = 700, 500
PIXELS = picture(WIDTH, HEIGHT)
REAL = Path(__file__).resolve().parents[2].parent / "shared/samples/vsi/vsi-ets-test-jpg2k"
FLUORESCENT = ("DAPI", "FITC", "TRITC")


def _rolled(number: int) -> np.ndarray:
    """Another picture of the same size for each plane."""
    return np.roll(PIXELS, 60 * number, axis=1)


def _made(
    folder: Path, planes: Mapping[tuple[int, ...], np.ndarray], *, axes: str = "",
    channels: tuple[str, ...] = (), packing: int = cellsens.JPEG_2000,
    without: frozenset[tuple[int, ...]] = frozenset(),
) -> Path:  # fmt: skip
    inside = folder / "_A1_" / "stack1"
    inside.mkdir(parents=True)
    (inside / "frame_t.ets").write_bytes(cellsens.stack(planes, packing=packing, without=without))
    head = cellsens.vsi([(WIDTH, HEIGHT, 0)], axes=axes, channels=channels)
    (folder / "A1.vsi").write_bytes(head)
    return folder / "A1.vsi"


def _read(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    opened = open_vsi(str(path), from_mapping({}))
    [scene] = opened.scenes
    return scene.region.rows(0, scene.region.height), opened.done


def test_the_first_plane_is_the_picture(tmp_path: Path) -> None:
    """Of focal planes and times, in any order that they are numbered and stored."""
    for axes in ("ZT", "TZ"):
        numbers = [(one, other) for one in range(3) for other in range(2)]
        planes = {number: _rolled(number[0] + 3 * number[1]) for number in reversed(numbers)}
        found, done = _read(_made(tmp_path / axes, planes, axes=axes))
        assert np.array_equal(found, PIXELS)
        focal, times = (3, 2) if axes == "ZT" else (2, 3)
        assert done == (
            f"it has {focal} focal planes: the first is the pyramid",
            f"it has {times} times: the first is the pyramid",
        )


def test_planes_that_the_vsi_does_not_explain(tmp_path: Path) -> None:
    """They are counted all the same, and the first is the picture."""
    found, done = _read(_made(tmp_path, {(one,): _rolled(one) for one in (2, 1, 0)}))
    assert np.array_equal(found, PIXELS)
    assert done == ("it has 3 planes, and does not state of what: the first is the pyramid",)


@pytest.mark.parametrize("axes", ["", "Z"])
def test_no_picture_is_mixed_from_several_planes(tmp_path: Path, axes: str) -> None:
    """slideio would fill a place that the first plane lacks with a tile of the second: it is refused in words."""
    planes = {(one,): _rolled(one) for one in range(2)}
    path = _made(tmp_path, planes, axes=axes, without=frozenset({(1, 1, 0)}))
    with pytest.raises(ConversionError, match="mixed from several planes") as raised:
        _read(path)
    assert raised.value.reason == "unsupported_format"


def test_a_place_without_any_tile_was_not_scanned(tmp_path: Path) -> None:
    """It is white, and the rest is as it was."""
    found, done = _read(_made(tmp_path, {(0,): PIXELS}, without=frozenset({(1, 1, 0)})))
    assert done == ()
    assert np.array_equal(found[:256], PIXELS[:256])
    assert np.array_equal(found[256:, :256], PIXELS[256:, :256])
    assert (found[256:, 256:512] == 255).all()


@pytest.mark.parametrize(
    ("channels", "wanted"),
    [
        (FLUORESCENT, PIXELS[:, :, :1]),
        ((), PIXELS),
        (("Blue", "Green", "Red"), PIXELS[:, :, ::-1]),
    ],
)
def test_three_channels_are_colours_or_not(
    tmp_path: Path, channels: tuple[str, ...], wanted: np.ndarray
) -> None:
    """By their names, as in an OME-TIFF: three stains are not red, green and blue."""
    planes = {(one,): PIXELS[:, :, one] for one in range(3)}
    found, done = _read(_made(tmp_path, planes, axes="C", channels=channels))
    assert np.array_equal(found.reshape(HEIGHT, WIDTH, -1), wanted)
    assert done == (
        ("it has 3 channels: the first is the pyramid",) if channels == FLUORESCENT else ()
    )


def test_how_tiles_are_packed(tmp_path: Path) -> None:
    """Grey without compression is read; of colours slideio makes white, so they are refused."""
    grey = PIXELS[:, :, 1]
    for kind in (np.uint8, np.uint16):
        path = _made(tmp_path / kind.__name__, {(0,): grey.astype(kind)}, packing=cellsens.RAW)
        assert np.array_equal(_read(path)[0].reshape(HEIGHT, WIDTH), grey)
    with pytest.raises(ConversionError, match="without compression") as raised:
        _read(_made(tmp_path / "colours", {(0,): PIXELS}, packing=cellsens.RAW))
    assert raised.value.reason == "unsupported_format"


def test_a_stack_through_the_daemon(pictures: Pictures) -> None:
    """Its planes are named in the manifest, and the pyramid is the first of them."""
    _made(pictures.inbox / "case", {(one,): _rolled(one) for one in range(3)}, axes="Z")
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()["A1.vsi"]
    assert found["warnings"] == ["it has 3 focal planes: the first is the pyramid"]
    assert found["images"][0]["width"] == WIDTH


def test_our_tiles_are_those_of_slideio(tmp_path: Path) -> None:
    """Colours and grey, JPEG and JPEG 2000, of 8 bits and 16: the two decode the same."""
    import slideio

    wide = PIXELS.astype(np.uint16) * 257
    for number, (pixels, packing) in enumerate(
        [
            (PIXELS, cellsens.JPEG), (PIXELS[:, :, 0], cellsens.JPEG),
            (PIXELS, cellsens.JPEG_2000), (wide, cellsens.JPEG_2000),
            (wide[:, :, 1], cellsens.JPEG_2000),
        ]
    ):  # fmt: skip
        path = _made(tmp_path / str(number), {(0,): pixels}, packing=packing)
        theirs = slideio.open_slide(str(path), "VSI").get_scene(0).read_block()
        found, done = _read(path)
        assert done == ()
        found = found.reshape(theirs.shape)
        if packing == cellsens.JPEG_2000:
            assert np.array_equal(found, theirs)
            assert np.array_equal(found, pixels)
        else:
            # Two libraries of JPEG round, and enlarge chroma, each in its own way.
            assert np.abs(found.astype(int) - theirs).mean() < 1.5


@pytest.mark.parametrize("packing", [cellsens.JPEG, cellsens.JPEG_2000])
def test_a_damaged_tile_is_an_error(tmp_path: Path, packing: int) -> None:
    """Of the image, not of the process: slideio ends that at what is not a JPEG, and shows what is left of others."""
    path = _made(tmp_path, {(0,): PIXELS}, packing=packing)
    [stack] = tmp_path.rglob("*.ets")
    data = stack.read_bytes()
    begin = data.index(b"\xff\xd8\xff" if packing == cellsens.JPEG else b"\xff\x4f\xff\x51")
    junk = np.random.default_rng(1).bytes(1500)
    # What lies further inside of a JPEG 2000 has nothing that would tell.
    for at in (begin, begin + 700)[: 2 if packing == cellsens.JPEG else 1]:
        stack.write_bytes(data[:at] + junk + data[at + len(junk) :])
        with pytest.raises(ConversionError) as raised:
            _read(path)
        assert raised.value.reason == "damaged"


def test_two_stacks_of_one_size(tmp_path: Path) -> None:
    """It is not known which is which, and slideio reads them: a tile that is not a JPEG is found before."""
    others = {"stack1": PIXELS, "stack2": _rolled(2)}
    for name, pixels in others.items():
        (tmp_path / "_A1_" / name).mkdir(parents=True)
        data = cellsens.stack({(0,): pixels}, packing=cellsens.JPEG)
        (tmp_path / "_A1_" / name / "frame_t.ets").write_bytes(data)
    (tmp_path / "A1.vsi").write_bytes(cellsens.vsi([(WIDTH, HEIGHT, 0)] * 2))
    opened = open_vsi(str(tmp_path / "A1.vsi"), from_mapping({}))
    found = [scene.region.rows(0, HEIGHT).astype(int) for scene in opened.scenes]
    for wanted in others.values():
        assert min(np.abs(one - wanted).mean() for one in found) < 2
    path = tmp_path / "_A1_" / "stack2" / "frame_t.ets"
    data = path.read_bytes()
    at = data.rindex(b"\xff\xd8\xff")
    path.write_bytes(data[:at] + bytes(3) + data[at + 3 :])
    with pytest.raises(ConversionError, match="does not begin as it must"):
        open_vsi(str(tmp_path / "A1.vsi"), from_mapping({}))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real VSI is beside the repository only")
@pytest.mark.parametrize("number", [0, 4, 15])
def test_a_real_stack(tmp_path: Path, number: int) -> None:
    """Eleven focal planes of two channels: ours is the tile that is numbered first, whichever that is."""
    copied = shutil.copytree(REAL, tmp_path / "copied", copy_function=shutil.copyfile)
    [path] = copied.rglob("*.ets")
    descriptor = os.open(path, os.O_RDONLY)
    head = structure.ets(descriptor)
    os.close(descriptor)
    assert head is not None
    data = bytearray(path.read_bytes())
    listed = np.frombuffer(data, "<u4", head.tiles * head.entry_bytes // 4, head.where)
    listed = listed.reshape(head.tiles, -1)
    numbers = listed[:, 1 : 1 + head.axes]
    # The first plane is black. This one changes places with it.
    numbers[[0, number]] = numbers[[number, 0]]
    path.write_bytes(data)
    at, length = int(listed[number, 1 + head.axes]), int(listed[number, 3 + head.axes])
    wanted = imagecodecs.jpeg2k_decode(bytes(data[at : at + length]))
    found, done = _read(copied / "vsi-ets-test-jpg2k.vsi")
    assert np.array_equal(found[:, :, 0], wanted)
    assert wanted.any() == (number > 0)
    assert done == (
        "it has 2 channels: the first is the pyramid",
        "it has 11 focal planes: the first is the pyramid",
    )
