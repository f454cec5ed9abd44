"""Kinds of files that labs have and nothing here reads: what they are called, and what to do with them.

Source: the readers of OpenSlide's issue tracker and Bio-Formats for KFB, SDPC, MDS, ND2, LIF, DV and OIF; Philips, iSyntax SDK;
ISO/IEC 14496-12 (brands); ECMA-376, part 2; OpenDocument 1.3, part 2
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from typing import Literal

__all__ = ["in_zarr", "is_foreign", "known", "office_document"]

_AS_IMAGE = "export it as TIFF, PNG or JPEG"
_AS_SLIDE = "export it as TIFF or SVS from the scanner's software"
_AS_OME = "export it as OME-TIFF from the microscope's software"
_PICTURES = "save the pictures in it as TIFF, PNG or JPEG"
#: For pictures that lie in archives and folders of reports: nobody meant them as slides.
_SAVE_AS = "save it as TIFF, PNG or JPEG"
_STILLS = "save single pictures of it as TIFF, PNG or JPEG"
_NOT_THE_LINK = "copy the file itself, not the shortcut to it"
#: From the software of one maker.
_BY_NAME = ("export it as TIFF from Philips' software", "export it as TIFF or SVS from K-Viewer")
_AS_ZIP = "pack the slides again as a zip"
_UNPACK = "unpack it and drop the slide itself, or pack the slides as a zip"
_WITH_ITS_VSI = (
    "copy it together with its .vsi: that file and its folder belong into one folder or one zip"
)
_WHOLE_OME = "save the image as a single OME-TIFF"
#: What is to be done with kinds in which slides come.
_SLIDES = frozenset({_AS_IMAGE, _AS_SLIDE, _AS_OME, _AS_ZIP, _UNPACK, _WITH_ITS_VSI, *_BY_NAME})
_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
_OLE = bytes.fromhex("D0CF11E0A1B11AE1")
_ZIP_ENTRY = b"PK\x03\x04"
#: With which member the packages of Office begin, no matter who wrote them.
_OF_OFFICE = (
    b"[Content_Types].xml", b"_rels/.rels", b"docProps/app.xml", b"docProps/core.xml",
    b"word/document.xml", b"xl/workbook.xml", b"ppt/presentation.xml",
)  # fmt: skip
_VIDEO = frozenset(
    {
        b"isom",
        b"iso2",
        b"iso4",
        b"iso5",
        b"iso6",
        b"avc1",
        b"mp41",
        b"mp42",
        b"M4V ",
        b"qt  ",
        b"3gp4",
        b"3gp5",
        b"MSNV",
    }
)
_SHORTCUTS = (
    bytes.fromhex("4C0000000114020000000000C000000000000046"), b"[InternetShortcut]", b"book\0\0\0\0mark",
)  # fmt: skip
_OME_XML = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--(?:(?!-->).)*-->\s*)*<(\w+:)?OME[\s>]", re.DOTALL
)
_PHOTOGRAPHS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb")
_OF_DOCUMENTS = (b"application/vnd.oasis.opendocument", b"application/epub+zip")
_ISYNTAX = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<DataObject\s+ObjectType=[\"']DPUfsImport"
)
_OF_ZARR = frozenset({".zarray", ".zattrs", ".zgroup", "zarr.json"})
_LIF = b"\x70\x00\x00\x00"
_MOST_NAMED = 5
#: Texts that name the slides of a fluorescence set, one per channel: how a text begins, what it is called, the names.
_LISTS = (
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*\[NanoZoomer Digital Pathology Image Set\]"),
        "the list of a Hamamatsu set (NDPIS)",
        re.compile(rb"^Image\d+\s*=([^\r\n]+)", re.MULTILINE),
    ),
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<ImageList[\s>]"),
        "the list of an Aperio set (AFI)",
        re.compile(rb"<Path>([^<]+)</Path>"),
    ),
)


def known(head: bytes) -> tuple[str, str] | None:
    """(what a file that begins so is, what to do with it); None for any other.

    >>> known(b"%PDF-1.7")[0]
    'a PDF document'
    >>> known(b"[NanoZoomer Digital Pathology Image Set]\\nImage0=a-DAPI.ndpi\\nImage1=a-FITC.ndpi\\n")[1]
    'drop the slides that it names, each of which is shown by itself: a-DAPI.ndpi, a-FITC.ndpi'
    """
    for is_it, what, names in _LISTS:
        if is_it.match(head):
            return what, _to_send([one.strip() for one in names.findall(head)])
    return next(((what, how) for is_it, what, how in _KINDS if is_it(head)), None)


def _to_send(named: list[bytes]) -> str:
    """What to do with the list of a set, which holds no pixels."""
    some = ", ".join(one.decode("utf-8", "replace") for one in named[:_MOST_NAMED])
    more = " and others" if len(named) > _MOST_NAMED else ""
    return (
        f"drop the slides that it names, each of which is shown by itself: {some or 'none'}{more}"
    )


def is_foreign(head: bytes) -> bool:
    """Whether a file that begins so is a slide or an image of a kind that nothing here reads, or may hold some."""
    found = known(head)
    return found is not None and found[1] in _SLIDES


def in_zarr(paths: Iterable[str]) -> tuple[str, str] | None:
    """(what files at these paths are together, what to do with them) if they are an image in Zarr.

    Source: Zarr storage specification, versions 2 and 3; OME-NGFF 0.5.

    >>> in_zarr(["a.zarr/.zattrs", "a.zarr/0/0.0"])[0], in_zarr(["a/zarr.tif"])
    ('an image in OME-Zarr', None)
    """
    found = any(path.rpartition("/")[2] in _OF_ZARR for path in paths)
    return ("an image in OME-Zarr", _AS_OME) if found else None


def office_document(head: bytes) -> bool:
    """Whether a zip is the package of a document, whose pictures are not slides."""
    if not head.startswith(_ZIP_ENTRY) or len(head) < 30:
        return False
    length, extra = struct.unpack_from("<HH", head, 26)
    name = head[30 : 30 + length]
    content = head[30 + length + extra :]
    return name in _OF_OFFICE or (name == b"mimetype" and content.startswith(_OF_DOCUMENTS))


def _brand(brands: frozenset[bytes]) -> Callable[[bytes], bool]:
    return lambda head: head[4:8] == b"ftyp" and head[8:12] in brands


def _begins(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _is_avif(head: bytes) -> bool:
    """By its first brand, or by one that it is compatible with: encoders put mif1 first."""
    size = int.from_bytes(head[:4])
    return head[4:8] == b"ftyp" and any(
        head[at : at + 4] in _AVIF for at in (8, *range(16, min(size, 256), 4))
    )


def _riff(kind: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(b"RIFF") and head[8:12] == kind


def _is_binary(magic: bytes, head: bytes) -> bool:
    """These letters and then numbers: a text may begin with the letters as well."""
    return head.startswith(magic) and b"\0" in head[len(magic) : 64]


def _is_deltavision(head: bytes) -> bool:
    """By its number at 96, and a size that an image can have."""
    order: Literal["little", "big"] = "little" if head[96:98] == b"\xa0\xc0" else "big"
    sizes = [int.from_bytes(head[at : at + 4], order) for at in (0, 4, 8)]
    return head[96:98] in (b"\xa0\xc0", b"\xc0\xa0") and all(0 < size < 1 << 20 for size in sizes)


def _is_sdpc(head: bytes) -> bool:
    return _is_binary(b"SQ", head) and not head.startswith(b"SQLite")


_KINDS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (lambda head: bool(_ISYNTAX.match(head)), "a Philips iSyntax slide", _BY_NAME[0]),
    (lambda head: _is_binary(b"KFB", head), "a KFBIO slide (KFB)", _BY_NAME[1]),
    (_is_sdpc, "a Sqray slide (SDPC)", _AS_SLIDE),
    (_is_avif, "an AVIF image", _AS_IMAGE),
    (_brand(_HEIC), "an HEIC image", _AS_IMAGE),
    (_begins(bytes.fromhex("DACEBE0A")), "a Nikon ND2 file", _AS_OME),
    (lambda head: head.startswith(_LIF) and b"\x2a" in (head[4:5], head[8:9]), "a Leica LIF file", _AS_OME),
    (_begins(_OLE), "a Microsoft Office document of the old kind, a Motic slide (MDS), or an image of AxioVision (ZVI) or FluoView (OIB)", "save the pictures of a document, or export the slide, as TIFF"),
    (_begins(b"\x89HDF\r\n\x1a\n"), "an HDF5 file, as Imaris and BigDataViewer write", _AS_OME),
    (_is_deltavision, "a DeltaVision image (DV)", _AS_OME),
    (lambda head: head[208:212] == b"MAP " and b"\0" in head[:208], "an MRC image of an electron microscope", _AS_OME),
    (_begins(b"\xff\xfe" + "[ProfileSaveInfo]".encode("utf-16-le")), "the description of an Olympus FluoView image (OIF)", _AS_OME),
    (_begins(b"SIMPLE  ="), "a FITS image", _SAVE_AS),
    (_begins(b"NRRD00"), "an NRRD image", _SAVE_AS),
    (lambda head: head[344:348] in (b"n+1\0", b"n+2\0"), "a NIfTI image", _SAVE_AS),
    (_begins(b"\x93NUMPY"), "an array of NumPy", _SAVE_AS),
    (_begins(b"MATLAB 5.0 MAT-file"), "a MATLAB file", _SAVE_AS),
    (_begins(b"SIS\0"), "the pixel file of a CellSens slide (ETS)", _WITH_ITS_VSI),
    (lambda head: bool(_OME_XML.match(head)), "the description of an OME-TIFF without its pixels", _WHOLE_OME),
    (office_document, "an Office document", _PICTURES),
    (_begins(b"%PDF"), "a PDF document", _PICTURES),
    (_begins(b"GIF87a", b"GIF89a"), "a GIF image", _SAVE_AS),
    (_riff(b"WEBP"), "a WebP image", _SAVE_AS),
    (_begins(b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"), "a JPEG XL image", _SAVE_AS),
    (_begins(*_PHOTOGRAPHS), "a raw photograph of a camera", _SAVE_AS),
    (_brand(frozenset({b"crx "})), "a raw photograph of a camera", _SAVE_AS),
    (_begins(b"II\xbc\x01"), "a JPEG XR image", _SAVE_AS),
    (_begins(b"8BPS\0"), "a Photoshop document (PSD)", _SAVE_AS),
    (_brand(_VIDEO), "a video", _STILLS),
    (_riff(b"AVI "), "a video", _STILLS),
    (_begins(b"\x1a\x45\xdf\xa3"), "a video", _STILLS),
    (_begins(*_SHORTCUTS), "a shortcut to a file", _NOT_THE_LINK),
    (_begins(b"Rar!\x1a\x07"), "a RAR archive", _AS_ZIP),
    (_begins(b"7z\xbc\xaf\x27\x1c"), "a 7-Zip archive", _AS_ZIP),
    (_begins(b"MSCF\0\0\0\0"), "a Windows cabinet (CAB)", _AS_ZIP),
    (_begins(b"\x1f\x8b\x08"), "a file packed with gzip", _UNPACK),
    (_begins(b"BZh1", b"BZh2", b"BZh3", b"BZh4", b"BZh5", b"BZh6", b"BZh7", b"BZh8", b"BZh9"), "a file packed with bzip2", _UNPACK),
    (_begins(b"\xfd7zXZ\0"), "a file packed with xz", _UNPACK),
    (_begins(b"\x28\xb5\x2f\xfd"), "a file packed with Zstandard", _UNPACK),
    (_begins(b"\x04\x22\x4d\x18"), "a file packed with LZ4", _UNPACK),
    (_begins(b"LZIP\1"), "a file packed with lzip", _UNPACK),
    (_begins(b"\x1f\x9d"), "a file packed with compress", _UNPACK),
    (_begins(b"\x5d\0\0\x80\0", b"\x5d\0\0\0\1", b"\x5d\0\0\0\4"), "a file packed with LZMA", _UNPACK),
)  # fmt: skip
