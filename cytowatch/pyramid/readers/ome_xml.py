"""What the XML of an OME-TIFF says of its images: pixel size, objective, and what its channels are.

Source: https://docs.openmicroscopy.org/ome-model/6.3.1/ (OME.xsd: Pixels, Channel)
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cytowatch.model import Mpp
from cytowatch.pyramid import resolution

__all__ = ["Channel", "Known", "as_rgb", "images"]

#: Of UnitsLength those in which a microscope's pixel can be stated, and the ways in which µ is written.
_UM = {
    "pm": 1e-6, "Å": 1e-4, "\N{ANGSTROM SIGN}": 1e-4, "nm": 1e-3, "µm": 1.0, "um": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5,
    "m": 1e6, "thou": 25.4, "in": 25_400.0,
}  # fmt: skip
_RGB = ("red", "green", "blue")
#: Color is RGBA in a signed number of 32 bits; what is left of it without its A.
_BY_COLOUR = {0xFF0000: "red", 0x00FF00: "green", 0x0000FF: "blue"}
#: White, which is also what the schema takes a channel without a colour for.
_WHITE = 0xFFFFFF
_BY_NAME = {"r": "red", "g": "green", "b": "blue", **{one: one for one in _RGB}}
#: Words of a name that say nothing of what a channel shows.
_EMPTY = frozenset({"channel", "ch", "c", "band", "rgb", "brightfield", "bf", "camera", "spw"})
#: Attributes of a channel that only fluorescence has.
_OF_FLUORESCENCE = ("Fluor", "EmissionWavelength", "ExcitationWavelength")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """`colour` is red, green, blue, "other" or, without one, empty."""

    name: str = ""
    colour: str = ""
    fluorescent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of one image."""

    name: str = ""
    mpp: Mpp | None = None
    power: float | None = None
    acquired_at: str | None = None
    channels: tuple[Channel, ...] = field(default=())


def images(xml: str) -> list[Known]:
    """Each image that the XML describes, in its order; none if it cannot be read."""
    # Entities could refer to files or grow without end; no OME-XML has any.
    if "<!ENTITY" in xml or "<!DOCTYPE" in xml:
        return []
    try:
        top = ET.fromstring(xml)
    except ET.ParseError:
        return []
    powers = {
        one.get("ID"): one.get("NominalMagnification")
        for one in top.iter()
        if _is(one, "Objective")
    }
    return [_known(one, powers) for one in top if _is(one, "Image")]


def as_rgb(channels: Sequence[Channel], *, eight_bits: bool) -> tuple[int, int, int] | None:
    """Which of three channels are red, green and blue; None where they are not one RGB picture.

    They are where their names or their colours say so. Three of 8 bits that say nothing are as well:
    Bio-Formats shows them so. A name that means something else (DAPI) is stronger than any colour.

    >>> as_rgb([Channel(name=one) for one in "BGR"], eight_bits=True)
    (2, 1, 0)
    >>> as_rgb([Channel(name=one) for one in ("DAPI", "FITC", "Cy3")], eight_bits=True)
    """
    if any(one.fluorescent for one in channels) or len(channels) not in (0, 3):
        return None
    names = [one.name.strip().lower() for one in channels]
    # What all three are called says what the picture is, and not what each of them is.
    meant = [""] * 3 if len(set(names)) == 1 else [_meant(one) for one in names]
    if None in meant:
        return None
    by_name, by_colour = _order(meant), _order([one.colour for one in channels])
    if by_name and by_colour and by_name != by_colour:
        return None
    if by_name or by_colour:
        return by_name or by_colour
    said = any(meant) or any(one.colour for one in channels)
    return (0, 1, 2) if eight_bits and not said else None


def _meant(name: str) -> str | None:
    """Red, green or blue; empty where the name says nothing; None where it says something else."""
    words = [one for one in re.findall(r"[^\W\d_]+", name) if one not in _EMPTY]
    if not words:
        return ""
    return _BY_NAME.get(words[0]) if len(words) == 1 else None


def _order(meant: Sequence[str | None]) -> tuple[int, int, int] | None:
    if sorted(map(str, meant)) != sorted(_RGB):
        return None
    red, green, blue = (list(meant).index(one) for one in _RGB)
    return red, green, blue


def _known(image: Any, powers: dict[str | None, str | None]) -> Known:
    mpp: Mpp | None = None
    power: float | None = None
    acquired_at: str | None = None
    channels: tuple[Channel, ...] = ()
    for part in image:
        if _is(part, "Pixels"):
            x, y = _micrometres(part, "X"), _micrometres(part, "Y")
            mpp = resolution.plausible(x, y)
            channels = tuple(_channel(one) for one in part if _is(one, "Channel"))
        elif _is(part, "AcquisitionDate"):
            acquired_at = (part.text or "")[:40] or None
        elif _is(part, "ObjectiveSettings"):
            power = _number(powers.get(part.get("ID")))
    return Known(
        name=image.get("Name") or "",
        mpp=mpp,
        power=power,
        acquired_at=acquired_at,
        channels=channels,
    )


def _channel(element: Any) -> Channel:
    fluorescent = any(element.get(one) for one in _OF_FLUORESCENCE)
    fluorescent = fluorescent or element.get("ContrastMethod") == "Fluorescence"
    colour = ""
    try:
        stated = (int(element.get("Color", "-1")) >> 8) & _WHITE
        colour = "" if stated == _WHITE else _BY_COLOUR.get(stated, "other")
    except ValueError:
        pass
    return Channel(name=element.get("Name") or "", colour=colour, fluorescent=fluorescent)


def _is(element: Any, name: str) -> bool:
    return str(element.tag).rpartition("}")[2] == name


def _micrometres(pixels: Any, axis: str) -> float | None:
    unit = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    value = _number(pixels.get(f"PhysicalSize{axis}"))
    return value * unit if value and unit else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
