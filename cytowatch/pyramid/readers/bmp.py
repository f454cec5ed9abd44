"""BMP: plain rows are read where they lie, every other kind by Pillow.

Source: Microsoft, "Bitmap Storage"; https://entropymine.com/jason/bmpsuite/
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from cytowatch.config import Config
from cytowatch.formats.structure import bmp
from cytowatch.formats.structure.bmp import Header
from cytowatch.formats.structure.places import bytes_at
from cytowatch.model import Mpp
from cytowatch.pyramid.pixels import Pixels, swapped
from cytowatch.pyramid.readers.whole import by_pillow
from cytowatch.pyramid.refusals import check_size, damaged
from cytowatch.pyramid.regions import Opened, Scene
from cytowatch.pyramid.resolution import plausible
from cytowatch.record.errors import ConversionError

__all__ = ["open_bmp"]


class _Rows:
    """24 bits per pixel, or 16 or 32 cut up by masks; rows padded to four bytes, mostly upward."""

    def __init__(
        self,
        descriptor: int,
        begin: int,
        header: Header,
        *,
        masks: tuple[int, ...] = (),
        palette: Pixels | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._begin = begin
        self._bits = header.bits
        self._masks = masks
        self._palette = palette
        self._upward = header.height > 0
        self._stride, self._used = header.stride, header.used
        self.width, self.height = header.width, abs(header.height)
        grey = palette is not None and palette.shape[1] == 1
        self.samples, self.dtype = len(masks) or (1 if grey else 3), np.dtype(np.uint8)
        self.block_rows = 64

    def rows(self, top: int, bottom: int) -> Pixels:
        first = self.height - bottom if self._upward else top
        count = bottom - top
        data = bytes_at(self._descriptor, count * self._stride, self._begin + first * self._stride)
        # The padding of the very last row may be absent.
        data = data.ljust(count * self._stride, b"\0")
        lines: Pixels = np.frombuffer(data, np.uint8).reshape(count, self._stride)
        lines = lines[:, : self._used]
        if self._palette is not None:
            pixels = self._palette[self._indexes(lines)]
        else:
            pixels = self._masked(lines) if self._masks else self._plain(lines)
        return pixels[::-1] if self._upward else pixels

    def without_alpha(self) -> None:
        """Leave its fourth sample out."""
        self._masks, self.samples = self._masks[:3], 3

    def _plain(self, lines: Pixels) -> Pixels:
        return swapped(lines.reshape(len(lines), self.width, 3))

    def _indexes(self, lines: Pixels) -> Pixels:
        if self._bits == 8:
            return lines
        bits = np.unpackbits(lines, axis=1).reshape(len(lines), -1, self._bits)
        weights = (1 << np.arange(self._bits)[::-1]).astype(np.uint8)
        found: Pixels = (bits * weights).sum(axis=2, dtype=np.uint8)[:, : self.width]
        return found

    def _masked(self, lines: Pixels) -> Pixels:
        words = np.ascontiguousarray(lines).view(f"<u{self._bits // 8}").astype(np.uint64)
        found = np.empty((*words.shape, len(self._masks)), np.uint8)
        for number, mask in enumerate(self._masks):
            shift = (mask & -mask).bit_length() - 1
            most = mask >> shift
            part = (words & np.uint64(mask)) >> np.uint64(shift)
            found[:, :, number] = (part * np.uint64(255) + np.uint64(most // 2)) // np.uint64(most)
        return found


def open_bmp(path: str, config: Config) -> Opened:
    """The image of a bitmap.

    Raises
    ------
    ConversionError
        It is damaged, or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    found = bmp.header(descriptor)
    begin, moved = found.begin, tuple[str, ...]()
    try:
        least = _least_begin(found)
        if begin < least:
            begin = _begin(descriptor, found, least)
            moved = ("its pixels begin behind its palette, and not where it states",) * (
                begin == least
            )
    except ConversionError:
        os.close(descriptor)
        raise
    masks = _masks(found)
    palette = None
    if found.packing == 0 and found.bits in (1, 2, 4, 8) and found.is_windows:
        palette, masks = _palette(descriptor, begin, found), ()
    need = begin + found.stride * (abs(found.height) - 1) + found.width * found.bits // 8
    known = found.is_windows and found.width > 0 and found.height != 0
    if known and masks is not None and need <= os.fstat(descriptor).st_size:
        check_size(found.width, abs(found.height), config)
        region = _Rows(descriptor, begin, found, masks=masks, palette=palette)
        done = moved + (() if palette is None else ("its palette was expanded",))
        if len(masks) == 4 and not _shows(region):
            region.without_alpha()
            done = (*moved, "its transparency would hide all of it, and was left out")
        return Opened(
            scenes=[Scene(region=region, mpp=_mpp(found), done=done)],
            reader="cytowatch",
            close=lambda: os.close(descriptor),
        )
    os.close(descriptor)
    opened = by_pillow(path, config)
    return replace(opened, scenes=[replace(one, mpp=_mpp(found)) for one in opened.scenes])


def _mpp(found: Header) -> Mpp | None:
    """The pixel size, stated as pixels per metre; OS/2 states none."""
    x, y = found.per_metre
    return plausible(1e6 / x, 1e6 / y) if x > 0 and y > 0 else None


def _least_begin(found: Header) -> int:
    """Where its pixels can begin at the earliest: behind its header, its masks and its palette."""
    end = 14 + found.second_bytes
    if found.second_bytes == bmp.OS2_BYTES:
        # It states no number of colours: its palette goes up to its pixels.
        return end + (3 if found.bits <= 8 else 0)
    # Behind a header of 40 bytes the masks have a place of their own.
    masks = {3: 12, 6: 16}.get(found.packing, 0) if found.second_bytes == 40 else 0
    return end + masks + 4 * (_colours(found) if 0 < found.bits <= 8 else 0)


def _colours(found: Header) -> int:
    """How many colours its palette should have."""
    return min(found.colours or 1 << found.bits, 1 << found.bits)


def _begin(descriptor: int, found: Header, least: int) -> int:
    """Where the pixels begin that are said to do so before `least`, inside of the header or the palette.

    A palette may be shorter than it should be, if no pixel is a colour that it lacks; or the statement is wrong, and
    the file is as long as it is where they begin behind it.

    Raises
    ------
    ConversionError
        `damaged`: neither of them is so, and what is shown would be black, or the palette.
    """
    size_bytes = os.fstat(descriptor).st_size
    plain = found.is_windows and found.packing in (0, 3, 6)
    plain = plain and found.bits in (1, 2, 4, 8, 16, 24, 32)
    if plain and found.width > 0 and found.height != 0:
        rows = found.stride * abs(found.height)
        room = found.begin - (14 + found.second_bytes)
        if size_bytes == least + rows:
            return least
        if found.bits <= 8 and room >= 4 and found.begin + rows <= size_bytes:
            palette = np.arange(256, dtype=np.uint8)[:, np.newaxis]
            region = _Rows(descriptor, found.begin, found, palette=palette)
            if _highest(region) < room // 4:
                return found.begin
    raise damaged(
        f"its pixels are said to begin at {found.begin}, inside of its header or palette, which ends at {least}"
    )


def _highest(region: _Rows) -> int:
    """The highest index into its palette."""
    tops = range(0, region.height, region.block_rows)
    return max(
        int(region.rows(top, min(top + region.block_rows, region.height)).max()) for top in tops
    )


def _shows(region: _Rows) -> bool:
    """Whether any pixel can be seen; writers that know of no transparency leave it zero."""
    tops = range(0, region.height, region.block_rows)
    return any(
        region.rows(top, min(top + region.block_rows, region.height))[:, :, 3].any() for top in tops
    )


def _palette(descriptor: int, begin: int, header: Header) -> Pixels:
    """The colours by index, (256, 3), or (256, 1) if all of them are grey; what is absent is black."""
    at = 14 + header.second_bytes
    room = max(0, begin - at) // 4
    count = min(header.colours or 1 << header.bits, room, 256)
    stored = bytes_at(descriptor, 4 * count, at)
    colours = np.frombuffer(stored[: len(stored) // 4 * 4], np.uint8).reshape(-1, 4)
    found = np.zeros((256, 3), np.uint8)
    found[: len(colours)] = colours[:, 2::-1]
    grey = bool((found == found[:, :1]).all())
    return found[:, :1] if grey else found


def _masks(header: Header) -> tuple[int, ...] | None:
    """Red, green, blue and, if it has one, alpha; empty for three bytes; None for other kinds."""
    bits, packing = header.bits, header.packing
    if bits == 24 and packing == 0:
        return ()
    if packing == 0 and bits in (16, 32):
        return (0x7C00, 0x3E0, 0x1F) if bits == 16 else (0xFF0000, 0xFF00, 0xFF)
    if packing not in (3, 6) or bits not in (16, 32):
        return None
    *colours, alpha = header.masks
    has_alpha = alpha and (packing == 6 or header.second_bytes >= 56)
    found = (*colours, alpha) if has_alpha else tuple(colours)
    # A mask of more than one run of bits, or of none, is not a colour.
    plain = all(mask and _is_run(mask) and mask < 1 << bits for mask in found)
    return found if plain else None


def _is_run(mask: int) -> bool:
    lowest = mask & -mask
    return (mask + lowest) & mask == 0
