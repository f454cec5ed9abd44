"""A JPEG or PNG is turned as its Exif says, or else its XMP, wherever in the file that stands."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
from PIL import Image

from cytowatch.pyramid.orientation import of_file
from tests.builders import picture
from tests.lab.pictures import Pictures

PIXELS = picture(300, 200)
#: As Exif defines them, by numpy.
TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}
_NAMES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
)


def _exif(turn: int, order: str = ">") -> bytes:
    head = struct.pack(f"{order}2sHIH", b"MM" if order == ">" else b"II", 42, 8, 1)
    return head + struct.pack(f"{order}HHIHHI", 274, 3, 1, turn, 0, 0)


def _xmp(turn: int, *, element: bool = False) -> bytes:
    inside = (
        f"<rdf:Description><tiff:Orientation>{turn}</tiff:Orientation></rdf:Description>"
        if element
        else f'<rdf:Description tiff:Orientation="{turn}"/>'
    )
    return f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF {_NAMES}>{inside}</rdf:RDF></x:xmpmeta>".encode()  # fmt: skip


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _itxt(text: bytes, *, packed: bool = False) -> bytes:
    data = zlib.compress(text) if packed else text
    return _chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes([packed, 0]) + b"\0\0" + data)


def _raw(name: bytes, data: bytes) -> bytes:
    text = b"\n%s\n%8d\n%s\n" % (name, len(data), data.hex().encode())
    return _chunk(b"zTXt", b"Raw profile type %s\0\0" % name + zlib.compress(text))


def _png(*chunks: bytes, behind: bool = False) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    data = stream.getvalue()
    at = len(data) - 12 if behind else 33
    return data[:at] + b"".join(chunks) + data[at:]


def _jpeg(*segments: bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG", quality=95, subsampling=0)
    data = stream.getvalue()
    made = (b"\xff\xe1" + struct.pack(">H", len(one) + 2) + one for one in segments)
    return data[:2] + b"".join(made) + data[2:]


_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
EXIF = b"Exif\0\0"
#: File, and which way it says that it must be turned.
FILES: dict[str, tuple[bytes, int]] = {
    **{f"exif {n}.png": (_png(_chunk(b"eXIf", _exif(n))), n) for n in TURNED},
    **{f"xmp {n}.jpg": (_jpeg(_IN_JPEG + _xmp(n)), n) for n in TURNED},
    "little endian.png": (_png(_chunk(b"eXIf", _exif(6, "<"))), 6),
    "behind.png": (_png(_chunk(b"eXIf", _exif(8)), behind=True), 8),
    "xmp.png": (_png(_itxt(_xmp(6))), 6),
    "element.png": (_png(_itxt(_xmp(5, element=True))), 5),
    "packed.png": (_png(_itxt(_xmp(7), packed=True)), 7),
    "xmp behind.png": (_png(_itxt(_xmp(3)), behind=True), 3),
    "raw exif.png": (_png(_raw(b"exif", EXIF + _exif(6))), 6),
    "raw app1.png": (_png(_raw(b"APP1", EXIF + _exif(8))), 8),
    "raw xmp.png": (_png(_raw(b"xmp", _xmp(6))), 6),
    "exif first.png": (_png(_itxt(_xmp(6)), _chunk(b"eXIf", _exif(3))), 3),
    "exif says nothing.jpg": (_jpeg(EXIF + _exif(0), _IN_JPEG + _xmp(6)), 6),
    "exif first.jpg": (_jpeg(_IN_JPEG + _xmp(6), EXIF + _exif(1)), 1),
    "element.jpg": (_jpeg(_IN_JPEG + _xmp(8, element=True)), 8),
    "nothing.png": (_png(), 1),
    "nonsense.png": (_png(_itxt(_xmp(9)), _raw(b"exif", b"no exif"), _chunk(b"zTXt", b"Raw profile type exif\0\0x")), 1),
    "bomb.png": (_png(_itxt(bytes(80 << 20), packed=True)), 1),
}  # fmt: skip


def test_each_is_turned_as_it_says(pictures: Pictures) -> None:
    """In all eight ways, of 8 bits; and the manifest states it."""
    inbox = pictures.inbox
    for name, (data, _) in FILES.items():
        (inbox / name).write_bytes(data)
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    assert found.keys() == FILES.keys()
    for name, document in found.items():
        turn = FILES[name][1]
        with openslide.OpenSlide(document["_path"] / document["images"][0]["file"]) as slide:
            shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        wanted = TURNED[turn](PIXELS)
        assert shown.shape == wanted.shape, name
        assert np.abs(shown.astype(int) - wanted.astype(int)).mean() < 2, name
        said = [line for line in document["warnings"] if "turned upright" in line]
        assert said == ([f"turned upright: its orientation tag said {turn}"] if turn > 1 else [])


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_says_what_it_can(tmp_path: Path, name: str) -> None:
    """Any number of bytes of it raises nothing."""
    data, _ = FILES[name]
    path = tmp_path / "a"
    for end in (*range(0, 200, 7), len(data) - 5):
        path.write_bytes(data[:end])
        assert of_file(str(path)) in (None, *TURNED)


_EXIF_BOX, _XMP_BOX = b"JpgTiffExif->JP2", bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_ADOBE_BOX = bytes.fromhex("0537cdab9d0c4431a72afa561f2a113e")
#: What a box of a JPEG 2000 holds, and whether it lies behind the pixels.
BOXES = {
    "exif": (_EXIF_BOX + _exif(6), False),
    "exif behind": (_EXIF_BOX + _exif(6, "<"), True),
    "exif with a mark": (_EXIF_BOX + b"Exif\0\0" + _exif(6), False),
    "adobe": (_ADOBE_BOX + _exif(6), False),
    "xmp": (_XMP_BOX + _xmp(6), True),
    "upright": (_EXIF_BOX + _exif(1), False),
    "another": (b"0123456789abcdef" + _exif(6), False),
    "cut": (_EXIF_BOX, False),
}


def _jp2(inside: bytes, *, behind: bool) -> bytes:
    data = imagecodecs.jpeg2k_encode(PIXELS, level=0, codecformat="jp2")
    at = len(data) if behind else data.index(b"jp2c") - 4
    return data[:at] + struct.pack(">I4s", len(inside) + 8, b"uuid") + inside + data[at:]


def test_a_jpeg_2000_stays_as_other_programs_show_it(pictures: Pictures) -> None:
    """No reader that was tried turns it; so it is not turned, and not ignored without a word."""
    for name, (inside, behind) in BOXES.items():
        (pictures.inbox / f"{name}.jp2").write_bytes(_jp2(inside, behind=behind))
    assert pictures.treated() == 0, pictures.said()
    for name, document in pictures.by_name().items():
        [image] = document["images"]
        assert (image["width"], image["height"]) == (300, 200), name
        said = [one for one in document["warnings"] if "to be turned (orientation 6)" in one]
        assert bool(said) == (name.removesuffix(".jp2") not in ("upright", "another", "cut")), name
        with Image.open(next((document["_path"] / "source").iterdir())) as other:
            assert other.size == (300, 200)
