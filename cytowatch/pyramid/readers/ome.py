"""OME-TIFF: every series, its first plane or three that are one RGB picture, and what its XML says.

Source: https://ome-model.readthedocs.io/en/stable/ome-tiff/specification.html
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.pyramid import acquired, copied
from cytowatch.pyramid.copied import CopiedLevel
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.merged import Merged, of_planes
from cytowatch.pyramid.readers.ome_xml import Known, as_rgb, images
from cytowatch.pyramid.readers.pages import Page, count_pages, opened_file, orientation, profile
from cytowatch.pyramid.refusals import damaged
from cytowatch.pyramid.regions import Opened, Scene
from cytowatch.record.errors import ConversionError

__all__ = ["open_ome"]

#: What Bio-Formats calls the pictures beside a slide. Source: QuPath's BioFormatsImageServer, extraImageNames.
_PICTURES = {
    "label": "label", "label image": "label", "macro": "macro", "macro image": "macro", "overview": "macro",
    "overview image": "macro",
}  # fmt: skip
#: Of these there is nothing to be shown beside a slide, and they are not slides.
_LEFT_OUT = frozenset({"thumbnail", "thumbnail image", "macro mask image"})
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
            about = images(tiff.ome_metadata or "")
            count_pages(tiff)
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


def _scenes(series: Any, about: Sequence[Known], descriptor: int, config: Config) -> Opened:
    scenes: list[Scene] = []
    pictures: dict[str, Pixels] = {}
    done: list[str] = []
    called = [known.name.strip().lower() for known in about[: len(series)]]
    has_slide = any(name not in _PICTURES and name not in _LEFT_OUT for name in called)
    for number, one in enumerate(series):
        if has_slide and number < len(called) and called[number] in _LEFT_OUT:
            done.append(f"its {called[number]} was left out")
            continue
        page = _first_page(one)
        if page is None:
            raise damaged(f"series {number} has no page")
        known = about[number] if number < len(about) else Known()
        region = Page(page, descriptor, config)
        merged = _merged(one, region, known, descriptor, config)
        role = _PICTURES.get(known.name.strip().lower())
        if role and region.dtype == np.uint8 and region.width * region.height < _LARGEST_PICTURE:
            pixels = (merged or region).rows(0, region.height)
            colours = pixels.shape[2] >= 3
            shown = pixels[:, :, :3] if colours else np.repeat(pixels[:, :, :1], 3, 2)
            pictures.setdefault(role, shown)
            continue
        done += _left_out(one, "ZT" if merged else "CZT")
        scenes.append(
            Scene(
                region=merged or region,
                index=len(scenes),
                name=known.name if len(series) > 1 else "",
                mpp=known.mpp,
                objective_power=known.power,
                icc_profile=profile(page),
                cmyk=region.cmyk,
                orientation=orientation(page),
                done=(*region.done, *(merged.done if merged else region.absent)),
                acquired_at=acquired.of_text(known.acquired_at),
                copied=partial(_copied, region, one, descriptor, config) if not merged else tuple,
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
    return _page(next((one for one in series.pages if one is not None), None))


def _page(page: Any) -> Any:
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


def _left_out(series: Any, axes: str) -> list[str]:
    shape = dict(zip(series.axes, series.shape, strict=False))
    others = "".join(axis for axis in shape if axis not in "CZTYXS")
    return [
        f"it has {shape[axis]} {_PLANES.get(axis, 'planes')}: the first is the pyramid"
        for axis in axes + others
        if shape.get(axis, 1) > 1
    ]


def _merged(
    series: Any, first: Page, known: Known, descriptor: int, config: Config
) -> Merged | None:
    """The first three planes as one picture, if they are its red, green and blue; else None."""
    shape = dict(zip(series.axes, series.shape, strict=False))
    kinds = (np.uint8, np.uint16)
    if shape.get("C") != 3 or "S" in shape or first.samples != 1 or first.dtype not in kinds:
        return None
    order = as_rgb(known.channels, eight_bits=first.dtype == np.uint8)
    step = math.prod(
        count
        for axis, count in zip(series.axes, series.shape, strict=True)
        if series.axes.index(axis) > series.axes.index("C") and axis not in "YX"
    )
    pages = [
        series.pages[step * channel]
        for channel in order or ()
        if step * channel < len(series.pages)
    ]
    if len(pages) != 3 or None in pages:
        return None
    found = [Page(_page(one), descriptor, config) for one in pages]
    return of_planes(found)
