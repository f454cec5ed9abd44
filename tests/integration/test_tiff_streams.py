"""TIFFs whose tiles say of their colours themselves what their tags say otherwise, or not at all."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from cytowatch.config import from_mapping
from cytowatch.formats.structure import jpeg
from cytowatch.formats.structure.tiff import Tiff
from cytowatch.pyramid import contradicted
from cytowatch.pyramid.readers.pages import open_page
from cytowatch.record.errors import ConversionError
from tests.builders import bare_tiff, picture
from tests.lab.pictures import Pictures
from tests.needs import needs

CONFIG = from_mapping({})
RGB, YCBCR = 2, 6
PIXELS = picture(512, 512)
APERIO = "Aperio Image Library v11.2.1 \r\n512x512 [0,0 512x512] (128x128) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def _stream(pixels: np.ndarray, colours: int, *, marked: bool = True) -> bytes:
    """A JPEG of these colours; without its marks only the names of its components are left."""
    space = "RGB" if colours == RGB else "YCBCR"
    data = imagecodecs.jpeg8_encode(
        pixels, level=95, colorspace="RGB", outcolorspace=space, subsampling="444"
    )
    if marked:
        return bytes(data)
    kept = [data[a:b] for marker, a, b in jpeg.segments(data) if marker not in (0xE0, 0xEE)]
    *_, (_, _, end) = jpeg.segments(data)
    return bytes(data[:2] + b"".join(kept) + data[end:])


def _pyramid(path: Path, stream: int, stated: int, *, text: str | None = None) -> Path:
    """Two levels of JPEG tiles of the colours `stream`, of which the tags say `stated`."""
    packed: dict[str, Any] = {"level": 95}
    if stream == RGB:
        packed |= {"colorspace": "rgb", "outcolorspace": "rgb"}
    with tifffile.TiffWriter(path) as made:
        for level in (1, 2):
            made.write(
                np.ascontiguousarray(PIXELS[::level, ::level]), tile=(128, 128), photometric="rgb",
                compression="jpeg", compressionargs=packed, subfiletype=level - 1, metadata=None,
                description=text, software="",
            )  # fmt: skip
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page in tiff.pages:
            page.tags[262].overwrite(stated)
    return path


def _of_stream(path: Path, stream: bytes, pixels: np.ndarray, compression: int, photometric: int, **tags: Any) -> Path:  # fmt: skip
    """A TIFF of one strip that is such a stream."""
    height, width = pixels.shape[:2]
    bare_tiff(
        path, stream, width=width, height=height, tag_258=(8, 8, 8), tag_259=(compression,),
        tag_262=(photometric,), tag_277=(3,), **tags,
    )  # fmt: skip
    return path


def _read(path: Path) -> np.ndarray:
    opened = open_page(str(path), CONFIG)
    [scene] = opened.scenes
    found = scene.region.rows(0, scene.region.height)
    opened.close()
    return found


@pytest.mark.parametrize(
    ("stream", "stated", "marked", "contradicts"),
    [
        (RGB, RGB, True, False), (RGB, RGB, False, False), (YCBCR, YCBCR, True, False),
        (YCBCR, YCBCR, False, False), (YCBCR, RGB, True, True), (RGB, YCBCR, True, True),
        (RGB, YCBCR, False, True),
    ],
)  # fmt: skip
def test_the_marks_of_a_jpeg_decide(
    tmp_path: Path, stream: int, stated: int, marked: bool, contradicts: bool
) -> None:
    """JFIF, Adobe's, or its components are called R, G and B: by whichever reader, it is what was packed."""
    pixels = PIXELS[:96, :120]
    path = _of_stream(tmp_path / "a.tif", _stream(pixels, stream, marked=marked), pixels, 7, stated)
    with path.open("rb") as file:
        tiff = Tiff(file.fileno(), path.stat().st_size)
        assert (contradicted.said(tiff) is not None) == contradicts
    assert _psnr(_read(path), pixels) > 34


def test_a_subsampled_jpeg_is_ycbcr(tmp_path: Path) -> None:
    """RGB never is, and no mark is needed."""
    pixels = PIXELS[:96, :120]
    data = imagecodecs.jpeg8_encode(pixels, level=95, subsampling="420")
    path = _of_stream(tmp_path / "a.tif", data, pixels, 7, RGB)
    assert _psnr(_read(path), pixels) > 34


def test_slides_of_other_colours_than_are_stated(pictures: Pictures) -> None:
    """OpenSlide would go by the tags: a pyramid is derived, in the right colours, and the reason is given."""
    inbox = pictures.inbox
    for stream in (RGB, YCBCR):
        for stated in (RGB, YCBCR):
            _pyramid(inbox / f"{stream} as {stated}.tif", stream, stated)
            _pyramid(inbox / f"{stream} as {stated}.svs", stream, stated, text=APERIO)
    pixels = PIXELS[:96, :120]
    _of_stream(inbox / "6 as 2 flat.tif", _stream(pixels, YCBCR), pixels, 7, RGB)
    assert pictures.treated() == 0, pictures.said()
    assert len(pictures.by_name()) == 9
    for name, document in pictures.by_name().items():
        wrong = name[0] != name[5]
        is_flat = "flat" in name
        assert document["status"] == ("CONVERTED" if wrong else "DEPLOYED"), name
        said = [line for line in document["warnings"] if "though it states" in line]
        assert bool(said) == wrong, document["warnings"]
        [image] = document["images"]
        with openslide.OpenSlide(document["_path"] / image["file"]) as slide:
            shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        assert _psnr(shown, pixels if is_flat else PIXELS) > 34, name


#: Compression, PhotometricInterpretation, whether the components were transformed together: YCbCr or RGB.
JPEGS_2000 = [
    (33005, RGB, False, RGB), (33005, RGB, True, RGB), (34712, RGB, False, RGB), (34712, RGB, True, RGB),
    (33003, RGB, True, RGB), (33003, YCBCR, True, RGB), (34712, YCBCR, True, RGB),
    # Aperio's number says YCbCr.
    (33003, RGB, False, YCBCR), (33003, YCBCR, False, YCBCR), (34712, YCBCR, False, YCBCR),
]  # fmt: skip


@pytest.mark.parametrize(("compression", "photometric", "together", "stored"), JPEGS_2000)
def test_the_colours_of_a_jpeg_2000(
    tmp_path: Path, compression: int, photometric: int, together: bool, stored: int
) -> None:
    """YCbCr where the page or Aperio's number states it, and its components were not transformed together."""
    pixels = PIXELS[:96, :120]
    packed = np.asarray(Image.fromarray(pixels).convert("YCbCr")) if stored == YCBCR else pixels
    stream = imagecodecs.jpeg2k_encode(packed, level=0, mct=together, codecformat="j2k")
    path = _of_stream(tmp_path / "a.tif", stream, pixels, compression, photometric)
    assert _psnr(_read(path), pixels) > 40


@needs("opj_compress")
@pytest.mark.parametrize("steps", ["2x1", "2x2"])
@pytest.mark.parametrize("size", [(120, 96), (121, 97)])
@pytest.mark.parametrize("photometric", [RGB, YCBCR])
def test_subsampled_colours_of_a_jpeg_2000(
    tmp_path: Path, steps: str, size: tuple[int, int], photometric: int
) -> None:
    """They are enlarged; where imagecodecs would put them in wrong places, they are refused by name."""
    width, height = size
    across, down = map(int, steps.split("x"))
    pixels = picture(width, height)
    ycbcr = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    chroma = ycbcr[::down, ::across, 1:]
    raw = b"".join(plane.tobytes() for plane in (ycbcr[:, :, 0], chroma[:, :, 0], chroma[:, :, 1]))
    (tmp_path / "a.raw").write_bytes(raw)
    form = f"{width},{height},3,8,u@1x1:{steps}:{steps}"
    command = ["opj_compress", "-i", "a.raw", "-o", "a.j2k", "-F", form, "-mct", "0"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    stream = (tmp_path / "a.j2k").read_bytes()
    for compression in (33003, 34712):
        path = _of_stream(tmp_path / "a.tif", stream, pixels, compression, photometric, tag_530=(across, down))  # fmt: skip
        if width % 2:
            with pytest.raises(ConversionError, match="subsampled colours in 121 x 97") as raised:
                _read(path)
            assert raised.value.reason == "unsupported_format"
            continue
        enlarged = np.dstack(
            [ycbcr[:, :, :1], np.repeat(np.repeat(chroma, down, axis=0), across, axis=1)]
        )
        wanted = np.asarray(Image.fromarray(enlarged, "YCbCr").convert("RGB"))
        assert _psnr(_read(path), wanted) > 40
