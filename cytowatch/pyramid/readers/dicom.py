"""DICOM whole slides that OpenSlide does not show as they are meant: wrong colours, or frames that it does not read.

OpenSlide believes PhotometricInterpretation: where it states RGB of frames that are YCbCr, white is
salmon. Here the frames say what they are, by their markers and their subsampling. And it reads JPEG,
JPEG 2000 and interleaved RGB of 8 bits; grey, palettes, planes, run lengths and more are read here.

Source: DICOM PS3.3, C.8.12 (whole slides) and C.7.6.17 (the order of frames)
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import openslide

from cytowatch.config import Config
from cytowatch.formats.structure import jpeg
from cytowatch.formats.structure.places import bytes_at
from cytowatch.model import Mpp
from cytowatch.pyramid import acquired, resolution
from cytowatch.pyramid.pixels import Pixels, each
from cytowatch.pyramid.readers.dicom_colours import Colours, is_known
from cytowatch.pyramid.readers.dicom_parts import (
    Part,
    frames,
    is_ordinary,
    parts,
    pieces,
)
from cytowatch.pyramid.readers.dicom_places import (
    astray,
    inside_of,
    is_joined,
    levels,
    misplaced,
    missing_file,
    placed,
    split,
    twice,
)
from cytowatch.pyramid.refusals import check_size, damaged
from cytowatch.pyramid.regions import Opened, Scene

__all__ = [
    "Part",
    "astray",
    "contradiction",
    "cut_off",
    "is_foreign",
    "is_placed",
    "left_out",
    "missing_file",
    "open_dicom",
    "parts",
    "twice",
]

_PICTURES = {"LABEL": "label", "OVERVIEW": "macro"}
_LARGEST_PICTURE = 64_000_000
#: So many frames at the edge of a file are looked at, and so much of each.
_MOST_EDGES, _HEAD_BYTES = 16, 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What a slide says of its image beside the pixels."""

    mpp: Mpp | None
    power: float | None
    acquired_at: str | None
    icc_profile: bytes | None


def contradiction(found: Sequence[Part]) -> str | None:
    """How the frames of a slide have other colours than its header states, as a phrase; None if they have not."""
    for one in found:
        if one.kind == "VOLUME" and (said := _said(one)):
            return said
    return None


def cut_off(found: Sequence[Part]) -> str | None:
    """That JPEG frames at the edge of a level are as small as what lies inside of it, as a phrase; OpenSlide refuses those.

    The first edges are looked at, because where a frame lies only the ones before it say.
    """
    for part in found:
        if part.kind == "VOLUME" and part.jpeg and part.full and _is_cut_off(part):
            return "its frames are cut off at the edges"
    return None


def _is_cut_off(part: Part) -> bool:
    looked_at = 0
    descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        places = itertools.islice(pieces(descriptor, part), 1, None)
        for number, (offset, length) in enumerate(places, start=part.first_frame):
            inside = inside_of(part, number)
            if number >= part.tiles or looked_at >= _MOST_EDGES:
                return False
            if inside != part.tile:
                looked_at += 1
                head = bytes_at(descriptor, min(length, _HEAD_BYTES), offset)
                if jpeg.size(head) == inside:
                    return True
    finally:
        os.close(descriptor)
    return False


def is_placed(found: Sequence[Part]) -> bool:
    """Whether the frames of all levels are JPEG, and those of the largest lie where their numbers or headers say."""
    return all(one.jpeg for one in found if one.kind == "VOLUME") and misplaced(found) is None


def is_foreign(found: Sequence[Part]) -> bool:
    """Whether OpenSlide does not read the frames of a slide, because of their kind, their planes or their files, and they are read here."""
    volumes = [one for one in found if one.kind == "VOLUME"]
    foreign = any(not is_ordinary(one) or one.focal_planes > 1 for one in volumes)
    several = any(split(level) or (len(level) > 1 and not level[0].full) for level in levels(found))
    largest = _largest(found)
    return (
        (foreign or several)
        and bool(largest)
        and all(is_known(one) for one in largest)
        and is_joined(largest)
        and misplaced(found) is None
    )


def open_dicom(path: str, config: Config) -> Opened:
    """The largest level of a slide with the colours of its frames.

    Raises
    ------
    ConversionError
        It is damaged, or of a kind whose frames cannot be placed.
    """
    found = parts(path)
    level = _largest(found)
    if not level:
        raise damaged("it holds no image of the slide")
    about = _by_openslide(path) or _by_header(level[0].path)
    with ExitStack() as opened:
        region = _Frames(level, opened, config)
        scene = Scene(
            region=region,
            mpp=about.mpp,
            objective_power=about.power or None,
            icc_profile=about.icc_profile if region.samples == 3 else None,
            acquired_at=about.acquired_at,
        )
        pictures = dict(_pictures(found, config))
        return Opened(
            scenes=[scene],
            reader="imagecodecs",
            pictures=pictures,
            done=(*left_out(found), *region.done),
            close=opened.pop_all().close,
        )


class _Frames:
    """Rows of one level, whose frames lie in one file or several; `done` says which of its tiles are in none."""

    def __init__(self, level: Sequence[Part], opened: ExitStack, config: Config) -> None:
        first = level[0]
        self._part = first
        self.width, self.height = first.size
        check_size(self.width, self.height, config)
        self._wide, self._tall = first.tile
        self._colours = Colours(first)
        self.samples, self.dtype = self._colours.samples, self._colours.dtype
        self.block_rows = self._tall
        self._places: dict[int, tuple[int, int, int]] = {}
        for part, tiles in zip(level, placed(level), strict=True):
            if not is_known(part) or _kind(part) != _kind(first):
                raise damaged("its frames are of several kinds")
            descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            for tile, place in zip(tiles, frames(descriptor, part), strict=False):
                # Further ones are other focal planes and optical paths.
                if tile is not None:
                    self._places[tile] = (descriptor, *place)
        # Where nothing was scanned, a level whose frames state their places has no tile.
        self._may_lack = not first.full
        # Fluorescence is dark there.
        self._absent = np.iinfo(self.dtype).max if self.samples > 1 else 0
        lacking = first.tiles - len(self._places)
        colour = "white" if self.samples > 1 else "black"
        said = f"{lacking:,} of its {first.tiles:,} tiles are not in its files, and are {colour}"
        self.done = (said,) if self._may_lack and lacking else ()

    def rows(self, top: int, bottom: int) -> Pixels:
        found = np.full((bottom - top, self.width, self.samples), self._absent, self.dtype)
        across = -(-self.width // self._wide)

        def place(number: int) -> None:
            if self._may_lack and number not in self._places:
                return
            row, column = divmod(number, across)
            pixels = self._decoded(number)
            at, left = row * self._tall - top, column * self._wide
            skip, until = max(0, -at), min(self._tall, len(found) - at)
            part = pixels[skip:until, : self.width - left]
            found[at + skip : at + until, left : left + self._wide] = part

        first, last = top // self._tall, -(-bottom // self._tall)
        each(place, range(first * across, last * across), out_bytes=found.nbytes)
        return found

    def _decoded(self, number: int) -> Pixels:
        if number not in self._places:
            raise damaged(f"frame {number + 1} is not in the file")
        descriptor, offset, length = self._places[number]
        pixels = self._colours.of(bytes_at(descriptor, length, offset))
        whole, inside = (self._wide, self._tall), inside_of(self._part, number)
        if pixels.shape[1::-1] not in (whole, inside) or pixels.shape[2] != self.samples:
            raise damaged(f"frame {number + 1} is {pixels.shape[1]} x {pixels.shape[0]} pixels")
        return pixels


def _kind(part: Part) -> tuple[Any, ...]:
    """What must be the same of all parts of one image."""
    return (part.tile, part.syntax, part.photometric, part.samples, part.bits, part.stored)


def _largest(found: Sequence[Part]) -> list[Part]:
    """The parts of the largest level."""
    return next(iter(levels(found)), [])


def left_out(found: Sequence[Part]) -> Iterator[str]:
    """What its largest level has beside the plane that is shown, as lines."""
    level = _largest(found)
    part = level[0] if level else None
    if part is None:
        return
    counts = (("channels", part.optical_paths), ("focal planes", part.focal_planes))
    yield from (
        f"it has {count} {what}: the first is the pyramid" for what, count in counts if count > 1
    )


def _by_openslide(path: str) -> _About | None:
    """What OpenSlide knows of a slide that it opens, though it shows it wrongly."""
    try:
        with openslide.OpenSlide(path) as slide:
            known = slide.properties
            x, y = (_number(known.get(f"openslide.mpp-{axis}")) for axis in "xy")
            has_profile = "openslide.icc-size" in known and slide.color_profile
            return _About(
                mpp=resolution.plausible(x, y),
                power=_number(known.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
                acquired_at=acquired.of_slide(known),
                icc_profile=slide.color_profile.tobytes() if has_profile else None,
            )
    except openslide.OpenSlideError:
        return None


def _by_header(path: str) -> _About:
    """The same of a slide that OpenSlide does not open; pixels are stated in millimetres, rows first."""
    import pydicom

    tags = [
        "SharedFunctionalGroupsSequence", "OpticalPathSequence", "AcquisitionDateTime",
        "TimezoneOffsetFromUTC",
    ]  # fmt: skip
    header: Any = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    y = x = power = profile = None
    try:
        measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        y, x = (1000 * float(one) for one in measures.PixelSpacing)
    except (AttributeError, IndexError, TypeError, ValueError):
        x = y = None
    try:
        light = header.OpticalPathSequence[0]
        profile = bytes(light.get("ICCProfile", b"")) or None
        power = _number(str(light.get("ObjectiveLensPower", "")))
    except (AttributeError, IndexError, TypeError, ValueError):
        power = None
    stated = {
        "openslide.vendor": "dicom",
        "dicom.AcquisitionDateTime": str(header.get("AcquisitionDateTime", "")),
        "dicom.TimezoneOffsetFromUTC": str(header.get("TimezoneOffsetFromUTC", "")),
    }
    return _About(
        mpp=resolution.plausible(x, y),
        power=power,
        acquired_at=acquired.of_slide(stated),
        icc_profile=profile,
    )


def _said(part: Part) -> str | None:
    if not part.jpeg:
        return None
    descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = pieces(descriptor, part)
        next(found, None)
        offset, length = next(found, (0, 0))
        ycbcr = jpeg.is_ycbcr(
            bytes_at(descriptor, length, offset), stated=part.photometric != "RGB"
        )
    finally:
        os.close(descriptor)
    if ycbcr is None or ycbcr == (part.photometric != "RGB"):
        return None
    are = "YCbCr" if ycbcr else "RGB"
    return f"its header states {part.photometric} of frames that are {are}"


def _pictures(found: Sequence[Part], config: Config) -> Iterator[tuple[str, Pixels]]:
    """Label and overview, where they can be read as the slide is."""
    for part in found:
        role = _PICTURES.get(part.kind)
        small = part.size[0] * part.size[1] <= _LARGEST_PICTURE
        if role and small and is_known(part) and part.full:
            with ExitStack() as opened:
                region = _Frames([part], opened, config)
                if region.dtype == np.uint8:
                    pixels = region.rows(0, part.size[1])
                    yield role, pixels if region.samples == 3 else np.repeat(pixels, 3, axis=2)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
