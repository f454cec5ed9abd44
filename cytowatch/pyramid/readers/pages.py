"""Pages of a TIFF by tifffile, segment by segment: what libvips has no decoder for, and OME-TIFF.

Source: TIFF 6.0; https://ome-model.readthedocs.io/en/stable/ome-tiff/specification.html
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.errors import ConversionError
from cytowatch.formats.tiff import Tiff, TiffError, main_page, misplaced
from cytowatch.model import Mpp
from cytowatch.pyramid import copied, jpeg, resolution
from cytowatch.pyramid.complaints import heard, refuse_lost_of_jpeg
from cytowatch.pyramid.copied import CopiedLevel
from cytowatch.pyramid.regions import Opened, Pixels, Scene, check_memory, check_size, damaged, each

__all__ = ["Page", "open_ome", "open_page", "told_of_pages"]

_UM = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_PICTURES = {"label": "label", "label image": "label", "macro": "macro", "macro image": "macro"}
_LARGEST_PICTURE = 64_000_000
_SEPARATED, _YCBCR, _CIELAB = 5, 6, 8
#: PhotometricInterpretation: white or black is zero, RGB, palette.
_PLAIN = frozenset({0, 1, 2, 3})
#: Compression: JPEG of both kinds, JPEG 2000 and others that store YCbCr and give RGB.
_JPEGS = frozenset({6, 7, 33003, 33004, 33005, 34712})
_NONE, _OLD_JPEG, _JPEG = 1, 6, 7
_JPEGS_XR = frozenset({22610, 34934})
_ORIENTATION, _ICC_PROFILE = 274, 34675
_D50 = np.array([0.96422, 1.0, 0.82521], np.float32)
#: XYZ of D50 to linear sRGB, adapted by Bradford's method (http://www.brucelindbloom.com).
_RGB_OF_XYZ_D50 = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ],
    np.float32,
)
_PLANES = {"C": "channels", "Z": "focal planes", "T": "times"}


def _is_jpeg_ycc(page: Any) -> bool:
    """YCbCr that its own decoder turns into RGB; of any other, nobody here does."""
    return page.photometric == _YCBCR and page.compression in _JPEGS


class Page:
    """One page; its tiles or strips are read from `descriptor` when their rows are asked for."""

    def __init__(self, page: Any, descriptor: int, config: Config) -> None:
        self._page = page
        self._descriptor = descriptor
        self.width, self.height = int(page.imagewidth), int(page.imagelength)
        check_size(self.width, self.height, config, samples=int(page.samplesperpixel))
        self._planar = int(page.planarconfig or 1) == 2 and int(page.samplesperpixel) > 1
        self._stored = int(page.samplesperpixel)
        self._palette = page.colormap if page.photometric == 3 else None
        self._inverted = page.photometric == 0
        self.samples = 3 if self._palette is not None else min(4, self._stored)
        self.lab = page.photometric == _CIELAB
        self.cmyk = page.photometric == _SEPARATED and self._stored == 4
        if not (page.photometric in _PLAIN or self.cmyk or self.lab or _is_jpeg_ycc(page)):
            raise ConversionError(
                "unsupported_samples", f"its colours are of the kind {page.photometric!r}"
            )
        if self.lab and (page.dtype != np.uint8 or self._stored != 3):
            raise ConversionError("unsupported_samples", "its Lab colours have not 8 bits")
        # tifffile makes it when it is used first, which must not be in several threads at a time.
        page.decode  # noqa: B018
        if page.dtype is None:
            raise ConversionError("unsupported_samples", "its samples are of an unknown kind")
        self._bits = page.dtype == bool
        self.dtype = np.dtype(np.uint8) if self._bits or self._palette is not None else page.dtype
        self.dtype = np.dtype(self.dtype).newbyteorder("=")
        if self.dtype.kind not in "uif":
            raise ConversionError("unsupported_samples", f"its samples are {self.dtype}")
        self._tall = (
            int(page.tilelength) if page.is_tiled else int(page.rowsperstrip or self.height)
        )
        self._tall = max(1, min(self._tall, self.height))
        self._wide = int(page.tilewidth) if page.is_tiled else self.width
        self.block_rows = self._tall
        if self._wide < 1:
            raise damaged("its tiles have no width")
        self._places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if said := misplaced(self._places, tiled=bool(page.is_tiled)):
            raise damaged(said)
        need = 3 * self._tall * self._wide * self._stored * self.dtype.itemsize
        check_memory(need, config, "reading one of its strips")

    def rows(self, top: int, bottom: int) -> Pixels:
        raw = np.bool_ if self._bits else np.dtype(self._page.dtype).newbyteorder("=")
        found = np.zeros((bottom - top, self.width, self._stored), raw)
        across = -(-self.width // self._wide)
        down = -(-self.height // self._tall)

        def place(index: int) -> None:
            row, column = divmod(index, across)
            plane, row = divmod(row, down)
            pixels = self._segment(index)
            if pixels is not None:
                self._place(found, pixels, plane, row * self._tall - top, column * self._wide)

        for plane in range(self._stored if self._planar else 1):
            first, last = (
                plane * down + row for row in (top // self._tall, -(-bottom // self._tall))
            )
            each(place, range(first * across, last * across), out_bytes=found.nbytes)
        return self._plain(found)

    def _place(self, found: Pixels, pixels: Pixels, plane: int, at: int, left: int) -> None:
        skip = max(0, -at)
        until = min(pixels.shape[0], found.shape[0] - at)
        right = min(self.width, left + pixels.shape[1])
        part = pixels[skip:until, : right - left]
        if self._planar:
            found[at + skip : at + until, left:right, plane] = part[:, :, 0]
        else:
            found[at + skip : at + until, left:right] = part

    def _segment(self, index: int) -> Pixels | None:
        """(rows, columns, samples) of one tile or strip; None where the file leaves it out."""
        if index >= len(self._places):
            raise damaged(f"tile or strip {index} is not in the file")
        return self._decoded(index, self._data(index)) if self._places[index][0] else None

    def _data(self, index: int) -> bytes:
        offset, count = self._places[index]
        return os.pread(self._descriptor, count or self._estimated_bytes(offset), offset)

    def _estimated_bytes(self, offset: int) -> int:
        """How long a strip is at most whose length is not stated: up to the next one, as libtiff does it."""
        after = bisect_right(self._ends, offset)
        end = self._ends[min(after, len(self._ends) - 1)]
        bits = self.width * int(self._page.bitspersample) * (1 if self._planar else self._stored)
        raw_bytes = self._tall * -(-bits // 8)
        most = raw_bytes if self._page.compression == _NONE else 2 * raw_bytes
        return max(0, min(end - offset, most))

    @cached_property
    def _ends(self) -> list[int]:
        return sorted((*(offset for offset, _ in self._places), os.fstat(self._descriptor).st_size))

    @property
    def absent(self) -> list[str]:
        """How many of its tiles the file leaves out, as a line; empty if none."""
        out = sum(offset == 0 for offset, _ in self._places)
        said = f"tiles that are not in the file, and are empty: {out} of {len(self._places)}"
        return [said] if out else []

    def _decoded(self, index: int, data: bytes) -> Pixels:
        page = self._page
        if page.compression in (_OLD_JPEG, _JPEG):
            refuse_lost_of_jpeg(jpeg.with_tables(data, page.jpegtables or b""))
        if page.compression in _JPEGS_XR and jpeg.xr_is_cut(data):
            raise damaged(f"its tile or strip {index} is cut short")
        try:
            pixels, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        except Exception as error:
            raise damaged(error) from error
        if pixels is None:
            raise damaged(f"tile or strip {index} cannot be decoded")
        array: Pixels = np.asarray(pixels)[0]
        return array[: shape[1], : shape[2]]

    def copied(self, number: int) -> CopiedLevel | None:
        """Its tiles as level `number`; None where they are not JPEG, or not of a kind that can be copied."""
        page, size_bytes = self._page, os.fstat(self._descriptor).st_size
        if not (page.is_tiled and page.compression == _JPEG and page.dtype == np.uint8):
            return None
        tile = (int(page.tilewidth), int(page.tilelength))
        tables = page.jpegtables or b""
        counts, offsets = page.databytecounts, page.dataoffsets
        if self._planar or not isinstance(tables, bytes) or len(counts) != len(offsets):
            return None
        places = [*counts, *offsets]
        if not all(isinstance(place, int) and 0 < place <= size_bytes for place in places):
            return None
        # What is there once and named often would grow with every name.
        if sum(counts) > size_bytes:
            return None
        first = jpeg.head(self._data(0))
        colours = copied.photometric(first, int(page.photometric)) if first else None
        if first is None or colours is None or first.samples != self._stored:
            return None
        level = CopiedLevel(
            number=number,
            width=self.width,
            height=self.height,
            tile=tile,
            size_bytes=sum(counts),
            photometric=colours,
            head=first,
            tables=tables,
            stream=self._data,
        )
        whole = level.tiles == len(counts) and max(counts) <= level.largest_tile_bytes
        return level if whole and copied.usable(level) else None

    def _plain(self, pixels: Pixels) -> Pixels:
        if self._palette is not None:
            wide = self._palette[:, pixels[:, :, 0].astype(np.intp)]
            found: Pixels = (np.moveaxis(wide, 0, -1) >> 8).astype(np.uint8)
            return found
        if self._bits:
            pixels = pixels.astype(np.uint8) * 255
        if self._inverted and pixels.dtype.kind == "u":
            pixels = np.iinfo(pixels.dtype).max - pixels
        if self.lab:
            return _rgb_of_lab(pixels)
        return pixels[:, :, : self.samples]


def _rgb_of_lab(pixels: Pixels) -> Pixels:
    """CIE L*a*b* of D50 as sRGB: L in 255ths of 100, a and b signed (TIFF 6.0, section 23)."""
    light = pixels[:, :, 0].astype(np.float32) * (100 / 255)
    a, b = (pixels[:, :, n].view(np.int8).astype(np.float32) for n in (1, 2))
    y = (light + 16) / 116
    parts = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(parts > 6 / 29, parts**3, (parts - 4 / 29) * (108 / 841)) * _D50
    linear = np.clip(xyz @ _RGB_OF_XYZ_D50.T, 0, 1)
    bright = 1.055 * linear ** (1 / 2.4) - 0.055
    found: Pixels = np.rint(255 * np.where(linear <= 0.0031308, 12.92 * linear, bright)).astype(
        np.uint8
    )
    return found


@contextmanager
def _no_complaints() -> Iterator[None]:
    """Take a warning of tifffile for an error: it stands for pixels that are not there."""
    with heard("tifffile") as told:
        yield
    if told:
        raise damaged(told[0])


def open_page(path: str, config: Config) -> Opened:
    """The main page of a TIFF.

    Raises
    ------
    ConversionError
        It is damaged, or of samples or a compression that nothing here reads.
    """
    import tifffile

    with _opened(path) as (opened, descriptor):
        try:
            with _no_complaints():
                tiff = opened.enter_context(tifffile.TiffFile(path))
                number = _main(descriptor)
                page = tiff.pages[number]
                region = Page(page, descriptor, config)
                region.rows(0, min(region.height, region.block_rows))
        except (ConversionError, MemoryError):
            raise
        except Exception as error:
            raise damaged(error) from error
        done = [*told_of_pages(len(tiff.pages), number), *region.absent]
        done += ["converted from lab to sRGB"] if region.lab else []
        profile = _profile(page)
        scene = Scene(
            region=region,
            icc_profile=profile,
            cmyk=region.cmyk,
            orientation=_orientation(page),
            done=tuple(done),
        )
        return Opened(scenes=[scene], reader="tifffile", close=opened.pop_all().close)


def _main(descriptor: int) -> int:
    try:
        return main_page(Tiff(descriptor, os.fstat(descriptor).st_size))
    except TiffError:
        return 0


def told_of_pages(pages: int, number: int) -> list[str]:
    """That page `number` of so many is the pyramid, as a line; empty of one page."""
    if pages < 2:
        return []
    which = f"page {number + 1}, the first that is whole," if number else "the first one"
    return [f"it has {pages} pages: {which} is the pyramid"]


@contextmanager
def _opened(path: str) -> Iterator[tuple[ExitStack, int]]:
    """(what is closed unless someone takes it over, a descriptor for all pages)."""
    with ExitStack() as opened:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, descriptor)
        yield opened, descriptor


def _profile(page: Any) -> bytes | None:
    tag = page.tags.get(_ICC_PROFILE)
    return bytes(tag.value) if tag is not None and page.photometric != _CIELAB else None


def _orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def open_ome(path: str, config: Config) -> Opened:
    """Every series of an OME-TIFF: the first plane of its largest level.

    Raises
    ------
    ConversionError
        It is damaged, or it refers to other files.
    """
    import tifffile

    with _opened(path) as (opened, descriptor):
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
            pictures[role] = pixels[:, :, :3] if region.samples >= 3 else np.repeat(pixels, 3, 2)
            continue
        done += _left_out(one)
        scenes.append(
            Scene(
                region=region,
                index=len(scenes),
                name=known.name if len(series) > 1 else "",
                mpp=known.mpp,
                objective_power=known.power,
                icc_profile=_profile(page),
                cmyk=region.cmyk,
                orientation=_orientation(page),
                done=tuple(region.absent),
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
