"""Pixel sizes that a TIFF's writer states in its own words reach the manifest and the pyramid."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytowatch.pyramid import resolution
from cytowatch.pyramid.readers import ome_xml
from tests.builders import others, picture
from tests.lab.pictures import Pictures

PIXELS = picture(120, 90)
UM = 0.2523


def _imagej(unit: str, size: float, **options: Any) -> Callable[[Path], None]:
    """As tifffile writes for ImageJ: pixels per unit, no ResolutionUnit."""
    about = {"unit": unit, "axes": "YXS"}
    return lambda path: tifffile.imwrite(path, PIXELS, imagej=True, resolution=(1 / size, 1 / size), metadata=about, **options)  # fmt: skip


def _described(text: str | bytes, **options: Any) -> Callable[[Path], None]:
    data = text if isinstance(text, bytes) else text.encode()
    options = {"photometric": "rgb", "metadata": None, "software": "", **options}
    return lambda path: tifffile.imwrite(path, PIXELS, description=data, **options)


def _tagged(*tags: tuple[int, int, int, Any], **options: Any) -> Callable[[Path], None]:
    extra = [(*one, True) for one in tags]
    return lambda path: tifffile.imwrite(path, PIXELS, photometric="rgb", metadata=None, extratags=extra, **options)  # fmt: skip


def _metamorph(state: str, units: str, value: float) -> str:
    return (
        '<MetaData><prop id="Description" type="string" value="Acquired"/>'
        f'<prop id="spatial-calibration-state" type="bool" value="{state}"/>'
        f'<prop id="spatial-calibration-x" type="float" value="{value}"/>'
        f'<prop id="spatial-calibration-y" type="float" value="{value}"/>'
        f'<prop id="spatial-calibration-units" type="string" value="{units}"/></MetaData>'
    )


GEO = [1, 1, 0, 2, 1024, 0, 1, 1, 3076, 0, 1, 9001]
FEET = [1, 1, 0, 2, 1024, 0, 1, 1, 3076, 0, 1, 9002]
NIS = f'<variant><dCalibration runtype="double" value="{UM}"/></variant>'
LSM = struct.pack("<I36x3d", 0x00400494C, UM * 1e-6, UM * 1e-6, 1e-6).ljust(200, b"\0")
SCALE = (33550, 12, 3, (UM * 1e-6, UM * 1e-6, 0.0))
PLAIN = {"resolution": (1 / UM, 1 / UM), "resolutionunit": "NONE"}
#: How it is written, and the micrometres per pixel that it states.
STATED: dict[str, tuple[Callable[[Path], None], tuple[float, float] | None]] = {
    "um": (_imagej("um", UM), (UM, UM)),
    "micron": (_imagej("micron", UM), (UM, UM)),
    "microns": (_imagej("Microns", UM), (UM, UM)),
    "escaped": (_imagej("\\u00B5m", UM), (UM, UM)),
    "utf-8": (_described("ImageJ=1.54f\nunit=µm\nloop=false\n", **PLAIN), (UM, UM)),
    "latin-1": (_described("ImageJ=1.54f\nunit=µm\nloop=false\n".encode("latin-1"), **PLAIN), (UM, UM)),
    "greek": (_described("ImageJ=1.54f\nunit=μm\n", **PLAIN), (UM, UM)),
    "windows": (_described("ImageJ=1.54f\r\nunit=um\r\n", **PLAIN), (UM, UM)),
    "nm": (_imagej("nm", 252.3), (UM, UM)),
    "mm": (_imagej("mm", UM / 1000), (UM, UM)),
    "cm": (_imagej("cm", UM / 10_000), (UM, UM)),
    "inch": (_imagej("inch", UM / 25_400), (UM, UM)),
    "two": (_described("ImageJ=1.54f\nunit=micron\nyunit=nm\n", resolution=(4, 0.002), resolutionunit="NONE"), (0.25, 0.5)),
    "centimetre tag": (_imagej("um", UM, resolutionunit="CENTIMETER"), (UM, UM)),
    "pixel": (_imagej("pixel", 1.0), None),
    "pixels": (_imagej("pixels", 1.0, resolutionunit="INCH"), None),
    "pixel of 300 dpi": (_described("ImageJ=1.54f\nunit=pixel\n", resolution=(300, 300), resolutionunit="INCH"), None),
    "seconds": (_imagej("sec", UM), None),
    "no unit": (_described("ImageJ=1.54f\nimages=1\n", **PLAIN), None),
    "not imagej": (_described("unit=um\n", **PLAIN), None),
    "geo": (_tagged(SCALE, (34735, 3, len(GEO), GEO)), (UM, UM)),
    "geo feet": (_tagged(SCALE, (34735, 3, len(FEET), FEET)), None),
    "geo map": (_tagged((33550, 12, 3, (30.0, 30.0, 0.0)), (34735, 3, len(GEO), GEO)), None),
    "no geo keys": (_tagged(SCALE), None),
    "metamorph": (_described(_metamorph("on", "um", UM)), (UM, UM)),
    "metamorph off": (_described(_metamorph("off", "um", UM)), None),
    "metamorph pixel": (_described(_metamorph("on", "pixel", 1)), None),
    "nis": (_tagged((65330, 2, 0, NIS)), (UM, UM)),
    "micro-manager": (_tagged((51123, 2, 0, f'{{"PixelSizeUm": {UM}, "Width": 120}}')), (UM, UM)),
    "lsm": (_tagged((34412, 1, len(LSM), LSM)), (UM, UM)),
    "nothing": (_described("a picture"), None),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_each_writer_is_heeded(tmp_path: Path, name: str) -> None:
    """In any unit of length; a pixel, a second and a map's metres are not sizes of a slide."""
    write, wanted = STATED[name]
    write(tmp_path / "a.tif")
    found = resolution.stated(str(tmp_path / "a.tif"), 1, 1)
    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert (found.x, found.y) == pytest.approx(wanted, rel=1e-4)


def test_it_reaches_manifest_and_pyramid(pictures: Pictures) -> None:
    """By libvips, by tifffile and with 16 bits, and natively; nothing is made up where it says none."""
    inbox = pictures.inbox
    _imagej("um", UM)(inbox / "eight.tif")
    wide = {"unit": "micron", "axes": "YX"}
    tifffile.imwrite(inbox / "wide.tif", PIXELS[:, :, 1].astype(np.uint16) * 257, imagej=True, resolution=(1 / UM, 1 / UM), metadata=wide)  # fmt: skip
    _described("ImageJ=1.54f\nunit=um\n", compression="zstd", **PLAIN)(inbox / "zstd.tif")
    with tifffile.TiffWriter(inbox / "native.tif") as tiff:
        for level in (1, 2):
            text = b"ImageJ=1.54f\nunit=um\n" if level == 1 else None
            part = np.ascontiguousarray(picture(512, 512)[::level, ::level])
            tiff.write(part, tile=(128, 128), photometric="rgb", subfiletype=level - 1, metadata=None, description=text, software="", **PLAIN)  # fmt: skip
    _imagej("pixel", 1.0)(inbox / "none.tif")
    assert pictures.treated() == 0, pictures.said()
    for name, document in pictures.by_name().items():
        [image] = document["images"]
        wanted = None if name == "none.tif" else pytest.approx(UM, rel=1e-4)
        assert image["mpp_x"] == wanted, name
        assert image["mpp_y"] == wanted, name
        if name == "native.tif":
            assert document["format"]["native"]
            continue
        found = resolution.stated(str(document["_path"] / image["file"]), 0, 0)
        assert (found.x if found else None) == wanted, name


def _jp2(path: Path) -> None:
    """With a capture resolution in its header: pixels per metre as a fraction and a power of ten, downwards first."""
    data = others.jp2(path, width=120, height=90).read_bytes()
    capture = struct.pack(">I4s4H2b", 18, b"resc", 5, 2, 4, 1, 6, 6)
    more = struct.pack(">I4s", 8 + len(capture), b"res ") + capture
    at = data.index(b"jp2h") - 4
    [length] = struct.unpack_from(">I", data, at)
    header = struct.pack(">I", length + len(more)) + data[at + 4 : at + length] + more
    path.write_bytes(data[:at] + header + data[at + length :])


def _jp2_damaged(path: Path) -> None:
    """The box of its resolution holds one of no length."""
    data = others.jp2(path, width=120, height=90).read_bytes()
    more = struct.pack(">I4sI4s", 16, b"res ", 3, b"resc")
    at = data.index(b"jp2h") - 4
    [length] = struct.unpack_from(">I", data, at)
    header = struct.pack(">I", length + len(more)) + data[at + 4 : at + length] + more
    path.write_bytes(data[:at] + header + data[at + length :])


def _bmp(path: Path) -> None:
    data = bytearray(others.bmp(path, width=120, height=90).read_bytes())
    struct.pack_into("<ii", data, 38, 4_000_000, 2_500_000)
    path.write_bytes(data)


def test_pixel_sizes_of_other_formats(pictures: Pictures) -> None:
    """The header of a bitmap has pixels per metre; a JPEG 2000 may have the resolution of its capture."""
    makers = {
        "a.jp2": (_jp2, 0.25),
        "b.bmp": (_bmp, 0.25),
        "c.jp2": (others.jp2, None),
        "e.jp2": (_jp2_damaged, None),
        "d.bmp": (others.bmp, None),
    }
    for name, (make, _) in makers.items():
        make(pictures.inbox / name)
    assert pictures.treated() == 0
    found = pictures.by_name()
    assert found.keys() == makers.keys()
    for name, (_, x) in makers.items():
        [image] = found[name]["images"]
        assert (image["mpp_x"], image["mpp_y"]) == (x, 0.4 if x else None), name


@pytest.mark.parametrize(
    ("size", "unit", "mpp"),
    [
        ("0.25", "µm", 0.25),
        ("250", "nm", 0.25),
        ("2500", "\N{ANGSTROM SIGN}", 0.25),
        ("2500", "Å", 0.25),
        ("250000", "pm", 0.25),
        ("0.00025", "mm", 0.25),
        ("1e-5", "in", 0.254),
        ("0.01", "thou", 0.254),
        ("1", "pixel", None),
        ("1", "reference frame", None),
        ("0.25", "furlong", None),
    ],
)
def test_units_of_ome(size: str, unit: str, mpp: float | None) -> None:
    """Those of the schema in which a pixel can be stated; others are not a length, or not one of a microscope."""
    pixels = "".join(
        f' PhysicalSize{axis}="{size}" PhysicalSize{axis}Unit="{unit}"' for axis in "XY"
    )
    [known] = ome_xml.images(f"<OME><Image><Pixels{pixels}/></Image></OME>")
    assert (known.mpp.x if known.mpp else None) == (pytest.approx(mpp) if mpp else None)
