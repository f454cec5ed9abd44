"""Pixel sizes that the writer of a TIFF states in its own words, beside the tags of the standard.

Source: ImageJ's TiffEncoder (unit= in ImageDescription, pixels per unit in XResolution); OGC GeoTIFF 1.1
(33550, 34735); Aperio, "Digital slides and third-party data interchange"; the readers of Bio-Formats for
MetaMorph, NIS-Elements and LSM; Micro-Manager's file format (51123).
"""

from __future__ import annotations

import math
import re
import struct

from cytowatch.formats.structure.tiff import Directory
from cytowatch.model import Mpp

__all__ = ["is_none", "micrometres", "plausible", "read"]

#: Above this a pixel is a screen's: 72 dpi are 353 µm. Below the other no light resolves it.
_LARGEST_UM, _SMALLEST_UM = 100.0, 0.001
#: The relative distance of two neighbouring floats of 32 bits.
_FLOAT32 = 2.0**-23
_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION = 270, 282, 283
_MODEL_PIXEL_SCALE, _GEO_KEYS = 33550, 34735
_LSM, _MICRO_MANAGER, _NIS = 34412, 51123, (65330, 65332, 65333)
#: Of GeoTIFF: the unit of lengths, and metres.
_LINEAR_UNITS, _METRE = 3076, 9001
_LSM_MARKS = (0x00300494C, 0x00400494C)
_WORDS = {
    1e-3: ("nm", "nanometer", "nanometre"),
    1.0: ("um", "\u00b5m", "\u03bcm", "\\u00b5m", "\ufffdm", "micron", "micrometer", "micrometre"),
    1e3: ("mm", "millimeter", "millimetre"),
    1e4: ("cm", "centimeter", "centimetre"),
    1e6: ("m", "meter", "metre"),
    25_400.0: ("in", "inch", "inches", '"'),
}
_UM = {word: um for um, words in _WORDS.items() for word in words}
_NUMBER = r"([0-9]*[.,]?[0-9]+(?:[eE][-+]?[0-9]+)?)"
_UNIT_OF_IMAGEJ = re.compile(r"^unit=(.*)$", re.MULTILINE)
_Y_UNIT_OF_IMAGEJ = re.compile(r"^yunit=(.*)$", re.MULTILINE)
_MPP_OF_APERIO = re.compile(rf"\|\s*MPP\s*=\s*{_NUMBER}")
_OF_METAMORPH = r'<prop\b[^>]*\bid="spatial-calibration-{}"[^>]*\bvalue="([^"]*)"'
_OF_NIS = re.compile(rf'<dCalibration\b[^>]*\bvalue="{_NUMBER}"')
_OF_MICRO_MANAGER = re.compile(rf'"PixelSizeUm"\s*:\s*"?{_NUMBER}')


def plausible(x: float | None, y: float | None) -> Mpp | None:
    """`Mpp(x, y)` in micrometres per pixel, or None where it cannot be a slide's.

    >>> plausible(0.25, 0.25), plausible(352.8, 352.8), plausible(None, 1.0)
    (Mpp(x=0.25, y=0.25), None, None)
    >>> plausible(0.49999998509883925, 0.2281750559028887)
    Mpp(x=0.5, y=0.22817506)
    """
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
        return None
    fits = all(_SMALLEST_UM <= value <= _LARGEST_UM for value in (x, y))
    return Mpp(_shortest(x), _shortest(y)) if fits else None


def _shortest(value: float) -> float:
    """The shortest decimal number that a 32-bit float cannot tell from `value`.

    TIFF readers and writers keep a resolution in 32 bits: 0.5 comes back as 0.49999998509883925. A
    second time changes nothing, so that a pyramid states what its manifest does.

    >>> _shortest(0.26692247), _shortest(0.2669225)
    (0.2669225, 0.2669225)
    """
    for digits in range(1, 9):
        rounded = float(f"{value:.{digits}g}")
        if abs(rounded - value) <= value * _FLOAT32:
            return rounded if rounded == value else _shortest(rounded)
    return value


def micrometres(unit: str) -> float | None:
    """How many micrometres are one `unit`; None for pixels, and for anything that is not a length.

    >>> micrometres("micron"), micrometres(" Microns"), micrometres("pixel")
    (1.0, 1.0, None)
    """
    word = unit.strip().lower()
    return _UM.get(word) or _UM.get(word.removesuffix("s"))


def read(page: Directory) -> Mpp | None:
    """The pixel size of a page in its writer's own words; None where it has none.

    Raises
    ------
    TiffError
        A tag lies beyond the end of the file.
    """
    found = (one(page) for one in (_imagej, _aperio, _metamorph, _nis, _micro_manager, _lsm, _geo))
    return next((mpp for mpp in found if mpp is not None), None)


def is_none(page: Directory) -> bool:
    """Whether ImageJ states that the page is not calibrated: its unit is a pixel, or not a unit of length."""
    unit = _unit_of_imagej(page)
    return unit is not None and micrometres(unit) is None


def _unit_of_imagej(page: Directory) -> str | None:
    description = page.text(_DESCRIPTION)
    found = _UNIT_OF_IMAGEJ.search(description) if description.startswith("ImageJ=") else None
    return found[1].strip() if found else None


def _imagej(page: Directory) -> Mpp | None:
    unit = _unit_of_imagej(page)
    if unit is None:
        return None
    other = _Y_UNIT_OF_IMAGEJ.search(page.text(_DESCRIPTION))
    um, um_down = micrometres(unit), micrometres(other[1] if other else unit)
    x, y = page.ratio(_X_RESOLUTION), page.ratio(_Y_RESOLUTION)
    return plausible(um / x, um_down / y) if um and um_down and x and y else None


def _aperio(page: Directory) -> Mpp | None:
    description = page.text(_DESCRIPTION)
    return _same(_MPP_OF_APERIO, description) if description.startswith("Aperio") else None


def _metamorph(page: Directory) -> Mpp | None:
    description = page.text(_DESCRIPTION)
    if "spatial-calibration-" not in description:
        return None
    found = {
        name: said[1]
        for name in ("state", "x", "y", "units")
        if (said := re.search(_OF_METAMORPH.format(name), description))
    }
    um = micrometres(found.get("units", ""))
    x, y = _number(found.get("x")), _number(found.get("y", found.get("x")))
    on = found.get("state", "on").lower() not in ("off", "false", "0")
    return plausible(um * x, um * y) if um and x and y and on else None


def _nis(page: Directory) -> Mpp | None:
    texts = (page.text(number).replace("\0", "") for number in _NIS)
    return next((mpp for text in texts if (mpp := _same(_OF_NIS, text))), None)


def _micro_manager(page: Directory) -> Mpp | None:
    return _same(_OF_MICRO_MANAGER, page.text(_MICRO_MANAGER))


def _lsm(page: Directory) -> Mpp | None:
    tag = page.tags.get(_LSM)
    if tag is None or tag.count < 56 or tag.kind not in (1, 7):
        return None
    mark, x, y = struct.unpack(f"{page.tiff.order}I36x2d", page.tiff.bytes(tag.offset, 56))
    return plausible(x * 1e6, y * 1e6) if mark in _LSM_MARKS else None


def _geo(page: Directory) -> Mpp | None:
    """The scale of a map in metres, which GDAL also writes of what lies below a microscope."""
    keys, tag = page.numbers(_GEO_KEYS), page.tags.get(_MODEL_PIXEL_SCALE)
    entries = zip(keys[4::4], keys[5::4], keys[7::4], strict=False)
    metres = any(
        key == _LINEAR_UNITS and not where and value == _METRE for key, where, value in entries
    )
    if not metres or tag is None or tag.kind != 12 or tag.count < 2:
        return None
    x, y = struct.unpack(f"{page.tiff.order}2d", page.tiff.bytes(tag.offset, 16))
    return plausible(x * 1e6, y * 1e6)


def _same(pattern: re.Pattern[str], text: str) -> Mpp | None:
    """The number that a pattern finds, of pixels that are square."""
    found = pattern.search(text)
    value = _number(found[1]) if found else None
    return plausible(value, value)


def _number(text: str | None) -> float | None:
    try:
        # Some writers follow their locale.
        return float(text.replace(",", ".")) if text else None
    except ValueError:
        return None
