"""Aperio SVS that OpenSlide refuses, because its levels do not descend or its tiles are packed otherwise: its first level, label and macro.

Source: https://openslide.org/formats/aperio/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from cytowatch.config import Config
from cytowatch.pyramid import acquired, copied, resolution
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.pages import Page, count_pages, open_page, opened_file
from cytowatch.pyramid.regions import Opened
from cytowatch.record.errors import ConversionError

__all__ = ["open_svs"]

_POWER = re.compile(r"\|\s*AppMag\s*=\s*([0-9]+(?:\.[0-9]+)?)\s*(?:\||$)")
#: The second line of a description begins with what is on the page.
_PICTURE = re.compile(r"^[^\n]*\n(label|macro)\b")
_LARGEST_PICTURE = 64_000_000


def open_svs(path: str, config: Config) -> Opened:
    """The first page of a slide, which is its largest level.

    Raises
    ------
    ConversionError
        It is damaged, or of samples that nothing here reads.
    """
    import tifffile

    opened = open_page(path, config)
    [scene] = opened.scenes
    with opened_file(path) as (closing, descriptor):
        tiff = closing.enter_context(tifffile.TiffFile(path))
        pages = [tiff.pages[number].aspage() for number in range(count_pages(tiff))]
        power = _POWER.search(pages[0].description)
        scene = replace(
            scene,
            mpp=resolution.stated(path, 0, 0),
            objective_power=float(power[1]) if power else None,
            acquired_at=acquired.of_description(pages[0].description),
            copied=lambda: copied.chain([scene.region.copied(0)]),  # type: ignore[attr-defined]
        )
        pictures = dict(_pictures(pages[1:], descriptor, config))
    return replace(opened, scenes=[scene], pictures=pictures)


def _pictures(pages: list[Any], descriptor: int, config: Config) -> Iterator[tuple[str, Pixels]]:
    """Label and macro; one that is damaged is left out."""
    for page in pages:
        found = _PICTURE.match(page.description)
        if found is None or page.imagewidth * page.imagelength > _LARGEST_PICTURE:
            continue
        with suppress(ConversionError):
            region = Page(page, descriptor, config)
            if region.dtype == np.uint8 and region.samples == 3:
                yield found[1], region.rows(0, region.height)
