"""What a deployed pyramid is: sizes, levels, pixel size; as OpenSlide reports them, else as its tags do."""

from __future__ import annotations

import os
from typing import Any

import openslide
import pyvips

from cytowatch.formats.structure.tiff import Directory, Tiff
from cytowatch.pyramid import acquired, resolution
from cytowatch.record.entries import ImageEntry, LevelEntry

__all__ = ["by_openslide", "by_pyvips", "by_tags", "open_slide"]

#: Properties that may be shown: none of them can carry a patient's name or a label's text.
_TELLABLE = (
    "aperio.AppMag",
    "aperio.MPP",
    "aperio.ScanScope ID",
    "aperio.ImageID",
    "hamamatsu.SourceLens",
    "hamamatsu.Product",
    "openslide.quickhash-1",
    "tiff.Make",
    "tiff.Model",
    "tiff.Software",
    "tiff.DateTime",
)


def open_slide(path: str) -> openslide.OpenSlide | None:
    """The slide at `path`, or None where OpenSlide cannot open it."""
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError:
        return None


def by_openslide(slide: openslide.OpenSlide, file: str) -> ImageEntry:
    """The entry of an open slide; `file` is its path below ``<id>/``."""
    known = slide.properties
    mpp = resolution.plausible(
        _number(known.get(openslide.PROPERTY_NAME_MPP_X)),
        _number(known.get(openslide.PROPERTY_NAME_MPP_Y)),
    )
    if mpp is None and known.get(openslide.PROPERTY_NAME_VENDOR) == "generic-tiff":
        # OpenSlide knows the tags of the standard only.
        mpp = resolution.stated(file, 0, 0)
    width, height = slide.dimensions
    levels = [
        LevelEntry(
            width=size[0],
            height=size[1],
            downsample=round(float(slide.level_downsamples[index]), 6),
            tile_width=_whole(known.get(f"openslide.level[{index}].tile-width")),
            tile_height=_whole(known.get(f"openslide.level[{index}].tile-height")),
        )
        for index, size in enumerate(slide.level_dimensions)
    ]
    return ImageEntry(
        scene=0,
        file=file,
        width=width,
        height=height,
        samples_per_pixel=_samples(file),
        bits_per_sample=8,
        mpp_x=mpp.x if mpp else None,
        mpp_y=mpp.y if mpp else None,
        objective_power=_positive(known.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        levels=levels,
        associated=sorted(slide.associated_images),
        icc_profile="openslide.icc-size" in known,
        acquired_at=acquired.of_slide(known),
        vendor=known.get(openslide.PROPERTY_NAME_VENDOR),
        properties={name: known[name][:200] for name in _TELLABLE if name in known},
    )


def by_tags(path: str, file: str, *, icc_profile: bool) -> ImageEntry:
    """The entry of a pyramidal TIFF that OpenSlide does not open, such as one of 16 bits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        directories = Tiff(descriptor, os.fstat(descriptor).st_size).directories
        width, height = directories[0].size
        mpp = resolution.stated(path, 0, 0)
        return _entry(
            file,
            width,
            height,
            samples=directories[0].number(277, 1),
            bits=directories[0].number(258, 1),
            mpp=(mpp.x, mpp.y) if mpp else (None, None),
            levels=[_level(one, width) for one in directories if one.tiled],
            icc_profile=icc_profile,
        )
    finally:
        os.close(descriptor)


def by_pyvips(path: str, file: str) -> ImageEntry:
    """The entry of a flat image that is deployed as it is."""
    image = pyvips.Image.new_from_file(path)
    mpp = resolution.stated(path, image.xres, image.yres)
    level = LevelEntry(
        width=image.width, height=image.height, downsample=1.0, tile_width=None, tile_height=None
    )
    return _entry(
        file,
        image.width,
        image.height,
        samples=image.bands,
        bits=8 if image.format in ("uchar", "char") else 16,
        mpp=(mpp.x, mpp.y) if mpp else (None, None),
        levels=[level],
        icc_profile=bool(image.get_typeof("icc-profile-data")),
    )


def _entry(file: str, width: int, height: int, **known: Any) -> ImageEntry:
    return ImageEntry(
        scene=0,
        file=file,
        width=width,
        height=height,
        samples_per_pixel=known["samples"],
        bits_per_sample=known["bits"],
        mpp_x=known["mpp"][0],
        mpp_y=known["mpp"][1],
        objective_power=None,
        levels=known["levels"],
        associated=[],
        icc_profile=known["icc_profile"],
        acquired_at=None,
        vendor=None,
        properties={},
    )


def _level(directory: Directory, width: int) -> LevelEntry:
    own, height = directory.size
    return LevelEntry(
        width=own,
        height=height,
        downsample=round(width / own, 6),
        tile_width=directory.number(322) or None,
        tile_height=directory.number(323) or None,
    )


def _samples(path: str) -> int:
    """Samples per pixel as the file stores them; OpenSlide shows everything as RGBA."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 3
    try:
        found = Tiff(descriptor, os.fstat(descriptor).st_size).directories[0].number(277, 1)
    except ValueError:
        return 3
    finally:
        os.close(descriptor)
    return found if found in (1, 3, 4) else 3


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _positive(text: str | None) -> float | None:
    """A number that a manifest can hold: JSON knows neither infinity nor NaN.

    >>> _positive("20"), _positive("-1"), _positive("inf"), _positive("nan")
    (20.0, None, None, None)
    """
    value = _number(text)
    return value if value and 0 < value < float("inf") else None


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
