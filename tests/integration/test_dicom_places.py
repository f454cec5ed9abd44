"""A level in DICOM that lies in several files, or whose frames state their places: all of it, or the reason."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pydicom
import pytest
from PIL import Image

from cytowatch.formats.completeness import arrival
from tests.builders import picture
from tests.builders.dicom import dicom_wsi, frame
from tests.lab.pictures import Pictures, shown

#: Twelve tiles of 256 pixels.
PIXELS = picture(1024, 768)
SIZE = {"width": 1024, "height": 768}


def _document(pictures: Pictures) -> dict[str, Any]:
    """The slide's; the folder that it came in has another."""
    [found] = [one for one in pictures.manifests().values() if one["parent_id"] is not None]
    return found


def _changed(path: Path, change: Callable[[Any], None]) -> None:
    one = pydicom.dcmread(path)
    change(one)
    one.save_as(path)


def _far(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("sparse", [False, True])
def test_a_concatenation_stays_native(pictures: Pictures, sparse: bool) -> None:
    """OpenSlide joins its files, whether their frames state their places or not."""
    dicom_wsi(pictures.inbox / "case", pieces=3, sparse=sparse, **SIZE)
    assert pictures.treated() == 0, pictures.said()
    document = _document(pictures)
    assert (document["status"], document["warnings"]) == ("DEPLOYED", [])
    assert _far(shown(document), PIXELS) < 1


@pytest.mark.parametrize("sparse", [False, True])
def test_a_concatenation_without_one_of_its_files(pictures: Pictures, sparse: bool) -> None:
    """It is not whole, and the error has the number of the file: it was to be copied again as one that cannot be opened."""
    dicom_wsi(pictures.inbox / "case", pieces=3, sparse=sparse, **SIZE)
    (pictures.inbox / "case" / "level0_1.dcm").unlink()
    assert pictures.treated() == 1
    error = _document(pictures)["error"]
    assert (error["reason"], error["retryable"]) == ("incomplete", True)
    assert "missing file 2 of the 3 that hold its level of 1024 x 768 pixels" in error["detail"]


def test_a_level_that_is_only_split_is_joined_by_its_places(pictures: Pictures) -> None:
    """It was said to be there twice, and a technician who did as told would have sent a third of it."""
    dicom_wsi(pictures.inbox / "case", pieces=3, sparse=True, concatenated=False, **SIZE)
    assert pictures.treated() == 0, pictures.said()
    document = _document(pictures)
    assert document["status"] == "CONVERTED"
    assert _far(shown(document), PIXELS) < 2
    [image] = document["images"]
    assert (image["mpp_x"], image["objective_power"]) == (pytest.approx(0.5), 20)
    [said] = document["warnings"]
    assert "OpenSlide does not read it, so a pyramid is derived" in said


def test_tiles_that_are_in_no_file_are_counted(pictures: Pictures) -> None:
    """Scanners leave out what is empty; and a split level does not say how many files it has."""
    dicom_wsi(pictures.inbox / "case", pieces=3, sparse=True, concatenated=False, **SIZE)
    (pictures.inbox / "case" / "level0_2.dcm").unlink()
    assert pictures.treated() == 0, pictures.said()
    document = _document(pictures)
    assert "4 of its 12 tiles are not in its files, and are white" in document["warnings"]
    pixels = shown(document)
    assert _far(pixels[:512], PIXELS[:512]) < 2
    assert pixels[512:].min() > 250


def test_a_file_that_lists_the_frames_of_all(pictures: Pictures) -> None:
    """Each should list its own; OpenSlide counts on that, and refuses those."""
    dicom_wsi(pictures.inbox / "case", pieces=3, sparse=True, **SIZE)
    files = sorted((pictures.inbox / "case").glob("level0_*.dcm"))
    listed = [
        place for path in files for place in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    ]
    for path in files:
        _changed(path, lambda one: setattr(one, "PerFrameFunctionalGroupsSequence", listed))
    assert pictures.treated() == 0, pictures.said()
    document = _document(pictures)
    assert document["status"] == "CONVERTED"
    assert _far(shown(document), PIXELS) < 2


def test_frames_that_only_this_reader_reads(pictures: Pictures) -> None:
    """Colours that the header states wrongly, with places; the first of two focal planes is the picture."""

    def subsampled(pixels: np.ndarray) -> bytes:
        return frame(pixels, subsampling=2)

    path = dicom_wsi(
        pictures.inbox / "case", encode=subsampled, photometric="RGB", sparse=True, levels=1, **SIZE
    )

    def turned(one: Any) -> None:
        # The first row of tiles comes last.
        frames = pydicom.encaps.generate_frames(one.PixelData, number_of_frames=12)
        tiles = [bytes(tile) for tile in frames]
        one.PixelData = pydicom.encaps.encapsulate(tiles[4:] + tiles[:4])
        places = one.PerFrameFunctionalGroupsSequence
        one.PerFrameFunctionalGroupsSequence = [*places[4:], *places[:4]]

    _changed(path, turned)
    assert pictures.treated() == 0, pictures.said()
    document = _document(pictures)
    assert document["status"] == "CONVERTED"
    assert _far(shown(document), PIXELS) < 4
    assert any("would show it wrongly" in said for said in document["warnings"])


def _odd(number: int, change: Callable[[np.ndarray], bytes]) -> Callable[[np.ndarray], bytes]:
    """Packs tiles as JPEG, but the one of that number as `change` does."""
    counted = itertools.count(1)
    return lambda tile: change(tile) if next(counted) == number else frame(tile)


def _grey(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(np.ascontiguousarray(tile[..., 0]))


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    "change, said",
    [
        (lambda tile: frame(tile[:240]), "256 x 240 pixels, not 256 x 256"),
        (lambda tile: frame(np.pad(tile, ((0, 0), (0, 16), (0, 0)))), "272 x 256 pixels, not 256"),
        (_grey, "1 samples per pixel, not 3"),
        (lambda tile: b"\1" * 900, "where its JPEG must begin, are something else"),
    ],
)  # fmt: skip
def test_a_frame_of_another_size(
    pictures: Pictures, change: Callable[[np.ndarray], bytes], said: str, pieces: int
) -> None:
    """The slide was deployed, and OpenSlide refused the frame in the viewer."""
    path = dicom_wsi(pictures.inbox / "case", encode=_odd(6, change), pieces=pieces, **SIZE)
    with openslide.OpenSlide(path) as slide, pytest.raises(openslide.OpenSlideError):
        slide.read_region((0, 0), 0, slide.dimensions)
    assert pictures.treated() == 1, pictures.said()
    error = _document(pictures)["error"]
    assert (error["reason"], error["stage"]) == ("damaged", "DETECTING_FORMAT")
    assert said in error["detail"]


@pytest.mark.parametrize("sizes", [(1000, 700), (1024, 700), (1000, 768), (1024, 768)])
@pytest.mark.parametrize("pieces", [1, 2])
def test_frames_that_are_cut_off_at_the_edge(
    pictures: Pictures, sizes: tuple[int, int], pieces: int
) -> None:
    """As some converters write them: OpenSlide refuses them, and a pyramid is derived. Of the last it is a small level only."""
    width, height = sizes
    across = -(-width // 256)
    first = across * -(-height // 256)
    counted = itertools.count()

    def cut(tile: np.ndarray) -> bytes:
        number = next(counted)
        wide, tall = (width, height) if number < first else (width // 2, height // 2)
        row, column = divmod(number % first, across if number < first else -(-wide // 256))
        return frame(tile[: tall - 256 * row, : wide - 256 * column])

    dicom_wsi(pictures.inbox / "case", encode=cut, pieces=pieces, width=width, height=height)
    assert pictures.treated() == 0, pictures.said()
    document = _document(pictures)
    assert document["status"] == "CONVERTED"
    assert any(
        "its frames are cut off at the edges" in said or "Dimensional" in said
        for said in document["warnings"]
    )
    assert _far(shown(document), picture(width, height)) < 2


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000, 1 << 18])
def test_frames_are_looked_at_however_the_file_is_cut(tmp_path: Path, chunk_bytes: int) -> None:
    """Also where one has a long header; and where each is looked at by itself. A frame in two pieces says nothing."""

    def long(tile: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(tile[:240]).save(stream, "JPEG", icc_profile=bytes(range(1, 251)) * 20)
        return stream.getvalue()

    path = dicom_wsi(tmp_path / "a", encode=_odd(6, long), levels=1, **SIZE)
    for one, wrong in ((path, True), (_in_pieces(path), False)):
        read, looked = arrival.of_level(str(one)), arrival.of_level(str(one))
        data = one.read_bytes()
        for begin in range(0, len(data), chunk_bytes):
            read.feed(data[begin : begin + chunk_bytes])
        looked.look()
        for watch in (read, looked):
            assert ("256 x 240 pixels" in str(watch.verdict().damaged)) == wrong


def _in_pieces(path: Path) -> Path:
    """The same slide, each frame in two pieces."""
    one = pydicom.dcmread(path)
    tiles = [bytes(t) for t in pydicom.encaps.generate_frames(one.PixelData, number_of_frames=12)]
    one.PixelData = pydicom.encaps.encapsulate(tiles, fragments_per_frame=2)
    one.save_as(other := path.with_name("pieces.dcm"))
    return other


def _beside(one: Any) -> None:
    place = one.PerFrameFunctionalGroupsSequence[1].PlanePositionSlideSequence[0]
    place.ColumnPositionInTotalImagePixelMatrix += 5


def _over(one: Any) -> None:
    places = one.PerFrameFunctionalGroupsSequence
    places[1].PlanePositionSlideSequence = places[0].PlanePositionSlideSequence


def _fewer(one: Any) -> None:
    del one.PerFrameFunctionalGroupsSequence[-1]


@pytest.mark.parametrize(
    "change, said",
    [
        (_beside, "frame 2 of level0_0.dcm lies at 261, 0, and not where a tile of 256 x 256"),
        (_over, "frame 2 of level0_0.dcm lies over another one"),
        (_fewer, "level0_0.dcm states 3 places for 4 frames"),
        (None, "its level of 1024 x 768 pixels lies in 3 files, and they do not say which part"),
    ],
)
def test_what_cannot_be_joined_has_a_reason(
    pictures: Pictures, change: Callable[[Any], None] | None, said: str
) -> None:
    """Where the places are wrong, and where nothing says which part of a level a file is."""
    sparse = change is not None
    dicom_wsi(pictures.inbox / "case", pieces=3, sparse=sparse, concatenated=False, **SIZE)
    if change is not None:
        _changed(pictures.inbox / "case" / "level0_0.dcm", change)
    assert pictures.treated() == 1
    error = _document(pictures)["error"]
    assert error["reason"] == "unreadable"
    assert error["detail"].startswith(said), error
    assert "export it from the scanner with one file per level" in error["detail"]


def test_a_small_level_that_is_split_does_not_cost_the_slide(pictures: Pictures) -> None:
    """OpenSlide refuses the whole; a pyramid needs only the largest level."""
    dicom_wsi(pictures.inbox / "case", levels=2, pieces=1, **SIZE)
    small = pictures.inbox / "case" / "level1.dcm"
    shutil.copyfile(small, other := small.with_name("level1b.dcm"))

    def half(part: slice) -> Callable[[Any], None]:
        def cut(one: Any) -> None:
            tiles = [
                bytes(t) for t in pydicom.encaps.generate_frames(one.PixelData, number_of_frames=4)
            ]
            one.PixelData = pydicom.encaps.encapsulate(tiles[part])
            one.NumberOfFrames = 2
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = (
                pydicom.uid.generate_uid()
            )

        return cut

    _changed(small, half(slice(0, 2)))
    _changed(other, half(slice(2, 4)))
    assert pictures.treated() == 0, pictures.said()
    document = _document(pictures)
    assert document["status"] == "CONVERTED"
    assert _far(shown(document), PIXELS) < 2
