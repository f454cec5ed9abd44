"""BMP: plain rows are read where they lie, every other kind by Pillow.

Source: Microsoft, "Bitmap Storage"; https://entropymine.com/jason/bmpsuite/
"""

from __future__ import annotations

import os
import struct

import numpy as np

from cytowatch.config import Config
from cytowatch.pyramid.readers.whole import by_pillow
from cytowatch.pyramid.regions import Opened, Pixels, Scene, check_size

__all__ = ["open_bmp"]


class _Rows:
    """24 or 32 bits a pixel, blue first, rows padded to four bytes, mostly from the bottom."""

    def __init__(self, descriptor: int, *, begin: int, width: int, height: int, bits: int) -> None:
        self._descriptor = descriptor
        self._begin = begin
        self._bytes = bits // 8
        self._upward = height > 0
        self._stride = (width * bits + 31) // 32 * 4
        self.width, self.height = width, abs(height)
        self.samples, self.dtype = 3, np.dtype(np.uint8)
        self.block_rows = 64

    def rows(self, top: int, bottom: int) -> Pixels:
        first = self.height - bottom if self._upward else top
        count = bottom - top
        data = os.pread(self._descriptor, count * self._stride, self._begin + first * self._stride)
        if len(data) < count * self._stride:
            # The padding of the very last row may be absent.
            data = data.ljust(count * self._stride, b"\0")
        lines: Pixels = np.frombuffer(data, np.uint8).reshape(count, self._stride)
        pixels = lines[:, : self.width * self._bytes].reshape(count, self.width, self._bytes)
        pixels = pixels[:, :, 2::-1]
        return pixels[::-1] if self._upward else pixels


def open_bmp(path: str, config: Config) -> Opened:
    """The image of a bitmap.

    Raises
    ------
    ConversionError
        It is damaged, or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    head = os.pread(descriptor, 70, 0).ljust(70, b"\0")
    begin, second, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", head, 10)
    size_bytes = os.fstat(descriptor).st_size
    plain = second >= 40 and packing == 0 and bits == 24 and width > 0 and height != 0
    stride = (width * bits + 31) // 32 * 4
    # Without the padding of the last row it is whole as well.
    if plain and begin + stride * (abs(height) - 1) + width * bits // 8 <= size_bytes:
        check_size(width, abs(height), config)
        region = _Rows(descriptor, begin=begin, width=width, height=height, bits=bits)
        return Opened(
            scenes=[Scene(region=region)], reader="cytowatch", close=lambda: os.close(descriptor)
        )
    os.close(descriptor)
    return by_pillow(path, config)
