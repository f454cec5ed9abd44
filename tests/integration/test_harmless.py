"""What a file states wrongly, or in an unusual way, costs no picture unless it is about the pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
from PIL import Image

from tests.builders import picture
from tests.lab.pictures import Pictures

PIXELS = picture(300, 200)
_SHORT, _TEXT = 3, 2


def _tiff(path: Path, *more: tuple[int, int, bytes], strip: bytes = b"", packing: int = 1) -> None:
    """RGB in one strip, with `more` tags as (number, kind, bytes of at most four or of a text)."""
    data = strip or PIXELS.tobytes()
    data += bytes(len(data) % 2)
    tags = {
        number: (4, struct.pack("<I", value))
        for number, value in ((256, 300), (257, 200), (273, 8), (278, 200), (279, len(data)))
    }
    tags |= {
        number: (_SHORT, struct.pack("<H", value))
        for number, value in ((259, packing), (262, 2), (277, 3))
    }
    tags |= {258: (_SHORT, struct.pack("<3H", 8, 8, 8))}
    tags |= {number: (kind, value) for number, kind, value in more}
    begin = 8 + len(data)
    entries, extra = b"", b""
    for number, (kind, value) in sorted(tags.items()):
        count = len(value) if kind == _TEXT else len(value) // {_SHORT: 2}.get(kind, 4)
        place = value.ljust(4, b"\0")
        if len(value) > 4:
            place = struct.pack("<I", begin + 6 + 12 * len(tags) + len(extra))
            extra += value + bytes(len(value) % 2)
        entries += struct.pack("<HHI", number, kind, count) + place
    head = struct.pack("<2sHI", b"II", 42, begin)
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + bytes(4) + extra)


def _short(number: int, value: int) -> tuple[int, int, bytes]:
    return number, _SHORT, struct.pack("<H", value)


#: Tags that real writers get wrong, none of which is about the pixels.
WRONG = {
    "no orientation.tif": _short(274, 0),
    "orientation of nine.tif": _short(274, 9),
    "no unit.tif": _short(296, 0),
    "no order of bits.tif": _short(266, 0),
    "two owners.tif": (33432, _TEXT, b"the one who took it\0the lab\0"),
    "utf-16.tif": (270, _TEXT, "slide 7".encode("utf-16") + b"\0"),
    "a kind of none.tif": (271, 0, b"\1\0\0\0"),
    "a kind of the future.tif": (271, 99, b"\1\0\0\0"),
}


def test_a_tag_that_is_not_about_the_pixels_costs_nothing(pictures: Pictures) -> None:
    """libtiff and tifffile both complain of it, and all pixels are there."""
    for name, tag in WRONG.items():
        _tiff(pictures.inbox / name, tag)
    code = pictures.treated()
    found = pictures.by_name()
    assert (code, {name: one["error"] for name, one in found.items() if one["error"]}) == (0, {})
    assert found.keys() == WRONG.keys()
    for name, one in found.items():
        [image] = one["images"]
        assert image["mpp_x"] is None, name
        with openslide.OpenSlide(one["_path"] / image["file"]) as slide:
            shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        assert np.abs(shown.astype(int) - PIXELS).mean() < 1.5, name


def test_packed_bytes_behind_the_last_row(pictures: Pictures) -> None:
    """Some writers end a strip of PackBits with more than its rows; libtiff discards it with a warning."""
    strip = imagecodecs.packbits_encode(PIXELS.tobytes() + b"x" * 40)
    _tiff(pictures.inbox / "a.tif", strip=strip, packing=32773)
    assert pictures.treated() == 0, pictures.said()
    [one] = pictures.manifests().values()
    [image] = one["images"]
    with openslide.OpenSlide(one["_path"] / image["file"]) as slide:
        shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    assert np.abs(shown.astype(int) - PIXELS).mean() < 1.5


def _packed(number: int, path: Path) -> None:
    _tiff(path, strip=imagecodecs.zlib_encode(PIXELS.tobytes()), packing=number)


def _with_its_height_behind(path: Path) -> None:
    """A JPEG whose header says that its height follows its pixels (T.81, B.2.5)."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG", quality=90)
    data = bytearray(stream.getvalue())
    at = data.index(b"\xff\xc0") + 5
    height, data[at : at + 2] = data[at : at + 2], b"\0\0"
    path.write_bytes(data[:-2] + b"\xff\xdc\0\4" + height + b"\xff\xd9")


def _for_a_telephone(path: Path) -> None:
    """A PNG with the chunk that Apple puts first, because its pixels are packed otherwise."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    data = stream.getvalue()
    path.write_bytes(data[:8] + b"\0\0\0\4CgBI\x50\0\x20\2" + bytes.fromhex("2bd5b37f") + data[8:])


def _bitmap(path: Path, bits: int, packing: int) -> None:
    rows = bytes(300 * 200 * 8)
    header = struct.pack("<IiiHHIIiiII", 40, 300, 200, 1, bits, packing, len(rows), 0, 0, 0, 0)
    path.write_bytes(struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54) + header + rows)


UNKNOWN = {
    **{
        f"packed by {number}.tif": lambda path, number=number: _packed(number, path)
        for number in (9, 10, 7000, 32766, 32771, 32809, 32895, 34661, 34718)
    },
    "height behind.jpg": _with_its_height_behind,
    "telephone.png": _for_a_telephone,
    "64 bits.bmp": lambda path: _bitmap(path, 64, 0),
    "a jpeg inside.bmp": lambda path: _bitmap(path, 0, 4),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_reader_knows_is_not_called_damaged(pictures: Pictures, name: str) -> None:
    """To copy it again would not help: it has to be exported in another way."""
    UNKNOWN[name](pictures.inbox / name)
    pictures.treated()
    [found] = pictures.manifests().values()
    assert found["error"]["reason"] == "unsupported_format", found["error"]
