"""DICOM that is two formats, states other colours than its frames have, or holds a level twice."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from cytowatch.formats.completeness.whole import missing
from cytowatch.formats.doubles import is_whole_slide
from cytowatch.formats.structure.jpeg import is_ycbcr
from tests.builders import bare_tiff, picture
from tests.builders import jpeg as a_jpeg
from tests.builders.dicom import dicom_wsi, frame, with_tiff
from tests.lab.pictures import Pictures, shown
from tests.lab.root import Root

PIXELS = picture(700, 500)


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def _subsampled(pixels: np.ndarray) -> bytes:
    return frame(pixels, subsampling=2)


def _bare_subsampled(pixels: np.ndarray) -> bytes:
    """Without JFIF's mark: only its chroma shows that it is YCbCr."""
    data = frame(pixels, subsampling=2)
    length = int.from_bytes(data[4:6])
    return data[:2] + data[4 + length :]


def _rgb(pixels: np.ndarray) -> bytes:
    """With Adobe's mark, which says that nothing was transformed."""
    return imagecodecs.jpeg8_encode(pixels, level=95, colorspace="RGB", outcolorspace="RGB")


#: What its frames are, what its header states, and whether it is native.
COLOURS = {
    "right": (frame, "YBR_FULL_422", True),
    "right rgb": (_rgb, "RGB", True),
    "bfconvert": (_subsampled, "RGB", False),
    "jfif": (frame, "RGB", False),
    "bare": (_bare_subsampled, "RGB", False),
    "rgb as ybr": (_rgb, "YBR_FULL_422", False),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_the_colours_are_those_of_the_frames(pictures: Pictures, kind: str) -> None:
    """No matter what the header states: deployed natively where OpenSlide shows them, else as a pyramid."""
    encode, stated, native = COLOURS[kind]
    size = {"width": 700, "height": 500, "label": True}
    dicom_wsi(pictures.inbox / "case", encode=encode, photometric=stated, pieces=2, **size)
    assert pictures.treated() == 0, pictures.said()
    document = next(one for one in pictures.manifests().values() if one["format"]["id"] == "dicom")
    assert document["status"] == ("DEPLOYED" if native else "CONVERTED")
    [image] = document["images"]
    assert (image["mpp_x"], image["objective_power"]) == (pytest.approx(0.5), 20)
    assert image["associated"] == ["label"]
    assert _psnr(shown(document), PIXELS) > 34
    assert any("would show it wrongly" in line for line in document["warnings"]) != native
    if not native:
        label = next(row["path"] for row in document["files"] if row["role"] == "label")
        assert _psnr(np.asarray(Image.open(document["_path"] / label)), picture(200, 100)) > 28
    pictures.check_hashes()


def test_what_cannot_be_derived_has_a_warning(pictures: Pictures) -> None:
    """Frames that lie over each other are left to OpenSlide, and the colours are reported."""
    path = dicom_wsi(
        pictures.inbox / "case", encode=_subsampled, photometric="RGB", sparse=True, levels=1
    )
    one = pydicom.dcmread(path)
    places = one.PerFrameFunctionalGroupsSequence
    places[1].PlanePositionSlideSequence = places[0].PlanePositionSlideSequence
    one.save_as(path)
    assert pictures.treated() == 0, pictures.said()
    document = next(one for one in pictures.manifests().values() if one["format"]["id"] == "dicom")
    assert document["status"] == "DEPLOYED"
    assert document["warnings"] == [
        "its colours may be shown wrongly: its header states RGB of frames that are YCbCr"
    ]


def test_frames_say_what_they_are(tmp_path: Path) -> None:
    """By JFIF, Adobe's mark and subsampling; without any it is what the header states."""
    pixels = PIXELS[:256, :256]
    bare = frame(pixels)
    bare = bare[:2] + bare[4 + int.from_bytes(bare[4:6]) :]
    told = [
        [is_ycbcr(data, stated=stated) for stated in (False, True)]
        for data in (frame(pixels), _bare_subsampled(pixels), _rgb(pixels), bare, b"no JPEG")
    ]
    assert told == [[True, True], [True, True], [False, False], [False, True], [None, None]]


def test_a_dicom_that_is_a_tiff_as_well(root: Root, tmp_path: Path) -> None:
    """It is one slide in DICOM, loose, under the name of a TIFF and in a zip; a cut one waits as DICOM."""
    root.configure(inbox="folder_quiet_s = 1.0")
    inbox = root.path / "inbox" / "ann"
    made = tmp_path / "made"
    for folder in (inbox, made):
        dicom_wsi(folder, width=700, height=500)
        with_tiff(folder / "level0.dcm", width=700, height=500)
        with_tiff(folder / "level1.dcm", width=350, height=250)
    with tifffile.TiffFile(made / "level0.dcm") as tiff:
        assert tiff.pages[0].shape == PIXELS.shape
    shutil.make_archive(str(inbox / "packed"), "zip", made)
    (made / "level0.dcm").rename(inbox / "slide.tif")
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    found = [one for one in root.manifests().values() if one["format"]["id"] == "dicom"]
    assert sorted(len(one["images"][0]["levels"]) for one in found) == [1, 2, 2]
    assert len(root.manifests()) == 4
    for document in found:
        assert (document["status"], document["format"]["openslide_vendor"]) == ("DEPLOYED", "dicom")
        assert _psnr(shown(document), PIXELS) > 34


def test_a_dicom_that_is_a_tiff_as_well_and_is_cut(tmp_path: Path) -> None:
    """Its pixels must end, even where a long list of tiles follows; its TIFF need not be whole."""
    whole = with_tiff(dicom_wsi(tmp_path / "a"), width=512, height=512).read_bytes()
    end = whole.index(b"\xfe\xff\xdd\xe0")
    for data, lacks in (
        (whole, False),
        (whole + bytes(3 << 20), False),
        (whole[: end + 8], False),
        (whole[:end], True),
        (whole[: end // 2], True),
    ):
        assert is_whole_slide(data[:4096])
        path = tmp_path / "b.dcm"
        path.write_bytes(data)
        with path.open("rb") as file:
            assert (missing(file.fileno(), len(data)) is not None) == lacks


def test_tags_of_tiff_alone_do_not_make_dicom(pictures: Pictures) -> None:
    """The four letters at 128 are not enough: the class of the file must be that of whole slides."""
    inbox = pictures.inbox
    strip = bytearray(PIXELS[:20, :20, 0].tobytes())
    strip[120:124] = b"DICM"
    bare_tiff(inbox / "a.tif", bytes(strip), width=20, height=20, tag_258=(8,), tag_259=(1,), tag_262=(1,), tag_277=(1,))  # fmt: skip
    assert pictures.treated() == 0
    assert pictures.by_name()["a.tif"]["format"]["id"] == "planar-tiff"


def test_a_level_that_is_there_twice(pictures: Pictures) -> None:
    """The two files are named, and what to do; not two UIDs only."""
    dicom_wsi(pictures.inbox / "case", repeated=True)
    assert pictures.treated() == 1
    document = next(one for one in pictures.manifests().values() if one["error"])
    assert document["error"]["reason"] == "unreadable"
    assert document["error"]["detail"].startswith(
        "two of its files hold the same level of 512 x 512 pixels, level0.dcm and level0b.dcm: send"
    )


def test_a_zip_behind_an_image(pictures: Pictures, tmp_path: Path) -> None:
    """The image is taken, the zip stays in the original, and both are reported."""
    inbox = pictures.inbox
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.txt").write_text("hidden")
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "packed"))
    image = a_jpeg(tmp_path / "a.jpg").read_bytes()
    (inbox / "both.jpg").write_bytes(image + archive.read_bytes())
    (inbox / "one.jpg").write_bytes(image)
    assert pictures.treated() == 0
    said = "a zip archive is appended to it, which was not unpacked"
    for name, document in pictures.by_name().items():
        assert document["status"] == "CONVERTED"
        assert (said in document["warnings"]) == (name == "both.jpg")
        assert np.asarray(Image.open(io.BytesIO(image))).shape == shown(document).shape


def test_a_slide_without_the_level_that_was_scanned_says_so(pictures: Pictures) -> None:
    """Its largest file is the likeliest to be lost on the way, and what is left is a slide of fewer pixels."""
    whole, reduced = pictures.inbox / "whole", pictures.inbox / "reduced"
    dicom_wsi(whole, levels=3)
    (dicom_wsi(reduced, levels=3)).unlink()
    assert pictures.treated() == 0, pictures.said()
    slides = [one for one in pictures.manifests().values() if one["status"] == "DEPLOYED"]
    told = {one["drop_path"].split("/")[1]: one["warnings"] for one in slides}
    assert told["whole"] == []
    [warning] = told["reduced"]
    assert "only reduced copies" in warning
