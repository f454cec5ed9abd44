"""What labs have and nothing here reads is named, with what to do; what looks alike is not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import imagecodecs
import pytest

from cytowatch.formats import Probe, looks_like
from cytowatch.formats.strangers import is_foreign, known
from cytowatch.record.errors import FormatError
from cytowatch.stages.detect import identify


def _zip(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def _box(brand: bytes, *others: bytes) -> bytes:
    inside = b"ftyp" + brand + bytes(4) + b"".join(others)
    return (len(inside) + 4).to_bytes(4) + inside + bytes(range(256))


STRANGERS = {
    "isyntax": (b'<DataObject ObjectType="DPUfsImport">\r\n<Attribute Name="PIM"' + bytes(900), "Philips iSyntax"),
    "isyntax with a declaration": (b'<?xml version="1.0"?>\n<DataObject ObjectType="DPUfsImport">', "Philips iSyntax"),
    "kfb": (b"KFB\0" + bytes(range(256)), "KFBIO"),
    "sdpc": (b"SQ" + b"\0\1" * 40, "SDPC"),
    "avif": (_box(b"avif", b"avif", b"mif1"), "AVIF"),
    "avif behind": (_box(b"mif1", b"mif1", b"avif"), "AVIF"),
    "heic": (_box(b"heic", b"mif1"), "HEIC"),
    "nd2": (bytes.fromhex("DACEBE0A") + bytes(400), "ND2"),
    "lif": (b"\x70\0\0\0\x10\0\0\0\x2a" + bytes(400), "LIF"),
    "doc": (bytes.fromhex("D0CF11E0A1B11AE1") + bytes(504), "Motic slide (MDS)"),
    "docx": (_zip(("[Content_Types].xml", b"<Types/>"), ("word/media/image1.jpeg", b"a")), "an Office document"),
    "docx of another program": (_zip(("_rels/.rels", b"<a/>"), ("word/document.xml", b"<b/>")), "an Office document"),
    "odt": (_zip(("mimetype", b"application/vnd.oasis.opendocument.text")), "an Office document"),
    "dv": (bytes.fromhex("00020000000200000A000000") + bytes(84) + b"\xa0\xc0" + bytes(range(256)), "DeltaVision"),
    "mrc": (bytes(208) + b"MAP DA\0\0" + bytes(range(256)), "an MRC image"),
    "oif": ("\ufeff[ProfileSaveInfo]\r\n".encode("utf-16-le"), "Olympus FluoView"),
    "fits": (b"SIMPLE  =                    T".ljust(80), "a FITS image"),
    "nrrd": (b"NRRD0004\ntype: uchar\n\n" + bytes(range(256)), "an NRRD image"),
    "nifti": (b"\x5c\1\0\0" + bytes(340) + b"n+1\0" + bytes(range(256)), "a NIfTI image"),
    "npy": (b"\x93NUMPY\1\0v\0{'descr': '<f4'}", "an array of NumPy"),
    "mat": (b"MATLAB 5.0 MAT-file, Platform: PCWIN64" + bytes(range(256)), "a MATLAB file"),
    "pdf": (b"%PDF-1.7\n1 0 obj", "a PDF document"),
    "gif": (b"GIF89a" + bytes(range(256)), "a GIF image"),
    "webp": (b"RIFF\0\x10\0\0WEBPVP8 " + bytes(range(256)), "a WebP image"),
    "jpeg xl": (bytes.fromhex("0000000C4A584C200D0A870A") + bytes(range(256)), "a JPEG XL image"),
    "jpeg xr": (b"II\xbc\x01" + bytes(range(256)), "a JPEG XR image"),
    "psd": (b"8BPS\0\1" + bytes(range(256)), "a Photoshop document"),
    "mp4": (_box(b"isom", b"isom", b"avc1"), "a video"),
    "mov": (_box(b"qt  "), "a video"),
    "avi": (b"RIFF\0\x10\0\0AVI LIST" + bytes(range(256)), "a video"),
    "mkv": (bytes.fromhex("1A45DFA3") + bytes(range(256)), "a video"),
    "shortcut of Windows": (bytes.fromhex("4C0000000114020000000000C000000000000046") + bytes(60), "a shortcut to a file"),
    "shortcut to a page": (b"[InternetShortcut]\r\nURL=file:///C:/slide.svs\r\n", "a shortcut to a file"),
    "imaris": (b"\x89HDF\r\n\x1a\n" + bytes(range(256)), "an HDF5 file"),
    "ets": (b"SIS\0\x40\0\0\0" + bytes(range(256)), "the pixel file of a CellSens slide"),
    "companion": (b'<?xml version="1.0"?>\n<!-- by hand -->\n<OME xmlns="x" UUID="y"><Image/>', "the description of an OME-TIFF"),
    "jpeg xl alone": (b"\xff\x0a" + bytes(range(256)), "a JPEG XL image"),
    "photograph": (b"FUJIFILMCCD-RAW 0201" + bytes(range(256)), "a raw photograph"),
    "photograph in boxes": (_box(b"crx "), "a raw photograph"),
}  # fmt: skip
SLIDE = b"II*\0" + bytes(range(256)) * 40
#: What packers make of a single slide, or of a tar, and archives of other kinds.
PACKED = {
    "gzip": gzip.compress(SLIDE),
    "bzip2": bz2.compress(SLIDE),
    "xz": lzma.compress(SLIDE),
    "LZMA": lzma.compress(SLIDE, lzma.FORMAT_ALONE),
    "Zstandard": imagecodecs.zstd_encode(SLIDE),
    "LZ4": b"\x04\x22\x4d\x18" + bytes(range(256)),
    "lzip": b"LZIP\1\x0c" + bytes(range(256)),
    "compress": b"\x1f\x9d\x90" + bytes(range(256)),
    "RAR": b"Rar!\x1a\x07\1\0" + bytes(range(256)),
    "7-Zip": b"7z\xbc\xaf\x27\x1c\0\4" + bytes(range(256)),
    "CAB": b"MSCF\0\0\0\0" + bytes(range(256)),
}


@pytest.mark.parametrize("name", PACKED)
def test_what_is_packed_otherwise_may_hold_slides(tmp_path: Path, name: str) -> None:
    """It is named with what to do; as a member of an archive it counts as one that was lost."""
    (tmp_path / "a").write_bytes(PACKED[name])
    with (tmp_path / "a").open("rb") as file, pytest.raises(FormatError) as caught:
        identify(Probe(file.fileno(), name="a"))
    assert caught.value.reason == "unsupported_format"
    assert name in caught.value.detail
    assert "pack the slides" in caught.value.detail
    assert is_foreign(PACKED[name])


@pytest.mark.parametrize("name", STRANGERS)
def test_each_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    """As a format that is known and not supported."""
    data, words = STRANGERS[name]
    path = tmp_path / "a"
    path.write_bytes(data)
    with path.open("rb") as file:
        probe = Probe(file.fileno(), name="a")
        assert words in looks_like(probe)
        with pytest.raises(FormatError) as caught:
            identify(probe)
    assert caught.value.reason == "unsupported_format"
    assert words in caught.value.detail
    assert any(
        word in caught.value.detail
        for word in ("export", "save", "copy the file itself", "copy it together")
    )


@pytest.mark.parametrize(
    ("data", "format_id"),
    [
        (b"SQUARES: 1 2 3\n" * 20, None),
        (b"KFB is a format\n" * 20, None),
        (b"SQLite format 3\0" + bytes(100), None),
        (b'<DataObject ObjectType="Other">', None),
        (_zip(("a/mimetype", b"application/epub+zip")), "zip"),
        (_zip(("slides/1.jpg", b"a"), ("[Content_Types].xml", b"a")), "zip"),
        (_zip(("mimetype", b"image/jpeg")), "zip"),
    ],
)
def test_what_looks_alike(tmp_path: Path, data: bytes, format_id: str | None) -> None:
    """Texts, databases and plain zips are what they were."""
    path = tmp_path / "a"
    path.write_bytes(data)
    with path.open("rb") as file:
        probe = Probe(file.fileno(), name="a")
        if format_id is not None:
            assert identify(probe)[0].id == format_id
            return
        with pytest.raises(FormatError) as caught:
            identify(probe)
    assert caught.value.reason == "unknown_format"


def test_comments_without_end_are_soon_read() -> None:
    """A head full of them is looked at once, and not in every way that they can be joined."""
    assert known(b"<!---->" * 585) is None
