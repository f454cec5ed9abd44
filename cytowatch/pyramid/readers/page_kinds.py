"""Which kinds of pages can be read, by photometric interpretation, samples and packing.

Source: TIFF 6.0
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cytowatch.pyramid.meaning import (
    DECODED,
    PALETTE,
    YCBCR,
)
from cytowatch.pyramid.refusals import damaged
from cytowatch.record.errors import ConversionError

__all__ = ["KINDS", "check_kind", "photometric", "rationals"]

KINDS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab",
}  # fmt: skip
#: PhotometricInterpretation of what nothing here turns into grey or RGB.
_FOREIGN = {
    4: "a mask",
    10: "ITU Lab",
    32803: "raw values of a camera's colour filters",
    32844: "LogL",
    32845: "LogLuv",
    34892: "raw values of a camera",
}


def photometric(page: Any) -> int:
    """PhotometricInterpretation; where it is absent, grey or RGB, as libtiff has it."""
    if 262 in page.tags or page.photometric == YCBCR:
        return int(page.photometric)
    return 2 if page.samplesperpixel >= 3 else 1


def check_kind(page: Any, kind: int, stored: int, colours: int) -> None:
    """Refuse what nothing here turns into grey or RGB.

    Raises
    ------
    ConversionError
        `unsupported_samples`.
    """
    if kind not in KINDS:
        name = _FOREIGN.get(kind, "of a kind that is not known")
        raise ConversionError(
            "unsupported_samples",
            f"its colours are {name}, which nothing here reads (PhotometricInterpretation {kind})",
        )
    name = KINDS[kind]
    if stored < colours:
        raise damaged(f"{name} takes {colours} samples per pixel, it has {stored}")
    if kind in (0, 1, 2, PALETTE) or (kind == YCBCR and page.compression in DECODED):
        return
    bits, plain = ("8", [np.uint8]) if kind == YCBCR else ("8 or 16", [np.uint8, np.uint16])
    if kind == YCBCR and page.is_subsampled and (page.planarconfig == 2 or page.predictor != 1):
        raise ConversionError(
            "unsupported_samples", "its YCbCr colours are subsampled, with planes or a predictor"
        )
    if page.dtype not in (plain if kind == YCBCR else [*plain, np.bool_]):
        raise ConversionError("unsupported_samples", f"its {name} colours have not {bits} bits")


def rationals(page: Any, number: int, default: tuple[float, ...]) -> tuple[float, ...]:
    """The values of a tag of rationals; `default` where they are absent or make no sense."""
    tag = page.tags.get(number)
    parts = tag.value if tag is not None and isinstance(tag.value, tuple) else ()
    if len(parts) != 2 * len(default) or not all(parts[1::2]):
        return default
    return tuple(up / down for up, down in zip(parts[::2], parts[1::2], strict=True))
