"""Carl Zeiss CZI through Zeiss' own library: every scene, the first of its planes.

Source: Zeiss, "ZISRAW (CZI) File Format" 1.2; pylibCZIrw, which gives pixels as BGR.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.formats.structure import czi as structure
from cytowatch.formats.structure.places import bytes_at
from cytowatch.pyramid import acquired, resolution
from cytowatch.pyramid.pixels import Pixels, swapped
from cytowatch.pyramid.readers import subblocks
from cytowatch.pyramid.readers.subblocks import Mosaic, SubBlock
from cytowatch.pyramid.refusals import check_size, damaged
from cytowatch.pyramid.regions import Opened, RegionReader, Scene
from cytowatch.record.errors import ConversionError

__all__ = ["open_czi"]

_KINDS = {
    "Gray8": (1, np.uint8),
    "Gray16": (1, np.uint16),
    "Gray32Float": (1, np.float32),
    "Bgr24": (3, np.uint8),
    "Bgr48": (3, np.uint16),
    "Bgr96Float": (3, np.float32),
}
_PLANES = {"C": "channels", "Z": "focal planes", "T": "times"}
_PICTURES = {"Label": "label", "SlidePreview": "macro"}
_LARGEST_PICTURE = 64 << 20
_MOST_ATTACHMENTS = 1024


class _Region:
    """One scene; libCZI may be asked from several threads at a time."""

    def __init__(self, reader: Any, kind: str, rectangle: Any, plane: dict[str, int]) -> None:
        self._reader = reader
        self._kind = kind
        self._left, self._top = rectangle.x, rectangle.y
        self._plane = plane
        self.scene: int | None = None
        self.width, self.height = rectangle.w, rectangle.h
        self.samples, dtype = _KINDS[kind]
        self.dtype = np.dtype(dtype)
        # Tiles of a mosaic lie anywhere; a tall block makes few of them be decoded twice.
        self.block_rows = 1024 if rectangle.w < 32_768 else 512

    def rows(self, top: int, bottom: int) -> Pixels:
        try:
            pixels: Pixels = self._reader.read(
                roi=(self._left, self._top + top, self.width, bottom - top),
                plane=self._plane,
                scene=self.scene,
                pixel_type=self._kind,
            )
        except Exception as error:
            raise damaged(error) from error
        return swapped(pixels) if self.samples == 3 else pixels


def open_czi(path: str, config: Config) -> Opened:
    """The scenes of a CZI, with label and macro.

    Raises
    ------
    ConversionError
        It is damaged, or of a kind of pixels that no pyramid can hold.
    """
    from pylibCZIrw import czi

    with ExitStack() as closing:
        try:
            reader = closing.enter_context(czi.open_czi(path))
            file = closing.enter_context(open(path, "rb"))
            opened = _opened(reader, file.fileno(), path, config)
        except ConversionError:
            raise
        except Exception as error:
            raise damaged(error) from error
        return replace(opened, close=closing.pop_all().close)


def _opened(reader: Any, descriptor: int, path: str, config: Config) -> Opened:
    blocks = subblocks.read(descriptor)
    box = reader.total_bounding_box
    dimensions = [name for name in _PLANES if name in box]
    done = [
        f"it has {count} {_PLANES[name]}: the first is the pyramid"
        for name in dimensions
        if (count := int(box[name][1]) - int(box[name][0])) > 1
    ]
    about = _About(_metadata(reader))
    areas = subblocks.areas(blocks)
    if blocks and not areas:
        raise ConversionError("no_pixels", "it has only reduced images, and not their original")
    areas = areas or {None: reader.total_bounding_rectangle}
    names = about.scenes
    scenes = []
    for index, (number, area) in enumerate(sorted(areas.items(), key=lambda one: one[0] or 0)):
        check_size(area.w, area.h, config)
        here = [one for one in blocks if not one.is_reduced and one.start.get("S") == number]
        plane, pieces = _first_plane(here, dimensions)
        which = f"scene {index + 1}" if len(areas) > 1 else "it"
        region: RegionReader
        if subblocks.is_misread(descriptor, pieces):
            region = Mosaic(descriptor, pieces, area)
        else:
            region = _library(reader, number, area, plane)
        scenes.append(
            Scene(
                region=region,
                index=index,
                name=names.get(number or 0, f"scene {index + 1}") if len(areas) > 1 else "",
                mpp=resolution.plausible(about.scale("X"), about.scale("Y")),
                objective_power=about.magnification,
                acquired_at=about.acquired_at,
                done=tuple(_lacking(which, blocks, here, pieces, plane)),
            )
        )
    return Opened(
        scenes=scenes,
        reader="pylibCZIrw",
        pictures=dict(_pictures(descriptor, config)),
        done=tuple(done),
    )


def _library(reader: Any, scene: int | None, area: Any, plane: dict[str, int]) -> _Region:
    kind = reader.get_channel_pixel_type(plane.get("C", 0))
    if kind not in _KINDS:
        raise ConversionError("unsupported_samples", f"its pixels are of the kind {kind}")
    region = _Region(reader, kind, area, plane)
    region.scene = scene
    return region


def _first_plane(
    blocks: list[SubBlock], dimensions: list[str]
) -> tuple[dict[str, int], list[SubBlock]]:
    """The first plane, and its pieces: of the first channel the first time, of that the first focal plane."""
    plane = {}
    for name in sorted(dimensions, key="CTZ".index):
        plane[name] = min((one.start.get(name, 0) for one in blocks), default=0)
        blocks = [one for one in blocks if one.start.get(name, 0) == plane[name]]
    return plane, blocks


def _lacking(
    which: str,
    blocks: list[SubBlock],
    scene: list[SubBlock],
    pieces: list[SubBlock],
    plane: dict[str, int],
) -> Iterator[str]:
    """What `scene` has not in the plane that is shown of it, of whose `pieces` it is made."""
    if any(one.start.get(name, 0) < first for name, first in plane.items() for one in blocks):
        yield f"{which} has nothing in the first plane: the first that it has is the pyramid"
    if subblocks.leaves_out(pieces, scene):
        yield f"{which} is not covered by only its first plane: what only others have is black"


def _metadata(reader: Any) -> Any:
    try:
        return reader.metadata
    except Exception:  # noqa: BLE001 - XML that cannot be read costs its facts, never the pixels
        return {}


class _About:
    """The few facts of the metadata that a manifest holds; what is not there is None."""

    def __init__(self, metadata: Any) -> None:
        self._top = _at(metadata, "ImageDocument", "Metadata")

    @property
    def acquired_at(self) -> str | None:
        image = _at(self._top, "Information", "Image")
        return acquired.of_text(_at(image, "AcquisitionDateAndTime"))

    @property
    def magnification(self) -> float | None:
        """Of the objective that the image refers to, else of the only one."""
        wanted = _at(self._top, "Information", "Image", "ObjectiveSettings", "ObjectiveRef", "@Id")
        every = _list(_at(self._top, "Information", "Instrument", "Objectives", "Objective"))
        fitting = [one for one in every if _at(one, "@Id") == wanted]
        if not fitting and len(every) != 1:
            return None
        return _positive(_at((fitting or every)[0], "NominalMagnification"))

    def scale(self, axis: str) -> float | None:
        """Micrometres a pixel; the file says metres."""
        for one in _list(_at(self._top, "Scaling", "Items", "Distance")):
            if _at(one, "@Id") == axis and (metres := _positive(_at(one, "Value"))):
                return metres * 1e6
        return None

    @property
    def scenes(self) -> dict[int, str]:
        """The names of scenes by number."""
        every = _list(_at(self._top, "Information", "Image", "Dimensions", "S", "Scenes", "Scene"))
        found = {}
        for number, one in enumerate(every):
            name = _at(one, "@Name")
            if isinstance(name, str):
                index = _at(one, "@Index")
                found[int(index) if str(index).isdigit() else number] = name
        return found


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _positive(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if 0 < found < float("inf") else None


def _pictures(descriptor: int, config: Config) -> Iterator[tuple[str, Pixels]]:
    """Label and macro, which are small CZI files inside; a damaged one is left out."""
    from pylibCZIrw import czi

    for name, begin, length in _attachments(descriptor):
        role = _PICTURES.get(name)
        if role is None or length > _LARGEST_PICTURE:
            continue
        inner = f"{os.environ.get('TMPDIR', '.')}/.{role}.czi"
        with suppress(Exception):
            with open(inner, "wb") as written:
                written.write(bytes_at(descriptor, length, begin))
            with czi.open_czi(inner) as reader:
                area = reader.total_bounding_rectangle
                if area.w * area.h * 3 <= _LARGEST_PICTURE:
                    pixels = reader.read(pixel_type="Bgr24")
                    yield role, swapped(pixels)
        durable.empty(inner)


def _attachments(descriptor: int) -> Iterator[tuple[str, int, int]]:
    """(name, offset, length) of every attachment that is a CZI itself."""
    for one in structure.attachments(descriptor, most=_MOST_ATTACHMENTS):
        head = bytes_at(descriptor, 8, one.at + structure.HEADER_BYTES).ljust(8, b"\0")
        length = int.from_bytes(head, "little") & 0xFFFFFFFF
        if one.kind == b"CZI" and length > 0:
            yield one.name, one.at + structure.HEADER_BYTES + 256, length
