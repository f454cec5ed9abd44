"""DICOM whose frames OpenSlide does not read: planes, palettes, grey and other packings, shown as they were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from cytowatch.config import from_mapping
from cytowatch.formats.completeness import arrival, whole
from cytowatch.pyramid.readers.dicom import is_foreign, open_dicom, parts
from cytowatch.record.errors import ConversionError
from tests.builders import picture
from tests.builders.dicom import UNPACKED, dicom_wsi, frame
from tests.lab.pictures import Pictures

IMPLICIT, EXPLICIT = UNPACKED
ROOT = "1.2.840.10008.1.2.4."
PIXELS = picture(700, 500)
GREY = PIXELS[:, :, 1:2]
PALETTE = np.random.default_rng(3).integers(0, 256, (256, 3), dtype=np.uint8)
LONG = np.random.default_rng(4).integers(0, 256, (512, 3), dtype=np.uint8)
ONE = {"SamplesPerPixel": 1, "PlanarConfiguration": None}
WIDE = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}
TWELVE = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a tile is stored, what the header says, and what must be shown; `loose` is the error of a lossy step."""

    encode: Callable[[np.ndarray], bytes]
    wanted: np.ndarray
    photometric: str = "RGB"
    syntax: str = EXPLICIT
    palette: np.ndarray | None = None
    stated: dict[str, object] = field(default_factory=dict)
    loose: float = 0.0


def _planes(pixels: np.ndarray) -> bytes:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()


def _ycbcr(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("YCbCr"))


def _halved(pixels: np.ndarray) -> bytes:
    """Two of brightness, then the chroma that they share (PS3.3, C.7.6.3.1.2)."""
    found = _ycbcr(pixels)
    pairs = found.reshape(len(found), -1, 2, 3)
    return np.concatenate([pairs[:, :, :, 0], pairs[:, :, 0, 1:]], axis=2).tobytes()


def _green(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, :, 1])


def _run_lengths(pixels: np.ndarray) -> bytes:
    """As annex G of PS3.5 says: a header of 64 bytes, then each plane packed row by row."""
    planes = [
        b"".join(imagecodecs.packbits_encode(np.ascontiguousarray(row)) for row in plane)
        for plane in pixels.transpose(2, 0, 1)
    ]
    planes = [plane + b"\0" * (len(plane) % 2) for plane in planes]
    begins = np.cumsum([64, *map(len, planes)])[:-1]
    head = np.array([len(planes), *begins], "<u4").tobytes()
    return head.ljust(64, b"\0") + b"".join(planes)


def _jpeg_2000(pixels: np.ndarray, *, together: bool = False) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, level=0, mct=together, codecformat="j2k")


CASES = {
    "planes": Case(encode=_planes, wanted=PIXELS, stated={"PlanarConfiguration": 1}),
    "implicit": Case(encode=np.ndarray.tobytes, wanted=PIXELS, syntax=IMPLICIT),
    "ycbcr": Case(encode=lambda one: _ycbcr(one).tobytes(), wanted=PIXELS, photometric="YBR_FULL", loose=4),
    "ycbcr in planes": Case(
        encode=lambda one: _planes(_ycbcr(one)), wanted=PIXELS, photometric="YBR_FULL",
        stated={"PlanarConfiguration": 1}, loose=4,
    ),
    "half the chroma": Case(encode=_halved, wanted=PIXELS, photometric="YBR_FULL_422", loose=4),
    "grey": Case(encode=lambda one: _green(one).tobytes(), wanted=GREY, photometric="MONOCHROME2", stated=ONE),
    "grey, 0 is white": Case(
        encode=lambda one: (255 - _green(one)).tobytes(), wanted=GREY, photometric="MONOCHROME1", stated=ONE,
    ),
    "grey of 16 bits": Case(
        encode=lambda one: (_green(one).astype("<u2") * 257).tobytes(), wanted=GREY.astype(np.uint16) * 257,
        photometric="MONOCHROME2", stated={**ONE, **WIDE},
    ),
    "grey of 12 bits": Case(
        encode=lambda one: (_green(one).astype("<u4") * 4095 // 255).astype("<u2").tobytes(),
        wanted=(GREY.astype(np.uint32) * 4095 // 255 * 65535 // 4095).astype(np.uint16),
        photometric="MONOCHROME2", stated={**ONE, **TWELVE},
    ),
    "rgb of 16 bits": Case(
        encode=lambda one: (one.astype("<u2") * 257).tobytes(), wanted=PIXELS.astype(np.uint16) * 257, stated=WIDE,
    ),
    "palette": Case(
        encode=lambda one: _green(one).tobytes(), wanted=PALETTE[GREY[:, :, 0]], palette=PALETTE,
        photometric="PALETTE COLOR", stated=ONE,
    ),
    "palette of 16 bits": Case(
        encode=lambda one: _green(one).tobytes(), wanted=PALETTE[GREY[:, :, 0]],
        palette=PALETTE.astype("<u2") * 257, photometric="PALETTE COLOR", stated=ONE,
    ),
    "palette of 512 colours": Case(
        encode=lambda one: (_green(one).astype("<u2") + 200).tobytes(), wanted=LONG[GREY[:, :, 0].astype(int) + 200],
        palette=LONG, photometric="PALETTE COLOR", stated={**ONE, **WIDE},
    ),
    "run lengths": Case(encode=_run_lengths, wanted=PIXELS, syntax="1.2.840.10008.1.2.5"),
    "palette in run lengths": Case(
        encode=lambda one: _run_lengths(one[:, :, 1:2]), wanted=PALETTE[GREY[:, :, 0]], palette=PALETTE,
        photometric="PALETTE COLOR", stated=ONE, syntax="1.2.840.10008.1.2.5",
    ),
    "jpeg-ls": Case(encode=imagecodecs.jpegls_encode, wanted=PIXELS, syntax=f"{ROOT}80"),
    "lossless jpeg": Case(
        encode=lambda one: imagecodecs.jpeg8_encode(one, lossless=True), wanted=PIXELS, syntax=f"{ROOT}70",
    ),
    "jpeg 2000 of ycbcr": Case(
        encode=lambda one: _jpeg_2000(_ycbcr(one)), wanted=PIXELS, photometric="YBR_FULL", syntax=f"{ROOT}90", loose=4,
    ),
    "jpeg 2000 that is called ycbcr": Case(
        encode=lambda one: _jpeg_2000(one, together=True), wanted=PIXELS, photometric="YBR_FULL", syntax=f"{ROOT}90",
    ),
    "grey jpeg": Case(
        encode=lambda one: imagecodecs.jpeg8_encode(_green(one), level=98), wanted=GREY,
        photometric="MONOCHROME2", stated=ONE, syntax=f"{ROOT}50", loose=4,
    ),
    "jpeg that is said to be in planes": Case(
        encode=frame, wanted=PIXELS, photometric="YBR_FULL_422", syntax=f"{ROOT}50",
        stated={"PlanarConfiguration": 1}, loose=12,
    ),
}  # fmt: skip


def _made(folder: Path, case: Case, **options: object) -> Path:
    return dicom_wsi(
        folder, width=700, height=500, encode=case.encode, photometric=case.photometric,
        syntax=case.syntax, palette=case.palette, **{**case.stated, **options},
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_frame(tmp_path: Path, name: str) -> None:
    """The rows of the largest level are the pixels that were stored, computed without a reader of DICOM."""
    case = CASES[name]
    path = _made(tmp_path / "case", case)
    assert is_foreign(parts(str(path)))
    opened = open_dicom(str(path), from_mapping({}))
    [scene] = opened.scenes
    region = scene.region
    # Across the border of two rows of tiles as well.
    found = np.concatenate([region.rows(0, 200), region.rows(200, region.height)])
    opened.close()
    assert (found.shape, found.dtype) == (case.wanted.shape, case.wanted.dtype)
    assert np.abs(found.astype(int) - case.wanted).max() <= case.loose
    assert (scene.mpp.x, scene.mpp.y) == pytest.approx((0.5, 0.5))
    assert scene.objective_power == 20


@pytest.mark.parametrize("value", [0, 40, 255])
@pytest.mark.parametrize(
    "name", ["planes", "run lengths", "jpeg-ls", "lossless jpeg", "jpeg 2000 of ycbcr"]
)
def test_flat_frames_are_not_damaged(tmp_path: Path, name: str, value: int) -> None:
    """A flat picture without loss is packed to zeros, and each of them is needed."""
    case = CASES[name]
    flat = replace(case, encode=lambda tile: case.encode(np.full_like(tile, value)))
    path = _made(tmp_path / "case", flat, levels=1)
    watch = arrival.of_native(str(path))
    watch.feed(path.read_bytes())
    assert watch.verdict().lacks is None
    with path.open("rb") as file:
        assert whole.missing(file.fileno(), path.stat().st_size) is None
    opened = open_dicom(str(path), from_mapping({}))
    found = opened.scenes[0].region.rows(0, 500)
    opened.close()
    assert np.abs(found.astype(int) - value).max() <= case.loose


@pytest.mark.parametrize("name", ["run lengths", "jpeg-ls"])
def test_zeros_in_packed_frames_never_came(tmp_path: Path, name: str) -> None:
    """None of these packs to so many."""
    case = CASES[name]
    path = _made(tmp_path / "case", case, levels=1)
    data = bytearray(path.read_bytes())
    begin = len(data) // 2
    data[begin : begin + 2000] = bytes(2000)
    path.write_bytes(data)
    watch = arrival.of_native(str(path))
    watch.feed(bytes(data))
    assert "a part of frame" in (watch.verdict().lacks or "")


def test_they_are_derived_by_the_daemon(pictures: Pictures) -> None:
    """With the size of a pixel, a label and the reason; what OpenSlide reads stays native."""
    for name in ("planes", "palette", "grey"):
        _made(pictures.inbox / name, CASES[name], label=True)
    _made(pictures.inbox / "plain", Case(encode=np.ndarray.tobytes, wanted=PIXELS))
    assert pictures.treated() == 0, pictures.said()
    for document in pictures.manifests().values():
        if document["format"]["id"] != "dicom":
            continue
        case = document["drop_path"].split("/")[1]
        [image] = document["images"]
        assert (image["mpp_x"], image["objective_power"]) == (pytest.approx(0.5), 20)
        assert document["status"] == ("DEPLOYED" if case == "plain" else "CONVERTED")
        assert image["samples_per_pixel"] == (1 if case == "grey" else 3)
        assert image["associated"] == ([] if case == "plain" else ["label"])
        said = [line for line in document["warnings"] if "OpenSlide does not read it" in line]
        assert bool(said) == (case != "plain")
    pictures.check_hashes()


def test_frames_that_are_cut_are_damage(tmp_path: Path) -> None:
    """Where they are not packed, their number and size say how long they are."""
    path = _made(tmp_path / "case", CASES["planes"], levels=1)
    path.write_bytes(path.read_bytes()[:-200_000])
    with pytest.raises(ConversionError, match="bytes for 6 frames") as raised:
        open_dicom(str(path), from_mapping({}))
    assert raised.value.reason == "damaged"


def test_what_is_not_known_stays_refused(tmp_path: Path) -> None:
    """Signed samples, frames that state no place though they should, and two files of one level are left to OpenSlide's word."""
    planes = CASES["planes"]
    for number, options in enumerate(
        [
            {"PixelRepresentation": 1},
            {"sparse": True, "PerFrameFunctionalGroupsSequence": None},
            {"repeated": True},
        ]
    ):
        path = _made(tmp_path / str(number), planes, **options)
        assert not is_foreign(parts(str(path)))
