"""A warning names the pictures that a file holds beside the one that is shown."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from tests.builders import others, picture
from tests.builders.dicom import dicom_wsi
from tests.lab.pictures import Pictures

PIXELS = picture(300, 200)
IMAGE, OTHER = Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())


def _animation(path: Path) -> None:
    IMAGE.save(path, "PNG", save_all=True, append_images=[OTHER, IMAGE])


def _two_views(path: Path) -> None:
    IMAGE.save(path, "MPO", save_all=True, append_images=[OTHER], quality=95)


def _with_thumbnail(path: Path) -> None:
    """As cameras write for their own display: the second picture calls itself a large thumbnail."""
    _two_views(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"MPF\0") + 4
    order = "<" if data[at : at + 2] == b"II" else ">"
    [directory] = struct.unpack_from(f"{order}I", data, at + 4)
    [count] = struct.unpack_from(f"{order}H", data, at + directory)
    for entry in range(at + directory + 2, at + directory + 2 + 12 * count, 12):
        number, _, _, place = struct.unpack_from(f"{order}HHII", data, entry)
        if number == 0xB002:
            struct.pack_into(f"{order}I", data, at + place + 16, 0x010001)
    path.write_bytes(data)


def _stream(path: Path) -> None:
    path.write_bytes((b"P6\n300 200\n255\n" + PIXELS.tobytes()) * 3)


def _text_behind(path: Path) -> None:
    path.write_bytes(b"P6\n300 200\n255\n" + PIXELS.tobytes() + b"Patient 7")


def _codestreams(path: Path) -> None:
    data = others.jp2(path, width=300, height=200).read_bytes()
    at = data.index(b"jp2c") - 4
    stream = data[at + 8 :]
    box = struct.pack(">I4s", 8 + len(stream), b"jp2c") + stream
    path.write_bytes(data[:at] + box * 2)


def _ome_without_places(path: Path) -> None:
    """Two channels that no TiffData places: tifffile takes the pages as they come."""
    pixels = '<Pixels DimensionOrder="XYCZT" Type="uint8" SizeX="300" SizeY="200" SizeC="2" SizeZ="1" SizeT="1"/>'
    about = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>{pixels}</Image></OME>'
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS[:, :, 0], description=about, metadata=None)
        tiff.write(PIXELS[:, :, 1], metadata=None)


def _stack(path: Path) -> None:
    """As ImageJ writes beyond 4 GB: all planes behind one another, and a directory for the first."""
    tifffile.imwrite(path, np.stack([PIXELS[:, :, 0]] * 5), imagej=True)
    data = bytearray(path.read_bytes())
    order = "<" if data[:2] == b"II" else ">"
    [at] = struct.unpack_from(f"{order}I", data, 4)
    [count] = struct.unpack_from(f"{order}H", data, at)
    struct.pack_into(f"{order}I", data, at + 2 + 12 * count, 0)
    path.write_bytes(data)


def _volume(path: Path) -> None:
    stack = np.stack([PIXELS[:, :, 0]] * 16)
    tifffile.imwrite(
        path, stack, photometric="minisblack", volumetric=True, tile=(16, 64, 64), metadata=None
    )


MADE = {
    "stack.tif": (_stack, "5 planes"),
    "volume.tif": (_volume, "16 planes"),
    "animation.png": (_animation, "3 pictures of an animation"),
    "views.jpg": (_two_views, "2 pictures"),
    "camera.jpg": (_with_thumbnail, None),
    "stream.ppm": (_stream, "further pictures"),
    "text.ppm": (_text_behind, None),
    "codestreams.jpf": (_codestreams, "2 pictures"),
    "channels.ome.tif": (_ome_without_places, "2 "),
}


def test_what_is_not_shown_is_told(pictures: Pictures) -> None:
    """The first picture is the pyramid, and a warning says that there are more."""
    for name, (make, _) in MADE.items():
        make(pictures.inbox / name)
    assert pictures.treated() == 0
    found = pictures.by_name()
    assert found.keys() == MADE.keys()
    for name, (_, words) in MADE.items():
        told = [line for line in found[name]["warnings"] if "the pyramid" in line]
        assert len(told) == (words is not None), (name, told)
        assert words is None or words in told[0], (name, told)


def _twice_the_frames(path: Path, **stated: object) -> None:
    """Every frame once more behind all of them, upside down, as another plane."""
    import pydicom
    from pydicom.encaps import encapsulate, generate_frames

    one: Any = pydicom.dcmread(path)
    count = int(one.NumberOfFrames)
    frames = list(generate_frames(one.PixelData, number_of_frames=count))
    one.PixelData = encapsulate(frames + frames[::-1])
    one.NumberOfFrames = 2 * count
    for key, value in stated.items():
        setattr(one, key, value)
    one.save_as(path)


@pytest.mark.parametrize(
    ("stated", "words", "status"),
    [
        ({"TotalPixelMatrixFocalPlanes": 2}, "2 focal planes", "CONVERTED"),
        ({"NumberOfOpticalPaths": 2}, "2 channels", "DEPLOYED"),
    ],
)
def test_planes_of_a_slide_in_dicom(
    pictures: Pictures, stated: dict[str, object], words: str, status: str
) -> None:
    """OpenSlide refuses focal planes, and shows the first of several channels without a word."""
    _twice_the_frames(dicom_wsi(pictures.inbox / "slide", levels=1), **stated)
    assert pictures.treated() == 0
    [found] = [one for one in pictures.manifests().values() if one["format"]["id"] == "dicom"]
    assert found["status"] == status
    assert any(words in line for line in found["warnings"]), found["warnings"]
    [image] = found["images"]
    with openslide.OpenSlide(found["_path"] / image["file"]) as slide:
        shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    assert np.abs(shown.astype(int) - picture(512, 512)).mean() < 3


@pytest.mark.parametrize(
    ("kind", "words"),
    [("LABEL", "the label of a slide"), ("THUMBNAIL", "the thumbnail of a slide")],
)
def test_what_lies_beside_a_slide_in_dicom(pictures: Pictures, kind: str, words: str) -> None:
    """Without the slide it is named, with what has to be sent: to copy it again does not help."""
    stated = {"ImageType": ["ORIGINAL", "PRIMARY", kind, "NONE"]}
    dicom_wsi(pictures.inbox / "slide", levels=1, **stated)
    pictures.treated()
    [error] = [one["error"] for one in pictures.manifests().values() if one["error"]]
    assert error["reason"] == "unsupported_format"
    assert words in error["detail"]
