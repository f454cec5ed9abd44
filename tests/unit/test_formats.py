"""Exactly one format claims a file, by its bytes; what none claims is named in words."""

from __future__ import annotations

import gc
import gzip
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from cytowatch import formats
from cytowatch.formats import Probe
from tests import builders
from tests.builders import others, vendors


def told(data: bytes) -> list[str] | str:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        probe = Probe(file.fileno())
        return [one.id for one, _ in formats.matching(probe)] or formats.looks_like(probe)


@pytest.mark.parametrize(
    ("make", "id_"),
    [
        (builders.jpeg, "jpeg"),
        (builders.png, "png"),
        (builders.planar_tiff, "planar-tiff"),
        (builders.pyramidal_tiff, "pyramidal-tiff"),
        (builders.aperio_svs, "aperio-svs"),
        (builders.hamamatsu_ndpi, "hamamatsu-ndpi"),
        (vendors.ndpi, "hamamatsu-ndpi"),
        (vendors.leica_scn, "leica-scn"),
        (vendors.philips_tiff, "philips-tiff"),
        (vendors.ventana_bif, "ventana-bif"),
        (vendors.huron_tiff, "huron-tiff"),
        (vendors.trestle, "trestle"),
        (others.ome_flat, "ome-tiff"),
        (others.ome_pyramid, "ome-tiff"),
        (others.jp2, "jp2"),
        (others.bmp, "bmp"),
        (others.pgm, "pgm"),
        (others.ppm, "pnm"),
    ],
)
def test_each_is_claimed_by_its_own_format_alone(
    make: Callable[[Path], Path], id_: str, tmp_path: Path
) -> None:
    """The order of the table means nothing."""
    assert told(make(tmp_path / "x").read_bytes()) == [id_]


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (b"", "an empty file"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\0" * 128 + b"DICM" + b"\0" * 100, "a DICOM file without whole-slide pixels"),
        (b"SQLite format 3\0" + b"\0" * 100, "an SQLite database, but not a Sakura slide"),
        (b"only words", "a text file"),
        ("Präparat für Köln\n".encode("latin-1") * 20, "a text file"),
        (b"P6 is a road in Russia", "a text or a damaged PNM image"),
        (b"P2 2 many", "a text or a damaged PNM image"),
        (bytes(range(256)) * 4, "data of an unknown kind"),
        (others.targa(), "a Targa image (TGA)"),
        (others.jpeg_ls(), "a JPEG-LS image"),
        (b"\0" * 5000, "a file that begins with nothing but zeros"),
        (b"II*\0\xff\xff\0\0", "a damaged TIFF file"),
        (gzip.compress(b"x" * 100, mtime=0), "a file packed with gzip"),
        (b"<!DOCTYPE html><html><body>hi</body></html>", "an HTML document"),
    ],
)
def test_what_no_format_claims_is_named(data: bytes, phrase: str) -> None:
    """In words that a technician understands."""
    assert told(data) == phrase


@given(st.binary(max_size=300))
def test_garbage_is_never_more_than_one_thing(data: bytes) -> None:
    """And looking at it never raises."""
    found = told(data)
    assert isinstance(found, str) or len(found) == 1


def _tiles(path: Path, sizes: list[int], *, reduced: bool = True, strips: bool = False) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for number, side in enumerate(sizes):
            kind = 1 if number and reduced else 0
            tiff.write(
                builders.picture(side, side), tile=(128, 128), photometric="rgb",
                subfiletype=kind, metadata=None,
            )  # fmt: skip
        if strips:
            tiff.write(builders.picture(90, 60), rowsperstrip=8, photometric="rgb", metadata=None)
    return path


def test_what_makes_a_pyramid(tmp_path: Path) -> None:
    """Tiled levels that call themselves reduced; a thumbnail in strips beside them is harmless."""
    path = tmp_path / "x"
    assert told(_tiles(path, [512, 256, 128]).read_bytes()) == ["pyramidal-tiff"]
    assert told(_tiles(path, [512, 256], strips=True).read_bytes()) == ["pyramidal-tiff"]
    assert told(_tiles(path, [512]).read_bytes()) == ["planar-tiff"]
    assert told(_tiles(path, [512, 512]).read_bytes()) == ["planar-tiff"]
    assert told(_tiles(path, [512, 256], reduced=False).read_bytes()) == ["planar-tiff"]


@pytest.mark.parametrize(
    "head",
    [
        b"This is a README file\nfor the scanner",
        b"This is Info file\n",
        b"0123 notes\n",
        b"[GENERAL]\nX=3\n",
    ],
)
def test_a_text_is_a_text_whatever_word_it_begins_with(head: bytes) -> None:
    """Words at the beginning of a text do not mark a format."""
    assert told(head) == "a text file"


def test_nothing_of_a_probed_file_is_kept(tmp_path: Path) -> None:
    """A hostile TIFF of 6 MB has a structure of 80 MB: sixty of them must not be kept at a time."""
    with builders.aperio_svs(tmp_path / "a.svs").open("rb") as file:
        probe = Probe(file.fileno(), name="a.svs")
        assert [one.id for one, _ in formats.matching(probe)] == ["aperio-svs"]
        assert probe.tiff is not None
        structure = weakref.ref(probe.tiff)
        del probe
        gc.collect()
        assert structure() is None
