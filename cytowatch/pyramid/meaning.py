"""What the samples of a TIFF mean: which are colours, which is transparency, and what libvips knows of it.

Source: TIFF 6.0, PhotometricInterpretation (262), ExtraSamples (338) and section 21 (YCbCr).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cytowatch.formats.structure.main import main_page, within
from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError
from cytowatch.pyramid import contradicted, tile_sizes

__all__ = [
    "CIELAB",
    "DECODED",
    "ICCLAB",
    "PALETTE",
    "SEPARATED",
    "WHITE_IS_ZERO",
    "YCBCR",
    "Meaning",
    "is_odd",
    "meaning",
]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3
SEPARATED, YCBCR, CIELAB, ICCLAB = 5, 6, 8, 9
#: Compressions whose own decoder turns YCbCr into RGB: JPEG of both kinds, and JPEG 2000 that was made of RGB.
DECODED = frozenset({6, 7, 33003, 33004, 33005, 34712})
#: Samples of a colour, or the one that is an index into a palette.
_COLOURS = {
    WHITE_IS_ZERO: 1,
    BLACK_IS_ZERO: 1,
    RGB: 3,
    PALETTE: 1,
    SEPARATED: 4,
    YCBCR: 3,
    CIELAB: 3,
    ICCLAB: 3,
}
#: What libvips converts, of those that have no number of colours here: a mask, LogL and LogLuv.
_LEFT_TO_LIBVIPS = frozenset({4, 32844, 32845})
#: Colours that take one sample.
_SINGLE = frozenset(kind for kind, colours in _COLOURS.items() if colours == 1)
_PREMULTIPLIED, _UNASSOCIATED = 1, 2
#: PlanarConfiguration: each sample in a plane of its own.
_SEPARATE = 2
#: SampleFormat: whole numbers above zero, or nothing that is known of them.
_UNSIGNED = frozenset({1, 4})


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """The first `colours` samples are the colours; `alpha` is the place of the transparency, if any."""

    colours: int
    alpha: int | None = None
    premultiplied: bool = False


def meaning(photometric: int, stored: int, extra: Sequence[int]) -> Meaning:
    """What `stored` samples are, of which the last ones are said to be `extra`.

    >>> meaning(RGB, 4, (2,))
    Meaning(colours=3, alpha=3, premultiplied=False)
    >>> meaning(RGB, 4, (0,))
    Meaning(colours=3, alpha=None, premultiplied=False)
    """
    colours = _COLOURS.get(photometric, stored)
    # Bio-Formats writes RGBA as four samples of grey of which none is called an extra one.
    if colours == 1 and stored in (3, 4) and not extra and photometric != PALETTE:
        colours = 3
    for place, kind in enumerate(extra, start=stored - len(extra)):
        if place >= colours and kind in (_PREMULTIPLIED, _UNASSOCIATED):
            return Meaning(colours=colours, alpha=place, premultiplied=kind == _PREMULTIPLIED)
    return Meaning(colours=colours)


def is_odd(path: str) -> bool:
    """Whether it is a TIFF of which libvips shows something else than its tags say: samples, or a preview."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
        return within(tiff) is not None or _is_odd(tiff.directories[main_page(tiff)])
    except TiffError:
        return False
    finally:
        os.close(descriptor)


def _is_odd(page: Directory) -> bool:
    photometric, stored = page.number(262, BLACK_IS_ZERO), page.number(277, 1)
    if photometric in _LEFT_TO_LIBVIPS:
        return False
    if photometric not in _COLOURS:
        return True
    means = meaning(photometric, stored, page.numbers(338))
    # What is not a colour is transparency for libvips, no matter what it is called.
    if stored > means.colours + (means.alpha is not None):
        return True
    bits = page.number(258, 1)
    if _is_mislaid(photometric, stored, bits, page, means):
        return True
    if contradicted.actual(page) is not None or tile_sizes.differ(page):
        return True
    if photometric == YCBCR:
        # Where it is said to be subsampled, libvips lets libtiff convert it; where nothing is said it may be or not.
        return page.number(259) not in DECODED and page.numbers(530) in ((), (1, 1))
    if photometric == CIELAB:
        # libvips reads no 8 bits of it, and takes the white of 16 bits for that of D65.
        return bits <= 16
    if photometric == ICCLAB:
        return True
    return photometric != PALETTE and (bits > 16 or page.number(339, 1) not in _UNSIGNED)


def _is_mislaid(photometric: int, stored: int, bits: int, page: Directory, means: Meaning) -> bool:
    """Whether libvips 8.18 puts its samples in wrong places, or reads wrong values, and does not warn.

    Found by comparing it with tifffile over all layouts (tests/integration/test_layouts.py).
    """
    single = photometric in _SINGLE
    if single and page.number(284, 1) == _SEPARATE and (stored > 1 or bits < 8):
        return True
    if photometric == PALETTE and means.alpha is not None and bits < 8:
        return True
    if photometric in (WHITE_IS_ZERO, SEPARATED) and means.premultiplied:
        return True
    # Three samples of grey, none of which is extra, are RGB for everyone but libvips.
    return single and means.colours > 1
