"""Colours of other kinds as RGB: CIE L*a*b* and YCbCr as a TIFF stores them.

Source: TIFF 6.0, sections 21 (YCbCr) and 23 (CIE L*a*b*); TIFF Technical Note 4 (ICC L*a*b*);
http://www.brucelindbloom.com.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.samples import srgb

__all__ = ["LUMA", "REFERENCE", "rgb_of_lab", "rgb_of_ycbcr", "ycbcr_of_units"]

#: Where nothing is said: the shares of red, green and blue in Y (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)
#: Where nothing is said: black and white of Y, Cb and Cr.
REFERENCE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
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


def rgb_of_lab(pixels: Pixels, *, icc: bool = False) -> Pixels:
    """L*a*b* of D50, of 8 or 16 bits, as sRGB of as many; a and b have a sign unless they are `icc`."""
    full = int(np.iinfo(pixels.dtype).max)
    unit = 1 << 8 * (pixels.dtype.itemsize - 1)
    # Of 16 bits ICC's 100 is FF00.
    light = pixels[:, :, 0].astype(np.float32) * (100 / (255 * unit if icc else full))
    chroma = pixels[:, :, 1:3]
    if not icc:
        chroma = chroma.view(np.dtype(f"i{pixels.dtype.itemsize}"))
    a, b = (chroma[:, :, n].astype(np.float32) / unit - (128 if icc else 0) for n in (0, 1))
    y = (light + 16) / 116
    parts = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(parts > 6 / 29, parts**3, (parts - 4 / 29) * (108 / 841)) * _D50
    linear = np.clip(xyz @ _RGB_OF_XYZ_D50.T, 0, 1)
    found: Pixels = np.rint(full * srgb(linear)).astype(pixels.dtype)
    return found


def rgb_of_ycbcr(
    pixels: Pixels, luma: Sequence[float] = LUMA, reference: Sequence[float] = REFERENCE
) -> Pixels:
    """YCbCr of 8 bits as RGB.

    Parameters
    ----------
    luma
        YCbCrCoefficients: the shares of red, green and blue in Y.
    reference
        ReferenceBlackWhite: black and white of Y, Cb and Cr.
    """
    y, cb, cr = (
        (pixels[:, :, n].astype(np.float32) - reference[2 * n])
        * ((127 if n else 255) / (reference[2 * n + 1] - reference[2 * n]))
        for n in range(3)
    )
    red = y + cr * (2 - 2 * luma[0])
    blue = y + cb * (2 - 2 * luma[2])
    green = (y - luma[0] * red - luma[2] * blue) / luma[1]
    rgb = np.stack([red, green, blue], axis=-1)
    found: Pixels = np.rint(np.clip(rgb, 0, 255)).astype(np.uint8)
    return found


def ycbcr_of_units(data: bytes, rows: int, columns: int, chroma: tuple[int, int]) -> Pixels:
    """YCbCr of every pixel, where chroma is stored once for `chroma` of them, (across, down).

    Raises
    ------
    ValueError
        There are fewer bytes than the rows need.
    """
    across, down = chroma
    wide, tall, unit = -(-columns // across), -(-rows // down), across * down + 2
    if len(data) < tall * wide * unit:
        raise ValueError(f"{tall * wide * unit:,} bytes are needed, {len(data):,} are there")
    units = np.frombuffer(data, np.uint8, tall * wide * unit).reshape(tall, wide, unit)
    light = units[:, :, :-2].reshape(tall, wide, down, across).swapaxes(1, 2)
    shared = units[:, :, -2:].repeat(down, axis=0).repeat(across, axis=1)
    found: Pixels = np.dstack([light.reshape(tall * down, wide * across), shared])
    return found[:rows, :columns]
