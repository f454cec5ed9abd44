"""BMP: plain rows are read where they lie, every other kind by Pillow.

Source: Microsoft, "Bitmap Storage"; https://entropymine.com/jason/bmpsuite/
"""

from __future__ import annotations

import os
import struct
from dataclasses import replace

import numpy as np

from cytowatch.config import Config
from cytowatch.formats.structure.places import bytes_at
from cytowatch.model import Mpp
from cytowatch.pyramid.pixels import Pixels, swapped
from cytowatch.pyramid.readers.whole import by_pillow
from cytowatch.pyramid.refusals import check_size, damaged
from cytowatch.pyramid.regions import Opened, Scene
from cytowatch.pyramid.resolution import plausible
from cytowatch.record.errors import ConversionError

__all__ = ["open_bmp"]

_OS2_HEADER_BYTES = 12


class _Rows:
    """24 bits per pixel, or 16 or 32 cut up by masks; rows padded to four bytes, mostly upward."""

    def __init__(
        self,
        descriptor: int,
        *,
        begin: int,
        width: int,
        height: int,
        bits: int,
        masks: tuple[int, ...] = (),
        palette: Pixels | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._begin = begin
        self._bits = bits
        self._masks = masks
        self._palette = palette
        self._upward = height > 0
        self._stride = (width * bits + 31) // 32 * 4
        self.width, self.height = width, abs(height)
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
        lines = lines[:, : (self.width * self._bits + 7) // 8]
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
    head = bytes_at(descriptor, 70, 0).ljust(70, b"\0")
    begin, second, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", head, 10)
    moved: tuple[str, ...] = ()
    try:
        least = _least_begin(head, second, bits, packing)
        if begin < least:
            begin = _begin(descriptor, head, begin, least)
            moved = ("its pixels begin behind its palette, and not where it states",) * (
                begin == least
            )
    except ConversionError:
        os.close(descriptor)
        raise
    masks = _masks(head, second, bits, packing)
    palette = None
    if packing == 0 and bits in (1, 2, 4, 8) and second >= 40:
        palette, masks = _palette(descriptor, 14 + second, begin, head, bits), ()
    stride = (width * bits + 31) // 32 * 4
    need = begin + stride * (abs(height) - 1) + width * bits // 8
    known = second >= 40 and width > 0 and height != 0 and masks is not None
    if masks is not None and known and need <= os.fstat(descriptor).st_size:
        check_size(width, abs(height), config)
        region = _Rows(
            descriptor, begin=begin, width=width, height=height, bits=bits, masks=masks,
            palette=palette,
        )  # fmt: skip
        done = moved + (() if palette is None else ("its palette was expanded",))
        if len(masks) == 4 and not _shows(region):
            region.without_alpha()
            done = (*moved, "its transparency would hide all of it, and was left out")
        return Opened(
            scenes=[Scene(region=region, mpp=_mpp(head, second), done=done)],
            reader="cytowatch",
            close=lambda: os.close(descriptor),
        )
    os.close(descriptor)
    opened = by_pillow(path, config)
    return replace(opened, scenes=[replace(one, mpp=_mpp(head, second)) for one in opened.scenes])


def _mpp(head: bytes, second: int) -> Mpp | None:
    """The pixel size, stated as pixels per metre; OS/2 states none."""
    x, y = struct.unpack_from("<ii", head, 38) if second >= 40 else (0, 0)
    return plausible(1e6 / x, 1e6 / y) if x > 0 and y > 0 else None


def _least_begin(head: bytes, second: int, bits: int, packing: int) -> int:
    """Where its pixels can begin at the earliest: behind its header, its masks and its palette."""
    if second == _OS2_HEADER_BYTES:
        # It states no number of colours: its palette goes up to its pixels.
        [bits] = struct.unpack_from("<H", head, 24)
        return 14 + second + (3 if bits <= 8 else 0)
    # Behind a header of 40 bytes the masks have a place of their own.
    masks = {3: 12, 6: 16}.get(packing, 0) if second == 40 else 0
    [stated] = struct.unpack_from("<I", head, 46) if second >= 40 else (0,)
    colours = min(stated or 1 << bits, 1 << bits) if 0 < bits <= 8 else 0
    return 14 + second + masks + 4 * colours


def _begin(descriptor: int, head: bytes, begin: int, least: int) -> int:
    """Where the pixels begin that are said to do so before `least`, inside of the header or the palette.

    A palette may be shorter than it should be, if no pixel is a colour that it lacks; or the statement is wrong, and
    the file is as long as it is where they begin behind it.

    Raises
    ------
    ConversionError
        `damaged`: neither of them is so, and what is shown would be black, or the palette.
    """
    second, width, height, _, bits, packing = struct.unpack_from("<IiiHHI", head, 14)
    size_bytes = os.fstat(descriptor).st_size
    plain = second >= 40 and packing in (0, 3, 6) and bits in (1, 2, 4, 8, 16, 24, 32)
    if plain and width > 0 and height != 0:
        rows = (width * bits + 31) // 32 * 4 * abs(height)
        room = begin - (14 + second)
        if size_bytes == least + rows:
            return least
        if bits <= 8 and room >= 4 and begin + rows <= size_bytes:
            palette = np.arange(256, dtype=np.uint8)[:, np.newaxis]
            region = _Rows(
                descriptor, begin=begin, width=width, height=height, bits=bits, palette=palette
            )
            if _highest(region) < room // 4:
                return begin
    raise damaged(
        f"its pixels are said to begin at {begin}, inside of its header or palette, which ends at {least}"
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


def _palette(descriptor: int, at: int, begin: int, head: bytes, bits: int) -> Pixels:
    """The colours by index, (256, 3), or (256, 1) if all of them are grey; what is absent is black."""
    [stated] = struct.unpack_from("<I", head, 46)
    room = max(0, begin - at) // 4
    count = min(stated or 1 << bits, room, 256)
    stored = bytes_at(descriptor, 4 * count, at)
    colours = np.frombuffer(stored[: len(stored) // 4 * 4], np.uint8).reshape(-1, 4)
    found = np.zeros((256, 3), np.uint8)
    found[: len(colours)] = colours[:, 2::-1]
    grey = bool((found == found[:, :1]).all())
    return found[:, :1] if grey else found


def _masks(head: bytes, second: int, bits: int, packing: int) -> tuple[int, ...] | None:
    """Red, green, blue and, if it has one, alpha; empty for three bytes; None for other kinds."""
    if bits == 24 and packing == 0:
        return ()
    if packing == 0 and bits in (16, 32):
        return (0x7C00, 0x3E0, 0x1F) if bits == 16 else (0xFF0000, 0xFF00, 0xFF)
    if packing not in (3, 6) or bits not in (16, 32):
        return None
    masks = struct.unpack_from("<4I", head, 54)
    alpha = masks[3] if packing == 6 or second >= 56 else 0
    found = masks[:3] + ((alpha,) if alpha else ())
    # A mask of more than one run of bits, or of none, is not a colour.
    plain = all(mask and _is_run(mask) and mask < 1 << bits for mask in found)
    return found if plain else None


def _is_run(mask: int) -> bool:
    lowest = mask & -mask
    return (mask + lowest) & mask == 0
