"""OME-TIFF: every series, its first plane, with what the OME-XML says of it.

Source: https://ome-model.readthedocs.io/en/stable/ome-tiff/specification.html
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.errors import ConversionError
from cytowatch.model import Mpp
from cytowatch.pyramid import copied, resolution
from cytowatch.pyramid.copied import CopiedLevel
from cytowatch.pyramid.readers.pages import Page, opened_file, orientation, profile
from cytowatch.pyramid.regions import Opened, Pixels, Scene, damaged

__all__ = ["open_ome"]

_UM = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_PICTURES = {"label": "label", "label image": "label", "macro": "macro", "macro image": "macro"}
_LARGEST_PICTURE = 64_000_000
_PLANES = {"C": "channels", "Z": "focal planes", "T": "times"}


def open_ome(path: str, config: Config) -> Opened:
    """Every series of an OME-TIFF: the first plane of its largest level.

    Raises
    ------
    ConversionError
        It is damaged, or it refers to other files.
    """
    import tifffile

    with opened_file(path) as (opened, descriptor):
        try:
            tiff = opened.enter_context(tifffile.TiffFile(path, _multifile=False))
            about = _images(tiff.ome_metadata or "")
            series = tiff.series
        except Exception as error:
            raise damaged(error) from error
        try:
            found = _scenes(series, about, descriptor, config)
        except (ConversionError, MemoryError, OSError):
            raise
        except Exception as error:
            raise damaged(error) from error
        return replace(found, close=opened.pop_all().close)


def _scenes(series: Any, about: list[_Known], descriptor: int, config: Config) -> Opened:
    scenes: list[Scene] = []
    pictures: dict[str, Pixels] = {}
    done: list[str] = []
    for number, one in enumerate(series):
        page = _first_page(one)
        if page is None:
            raise damaged(f"series {number} has no page")
        known = about[number] if number < len(about) else _Known()
        region = Page(page, descriptor, config)
        role = _PICTURES.get(known.name.strip().lower())
        if role and region.dtype == np.uint8 and region.width * region.height < _LARGEST_PICTURE:
            pixels = region.rows(0, region.height)
            pictures[role] = (
                pixels[:, :, :3] if region.samples >= 3 else np.repeat(pixels[:, :, :1], 3, 2)
            )
            continue
        done += _left_out(one)
        scenes.append(
            Scene(
                region=region,
                index=len(scenes),
                name=known.name if len(series) > 1 else "",
                mpp=known.mpp,
                objective_power=known.power,
                icc_profile=profile(page),
                cmyk=region.cmyk,
                orientation=orientation(page),
                done=(*region.done, *region.absent),
                acquired_at=known.acquired_at,
                copied=partial(_copied, region, one, descriptor, config),
            )
        )
    if not scenes:
        raise damaged("it holds no image")

    return Opened(
        scenes=scenes,
        reader="tifffile",
        pictures=pictures,
        done=tuple(dict.fromkeys(done)),
    )


def _first_page(series: Any) -> Any:
    """The first plane of a series or of one of its levels; None if it has none."""
    page: Any = next((one for one in series.pages if one is not None), None)
    return page.aspage() if hasattr(page, "aspage") else page


def _copied(first: Page, series: Any, descriptor: int, config: Config) -> tuple[CopiedLevel, ...]:
    """The levels of a series that can be copied, from its first one on."""

    def levels() -> Iterator[CopiedLevel | None]:
        try:
            yield first.copied(0)
            for number, one in enumerate(series.levels[1:], start=1):
                yield Page(_first_page(one), descriptor, config).copied(number)
        except Exception as error:
            if isinstance(error, OSError) and durable.is_transient(error):
                raise

    return copied.chain(levels())


def _left_out(series: Any) -> list[str]:
    shape = dict(zip(series.axes, series.shape, strict=False))
    return [
        f"it has {shape[axis]} {what}: the first is the pyramid"
        for axis, what in _PLANES.items()
        if shape.get(axis, 1) > 1
    ]


class _Known:
    """What the OME-XML says of one image."""

    def __init__(self) -> None:
        self.name = ""
        self.mpp: Mpp | None = None
        self.power: float | None = None
        self.acquired_at: str | None = None


def _images(xml: str) -> list[_Known]:
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
    found = []
    for image in (one for one in top if _is(one, "Image")):
        known = _Known()
        known.name = image.get("Name") or ""
        for part in image:
            if _is(part, "Pixels"):
                x, y = _micrometres(part, "X"), _micrometres(part, "Y")
                known.mpp = resolution.plausible(x, y)
            elif _is(part, "AcquisitionDate"):
                known.acquired_at = (part.text or "")[:40] or None
            elif _is(part, "ObjectiveSettings"):
                known.power = _number(powers.get(part.get("ID")))
        found.append(known)
    return found


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
