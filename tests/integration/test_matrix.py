"""All eighteen formats, each under its own, a wrong and no extension: one detector, one outcome.

Every file is made by `tests/builders`; each deployed or derived pyramid is opened by an
independent reader, and its pixels are held against the picture that it was made from.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from cytowatch import formats
from tests import builders
from tests.builders import others, vendors
from tests.lab.pictures import Pictures
from tests.lab.root import Root

VSI = Path(__file__).resolve().parents[2].parent / "shared/samples/vsi/vsi-ets-test-jpg2k"


@dataclass(frozen=True)
class Row:
    """One format: how it is made, its own extension, and what must come of it."""

    id: str
    make: Callable[[Path], Path]
    extension: str
    status: str
    mpp: float | None = None
    power: float | None = None
    levels: int | None = None
    #: The greatest mean difference from the picture, in 8-bit values; None where nothing is known.
    far: float | None = 1.5
    associated: tuple[str, ...] = ()


ROWS = [
    Row("jpeg", builders.jpeg, "jpg", "CONVERTED"),
    Row("png", builders.png, "png", "CONVERTED"),
    Row("planar-tiff", builders.planar_tiff, "tif", "CONVERTED"),
    Row("pyramidal-tiff", builders.pyramidal_tiff, "tif", "DEPLOYED", 0.5, levels=3),
    Row("jp2", others.jp2, "jp2", "CONVERTED"),
    Row("aperio-svs", builders.aperio_svs, "svs", "DEPLOYED", 0.499, 20, 2, associated=("thumbnail",)),
    Row("hamamatsu-ndpi", vendors.ndpi, "ndpi", "DEPLOYED", 0.5, 20, 6, associated=("macro",)),
    Row("leica-scn", vendors.leica_scn, "scn", "DEPLOYED", 0.5, 20, 2, far=None, associated=("macro",)),
    Row("philips-tiff", vendors.philips_tiff, "tiff", "DEPLOYED", 0.25, None, 3, associated=("label", "macro")),
    Row("ventana-bif", vendors.ventana_bif, "bif", "DEPLOYED", 0.25, 40, 2, associated=("macro",)),
    Row("huron-tiff", vendors.huron_tiff, "tif", "DEPLOYED", 0.5, None, 2, associated=("label", "macro", "thumbnail")),
    Row("ome-tiff", others.ome_pyramid, "ome.tif", "CONVERTED", 0.25),
    Row("zeiss-czi", others.czi, "czi", "CONVERTED", 0.5),
    Row("pgm", others.pgm, "pgm", "CONVERTED"),
    Row("pnm", others.ppm, "ppm", "CONVERTED"),
    Row("bmp", others.bmp, "bmp", "CONVERTED"),
    Row("sakura", vendors.sakura, "svslide", "DEPLOYED", 0.5, None, 2),
    Row("trestle", vendors.trestle, "tif", "DEPLOYED", 1.0, 20, 2),
]  # fmt: skip

#: Sets: (row, head and its companions are made in a folder, and dropped loose).
SETS = [
    Row("hamamatsu-vms", vendors.vms, "vms", "DEPLOYED", 0.5, 20, 7, associated=("macro",)),
    Row("hamamatsu-vmu", vendors.vmu, "vmu", "DEPLOYED", 0.5, 20, 2, associated=("macro",)),
    Row("mirax-mrxs", vendors.mirax_mrxs, "mrxs", "DEPLOYED", 0.5, 20, 2, associated=("macro",)),
]


def _names(row: Row) -> list[str]:
    wrong = "png" if row.extension not in ("png", "jpg") else "tif"
    return [f"{row.id}-own.{row.extension}", f"{row.id}-wrong.{wrong}", f"{row.id}-none"]


def _check(document: dict, row: Row) -> None:
    assert document["status"] == row.status, (row.id, document["error"])
    assert document["format"]["id"] == row.id
    [image] = document["images"]
    assert image["mpp_x"] == (pytest.approx(row.mpp, rel=1e-3) if row.mpp else None), row.id
    assert image["mpp_y"] == image["mpp_x"]
    assert image["objective_power"] == row.power
    assert tuple(image["associated"]) == row.associated
    with openslide.OpenSlide(document["_path"] / image["file"]) as slide:
        if row.status == "CONVERTED" and row.mpp is None:
            assert openslide.PROPERTY_NAME_MPP_X not in slide.properties
        if row.levels is not None:
            assert slide.level_count == row.levels
        assert slide.level_dimensions == tuple(
            (level["width"], level["height"]) for level in image["levels"]
        )
        for level, size in enumerate(slide.level_dimensions):
            slide.read_region((0, 0), level, size)
        if row.far is not None:
            shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
            made = builders.picture(*slide.dimensions)
            if image["samples_per_pixel"] == 1:
                made = np.repeat(made[:, :, 1:2], 3, axis=2)
            far = np.abs(shown.astype(int) - made.astype(int)).mean()
            assert far < row.far, (row.id, far)


def test_single_files(pictures: Pictures, tmp_path: Path) -> None:
    """Exactly one format claims each, no matter what it is called; levels, mpp and pixels are right."""
    for row in ROWS:
        made = row.make(tmp_path / f"made-{row.id}.czi")
        for name in _names(row):
            pictures.drop(made, name)
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    assert len(found) == 3 * len(ROWS)
    for row in ROWS:
        for name in _names(row):
            _check(found[name], row)
    pictures.check_hashes()


def test_sets(treating: Root, tmp_path: Path) -> None:
    """A set whose head has another extension, or none, is the same slide."""
    for row in SETS:
        for ending in (f".{row.extension}", ".png", ""):
            folder = tmp_path / f"{row.id}-{ending}"
            head = row.make(folder)
            if row.id == "mirax-mrxs" and not ending:
                # A file and a folder cannot have the same name, so this head has some extension.
                ending = ".dat"  # noqa: PLW2901
            if ending != f".{row.extension}":
                head.rename(head.with_name(head.stem + ending))
            pictures = Pictures(treating)
            shutil.copytree(folder, pictures.inbox / "@p")
            assert pictures.treated() == 0, pictures.said()
            [document] = pictures.manifests().values()
            assert document["format"]["id"] == row.id
            _check(document, row)
            assert document["sha256"] is None
            assert document["projects"] == ["p"]
            assert list(pictures.inbox.glob("@p/*")) == []
            pictures.check_hashes()


@pytest.mark.skipif(not VSI.is_dir(), reason="the real VSI is beside the repository only")
def test_cellsens(treating: Root) -> None:
    """slideio reads it: 16 bits, the first of its channels and planes."""
    for ending in (".vsi", ".png", ""):
        pictures = Pictures(treating)
        inbox = pictures.inbox
        shutil.copytree(VSI, inbox, dirs_exist_ok=True)
        for path in (inbox, *inbox.rglob("*")):
            path.chmod(0o755)
        (inbox / "vsi-ets-test-jpg2k.vsi").rename(inbox / f"vsi-ets-test-jpg2k{ending}")
        assert pictures.treated() == 0, pictures.said()
        [document] = pictures.manifests().values()
        assert document["format"]["id"] == "olympus-vsi"
        [image] = document["images"]
        assert (image["width"], image["height"], image["bits_per_sample"]) == (1645, 1682, 16)
        assert image["mpp_x"] == pytest.approx(0.108333, rel=1e-4)
        assert image["objective_power"] == 60
        assert any("focal planes" in one for one in document["warnings"])


def test_dicom_folder(pictures: Pictures, tmp_path: Path) -> None:
    """The files of one series are one slide; the folder's uploaded file stands over it."""
    vendors.dicom_wsi(pictures.inbox / "case")
    assert pictures.treated() == 0, pictures.said()
    found = {one["format"]["id"]: one for one in pictures.manifests().values()}
    assert found.keys() == {"dicom", "directory"}
    assert found["dicom"]["status"] == "DEPLOYED"
    assert found["dicom"]["format"]["openslide_vendor"] == "dicom"
    assert len(found["dicom"]["images"][0]["levels"]) == 2
    assert found["directory"]["status"] == "EXTRACTED"
    assert found["directory"]["children"] == [found["dicom"]["id"]]
    assert not (pictures.inbox / "case").exists()


def test_dicom_under_other_names(pictures: Pictures, tmp_path: Path) -> None:
    """Named by UIDs, loose in a folder or in a zip, or as Siemens does it is one slide; only one level in a folder, too."""
    inbox = pictures.inbox
    case, alone = inbox / "case", inbox / "alone"
    vendors.dicom_wsi(case)
    for number in range(2):
        (case / f"level{number}.dcm").rename(case / f"1.2.826.0.1.3680043.8.498.{number}7")
    shutil.make_archive(str(inbox / "packed"), "zip", case)
    vendors.dicom_wsi(inbox / "siemens", names="level{}.IMA")
    vendors.dicom_wsi(alone)
    (alone / "level1.dcm").unlink()
    (alone / "level0.dcm").rename(alone / "level0.tif")
    assert pictures.treated() == 0, pictures.said()
    levels = [
        (len(one["files"]) - 1, len(one["images"][0]["levels"]))
        for one in pictures.manifests().values()
        if one["format"]["id"] == "dicom"
    ]
    assert sorted(levels) == [(1, 1), (2, 2), (2, 2), (2, 2)]
    assert list(pictures.inbox.iterdir()) == []


def test_the_formats_of_the_contract_are_all_there() -> None:
    """Its table, in its order."""
    assert [one.id for one in formats.FORMATS][:19] == [
        "jpeg", "png", "planar-tiff", "pyramidal-tiff", "jp2", "aperio-svs", "hamamatsu-vms",
        "hamamatsu-ndpi", "leica-scn", "mirax-mrxs", "philips-tiff", "ventana-bif", "huron-tiff",
        "olympus-vsi", "ome-tiff", "zeiss-czi", "pgm", "pnm", "bmp",
    ]  # fmt: skip


def test_what_is_of_a_known_kind_and_not_supported(pictures: Pictures, tmp_path: Path) -> None:
    """It says so in words: an OME-TIFF of several files, a DICOM that is not a slide, a database."""
    import sqlite3

    import pydicom

    first = others.ome_flat(tmp_path / "first.ome.tif")
    data = first.read_bytes()
    inside = b'<TiffData IFD="0" PlaneCount="1"><UUID FileName="other.ome.tif">urn:uuid:2</UUID></TiffData>'
    at = data.index(b"<TiffData")
    end = data.index(b"/>", at) + 2
    # The description grows, so it goes to the end of the file.
    with tifffile.TiffFile(first) as tiff:
        text = tiff.pages[0].description.encode()
    text = text.replace(data[at:end], inside, 1)
    tifffile.tiffcomment(first, text)
    pictures.drop(first)
    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = pydicom.uid.generate_uid()
    pydicom.dcmwrite(tmp_path / "ct.dcm", one, enforce_file_format=True)
    pictures.drop(tmp_path / "ct.dcm")
    with sqlite3.connect(tmp_path / "some.db") as made:
        made.execute("CREATE TABLE a (b)")
    made.close()
    pictures.drop(tmp_path / "some.db")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 ...")
    pictures.drop(tmp_path / "a.pdf")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("a.txt", "hidden")
    (tmp_path / "sfx.exe").write_bytes(b"MZ" + bytes(510) + (tmp_path / "plain.zip").read_bytes())
    pictures.drop(tmp_path / "sfx.exe")
    (tmp_path / "empty").touch()
    pictures.drop(tmp_path / "empty")
    assert pictures.treated() == 1
    told = {
        name: (d["status"], d["error"]["reason"], d["error"]["detail"])
        for name, d in pictures.by_name().items()
    }
    assert {status for status, _, _ in told.values()} == {"ERROR_FORMAT"}
    assert told["first.ome.tif"][1] == "unsupported_format"
    assert "other.ome.tif" in told["first.ome.tif"][2]
    assert told["a.pdf"][1] == told["sfx.exe"][1] == "unsupported_format"
    assert "it is a self-extracting archive" in told["sfx.exe"][2]
    assert "pack the slides again as a plain zip" in told["sfx.exe"][2]
    assert "it is a PDF document" in told["a.pdf"][2]
    for name, words in (
        ("ct.dcm", "a DICOM file without whole-slide pixels"),
        ("some.db", "an SQLite database"),
        ("empty", "an empty file"),
    ):
        assert told[name][1] == "unknown_format"
        assert words in told[name][2], told[name]
