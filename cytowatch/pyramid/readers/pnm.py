"""PGM and its family: binary rows are read where they lie, plain ones by Pillow.

Source: https://netpbm.sourceforge.net/doc/pgm.html
"""

from __future__ import annotations

import os
import re

import numpy as np

from cytowatch.config import Config
from cytowatch.formats.structure.places import bytes_at
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.whole import by_pillow
from cytowatch.pyramid.refusals import check_size, damaged
from cytowatch.pyramid.regions import Opened, Scene

__all__ = ["open_pnm"]

_HEADER = re.compile(
    # Nothing in it can match in two ways: a header of spaces must not take for ever.
    rb"P([56])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,18})" + rb"\s",
    re.DOTALL,
)


class _Rows:
    """Samples of one byte, or of two with the higher first."""

    def __init__(
        self, descriptor: int, *, begin: int, width: int, height: int, samples: int, most: int
    ) -> None:
        self._descriptor = descriptor
        self._begin = begin
        self._most = most
        self._stored = np.dtype(">u2" if most > 255 else "u1")
        self.width, self.height, self.samples = width, height, samples
        self.dtype = np.dtype(np.uint16 if most > 255 else np.uint8)
        self.block_rows = 64

    def rows(self, top: int, bottom: int) -> Pixels:
        stride = self.width * self.samples * self._stored.itemsize
        data = bytes_at(self._descriptor, (bottom - top) * stride, self._begin + top * stride)
        if len(data) < (bottom - top) * stride:
            raise damaged("the file ends before its last row")
        pixels = np.frombuffer(data, self._stored).reshape(bottom - top, self.width, self.samples)
        full = 65535 if self._most > 255 else 255
        if self._most == full:
            return pixels
        scaled = (pixels.astype(np.uint32) * full + self._most // 2) // self._most
        spread: Pixels = np.minimum(scaled, full).astype(self.dtype)
        return spread


def open_pnm(path: str, config: Config) -> Opened:
    """The image of a PGM, PPM or PBM.

    Raises
    ------
    ConversionError
        It is damaged, or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    header = _HEADER.match(bytes_at(descriptor, 4096, 0))
    if header is None:
        os.close(descriptor)
        return by_pillow(path, config)
    kind, width, height, most = (int(value) for value in header.groups())
    check_size(width, height, config)
    if not 0 < most < 65536:
        raise damaged(f"its greatest value is {most}")
    samples = 3 if kind == 6 else 1
    need = header.end() + width * height * samples * (2 if most > 255 else 1)
    if need > os.fstat(descriptor).st_size:
        raise damaged(f"{need:,} bytes are needed, the file has {os.fstat(descriptor).st_size:,}")
    region = _Rows(
        descriptor, begin=header.end(), width=width, height=height, samples=samples, most=most
    )
    done = () if most in (255, 65535) else (f"its values, at most {most}, were spread",)
    return Opened(
        scenes=[Scene(region=region, done=done)],
        reader="cytowatch",
        close=lambda: os.close(descriptor),
    )
