"""Pages of a TIFF by tifffile, segment by segment: what libvips has no decoder for, or misreads.

Source: TIFF 6.0
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from cytowatch.config import Config
from cytowatch.formats.structure import jpeg
from cytowatch.formats.structure.main import main_page, within
from cytowatch.formats.structure.places import bytes_at, misplaced
from cytowatch.formats.structure.tiff import Tiff, TiffError
from cytowatch.pyramid import copied
from cytowatch.pyramid.colours import ycbcr_of_units
from cytowatch.pyramid.complaints import harmless, heard, refuse_lost_of_jpeg
from cytowatch.pyramid.copied import CopiedLevel
from cytowatch.pyramid.meaning import (
    CIELAB,
    ICCLAB,
)
from cytowatch.pyramid.pixels import Pixels, each
from cytowatch.pyramid.readers.jp2_codestream import check_units
from cytowatch.pyramid.readers.page_colours import Colours
from cytowatch.pyramid.readers.page_streams import JPEGS_2000, LERC, lerc_size, own_colours
from cytowatch.pyramid.refusals import check_memory, check_size, damaged, unread, unsupported
from cytowatch.pyramid.regions import Opened, Scene
from cytowatch.pyramid.samples import banded
from cytowatch.record.errors import ConversionError

__all__ = [
    "Page",
    "count_pages",
    "open_page",
    "opened_file",
    "orientation",
    "profile",
    "told_of_pages",
]

_NONE, _OLD_JPEG, _JPEG, _PACKBITS = 1, 6, 7, 32773
_JPEGS_XR = frozenset({22610, 34934})
_ORIENTATION, _ICC_PROFILE = 274, 34675
#: Of 8 bits, which YCbCr has here.
_NO_CHROMA = 128


class Page:
    """One page; its tiles or strips are read from `descriptor` when their rows are asked for."""

    def __init__(self, page: Any, descriptor: int, config: Config) -> None:
        self._page = page
        self._descriptor = descriptor
        own = own_colours(page, descriptor)
        if own.photometric is not None:
            # tifffile tells its decoder of JPEG by this.
            page.photometric = own.photometric
        self.width, self.height = int(page.imagewidth), int(page.imagelength)
        check_size(self.width, self.height, config, samples=int(page.samplesperpixel))
        self._planar = int(page.planarconfig or 1) == 2 and int(page.samplesperpixel) > 1
        self._stored = int(page.samplesperpixel)
        self._colours = colours = Colours(page, ycbcr=own.ycbcr)
        self._ycbcr = colours.ycbcr
        # A decoder of JPEG 2000 enlarges chroma by itself.
        halved = colours.ycbcr and not own.ycbcr
        self._chroma = tuple(page.subsampling or (2, 2)) if halved else (1, 1)
        self.cmyk, self.samples, self.dtype = colours.cmyk, colours.samples, colours.dtype
        self.done = (*own.done, *colours.done)
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
        raw = np.dtype(self._page.dtype).newbyteorder("=")
        found = np.zeros((bottom - top, self.width, self._stored), raw)
        if self._ycbcr:
            # What the file leaves out is black, and no green.
            found[:, :, 1:3] = _NO_CHROMA
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
        return banded(self._colours.plain, found) if self._colours.converted else found

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
        return bytes_at(self._descriptor, count or self._estimated_bytes(offset), offset)

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
        if page.compression in JPEGS_2000:
            check_units(data)
        if page.compression in _JPEGS_XR and jpeg.xr_is_cut(data):
            raise damaged(f"its tile or strip {index} is cut short")
        if self._chroma != (1, 1):
            return self._subsampled(index, data)
        wide, tall = lerc_size(data) if page.compression == LERC else (0, 0)
        # A tile is as tall as it says, of an image that is lower as well.
        if wide > self._wide or tall > (int(page.tilelength) if page.is_tiled else self._tall):
            # tifffile cuts it off in the middle of its rows.
            raise damaged(f"tile or strip {index} is {wide} x {tall} pixels")
        if page.compression == _PACKBITS and page.fillorder == 1:
            data = self._trimmed(index, data)
        try:
            pixels, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        except Exception as error:
            raise unread(error) from error
        if pixels is None:
            raise damaged(f"tile or strip {index} cannot be decoded")
        array: Pixels = np.asarray(pixels)[0]
        return array[: shape[1], : shape[2]]

    def _trimmed(self, index: int, data: bytes) -> bytes:
        """PackBits without what some writers put behind the last row; libtiff discards that too, with a warning."""
        import imagecodecs

        down = -(-self.height // self._tall)
        row = index // -(-self.width // self._wide) % down
        tall = (
            self._tall if self._page.is_tiled else min(self._tall, self.height - row * self._tall)
        )
        bits = self._wide * int(self._page.bitspersample) * (1 if self._planar else self._stored)
        most = tall * -(-bits // 8)
        try:
            plain = imagecodecs.packbits_decode(data)
        except Exception as error:
            raise damaged(error) from error
        return bytes(imagecodecs.packbits_encode(plain[:most])) if len(plain) > most else data

    def _subsampled(self, index: int, data: bytes) -> Pixels:
        """YCbCr of a tile or strip whose chroma tifffile leaves as it is stored."""
        from tifffile import TIFF

        row = index // -(-self.width // self._wide)
        rows = min(self._tall, self.height - row * self._tall)
        try:
            if self._page.compression != 1:
                data = TIFF.DECOMPRESSORS[self._page.compression](data)
            stored = self._tall if self._page.is_tiled else rows
            # Of some the tag is absent, and means half then; but all of it is there.
            whole = len(data) == 3 * stored * self._wide
            return ycbcr_of_units(data, rows, self._wide, (1, 1) if whole else self._chroma)
        except Exception as error:
            raise damaged(error) from error

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
        if first is None or colours is None or first.samples != self.samples:
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


@contextmanager
def _no_complaints() -> Iterator[None]:
    """Take a warning of tifffile for an error: it stands for pixels that are not there."""
    with heard("tifffile") as told:
        yield
    if lost := [line for line in told if not harmless(line)]:
        raise unsupported(lost[0]) or damaged(lost[0])


def open_page(path: str, config: Config) -> Opened:
    """The main page of a TIFF.

    Raises
    ------
    ConversionError
        It is damaged, or of samples or a compression that nothing here reads.
    """
    import tifffile

    with opened_file(path) as (opened, descriptor):
        try:
            with _no_complaints():
                tiff = opened.enter_context(tifffile.TiffFile(path))
                number, count, inside = _main(descriptor)
                outer = page = tiff.pages[number]
                if inside is not None:
                    page = outer.pages[inside]
                region = Page(page, descriptor, config)
                region.rows(0, min(region.height, region.block_rows))
        except (ConversionError, MemoryError):
            raise
        except Exception as error:
            raise unread(error) from error
        preview = ("its first page is a preview: the image within it is the pyramid",)
        said = told_of_pages(count, number) if inside is None else preview
        done = (*said, *region.done, *region.absent)
        scene = Scene(
            region=region,
            icc_profile=profile(page),
            cmyk=region.cmyk,
            orientation=orientation(outer),
            done=done,
        )
        return Opened(scenes=[scene], reader="tifffile", close=opened.pop_all().close)


def _main(descriptor: int) -> tuple[int, int, int | None]:
    """(the number of the main page, how many there are, which image within it is meant, if one is)."""
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
    except TiffError:
        return 0, 1, None
    return main_page(tiff), len(tiff.directories), within(tiff)


def told_of_pages(pages: int, number: int) -> list[str]:
    """That page `number` of so many is the pyramid, as a line; empty of one page."""
    if pages < 2:
        return []
    which = f"page {number + 1}, the first that is whole," if number else "the first one"
    return [f"it has {pages} pages: {which} is the pyramid"]


@contextmanager
def opened_file(path: str) -> Iterator[tuple[ExitStack, int]]:
    """(what is closed unless someone takes it over, a descriptor for all pages)."""
    with ExitStack() as opened:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, descriptor)
        yield opened, descriptor


def count_pages(tiff: Any) -> int:
    """The number of pages of a `tifffile.TiffFile`; to be asked for before they are gone through.

    Only with this does it notice a list that leads back into itself; it walks round that for ever else.
    """
    return len(tiff.pages)


def profile(page: Any) -> bytes | None:
    """Its ICC profile; None of Lab, which is converted without it."""
    tag = page.tags.get(_ICC_PROFILE)
    return (
        bytes(tag.value) if tag is not None and page.photometric not in (CIELAB, ICCLAB) else None
    )


def orientation(page: Any) -> int:
    """Its tag 274, 1 to 8: how it must be turned; 1 where it says nothing."""
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
