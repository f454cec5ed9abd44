"""ImageJ: three channels of 8 bits that it shows as one picture in red, green and blue.

Source: ImageJ's FileSaver and TiffEncoder (channels= and mode= in ImageDescription, lookup tables in tag 50839);
CompositeImage, whose first three channels are red, green and blue unless they have tables of their own
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from cytowatch.config import Config
from cytowatch.formats.structure.tiff import Tiff, TiffError
from cytowatch.pyramid.readers.merged import of_planes
from cytowatch.pyramid.readers.ome_xml import Channel, as_rgb
from cytowatch.pyramid.readers.pages import Page, open_page, opened_file, orientation, profile
from cytowatch.pyramid.regions import Opened, Scene

__all__ = ["is_composite", "open_composite"]

_NUMBER = re.compile(r"^(images|channels|slices|frames)=(\d{1,9})$", re.MULTILINE)
_COLOURS = ("red", "green", "blue")
_RAMP = np.arange(256, dtype=np.uint8)


def is_composite(path: str) -> bool:
    """Whether it is three channels of 8 bits of one plane, which are not to be shown in grey."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
        text = tiff.directories[0].text(270)
        if not text.startswith("ImageJ=") or "mode=gray" in text or len(tiff.directories) != 3:
            return False
        said = {name: int(value) for name, value in _NUMBER.findall(text)}
        plane = said.get("slices", 1) == said.get("frames", 1) == 1
        grey = all(one.number(277, 1) == 1 and one.number(258, 1) == 8 for one in tiff.directories)
        return said.get("channels") == 3 and plane and grey
    except TiffError:
        return False
    finally:
        os.close(descriptor)


def open_composite(path: str, config: Config) -> Opened:
    """Its channels as one picture, if their lookup tables or names do not say otherwise; else its first page.

    Raises
    ------
    ConversionError
        As `open_page` says.
    """
    import tifffile

    with opened_file(path) as (opened, descriptor):
        try:
            tiff = opened.enter_context(tifffile.TiffFile(path))
            order = as_rgb(_channels(tiff.imagej_metadata or {}), eight_bits=True)
            pages = [tiff.pages[number] for number in order or ()]
            region = of_planes([Page(page, descriptor, config) for page in pages])
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - no matter what is wrong with it, the other reader has the words
            region = None
        if region is not None:
            scene = Scene(
                region=region,
                icc_profile=profile(pages[0]),
                orientation=orientation(pages[0]),
                done=region.done,
            )
            return Opened(scenes=[scene], reader="tifffile", close=opened.pop_all().close)
    return open_page(path, config)


def _channels(about: dict[str, Any]) -> list[Channel]:
    tables, labels = about.get("LUTs") or [], about.get("Labels") or []
    return [
        Channel(
            name=str(labels[number]) if number < len(labels) else "",
            colour=_colour(tables[number]) if number < len(tables) else "",
        )
        for number in range(3)
    ]


def _colour(table: Any) -> str:
    """Red, green, blue or "other", by what a lookup table makes of the values."""
    rows = np.asarray(table)
    if rows.shape != (3, 256):
        return "other"
    lit = [number for number in range(3) if rows[number].any()]
    plain = len(lit) == 1 and bool((rows[lit[0]] == _RAMP).all())
    return _COLOURS[lit[0]] if plain else "other"
