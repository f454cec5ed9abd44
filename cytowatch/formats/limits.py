"""What is refused only from its headers, before a pixel is decoded: (reason, detail), or None.

Headers are a few bytes that anybody can write; decoding what they promise can take days.
"""

from __future__ import annotations

from cytowatch.config.keys import Limits
from cytowatch.formats.structure.tiff import Tiff

__all__ = ["Refusal", "of_expansion", "of_image", "of_structure"]

#: A reason, which is a stable word, and a sentence with the number and the limit in it.
Refusal = tuple[str, str]

#: Below this an image may expand to any extent: it costs seconds.
_EXPANSION_FROM_BYTES = 1 << 30


def of_image(width: int, height: int, limits: Limits, *, samples: int = 1) -> Refusal | None:
    """Whether an image of `width` x `height` pixels with so many `samples` is more than is allowed.

    >>> of_image(2, 3_000_000, Limits())
    ('side_too_long', 'a side of it has 3,000,000 pixels, 2,000,000 are allowed (limits.max_side)')
    """
    if width * height > limits.max_pixels:
        return (
            "too_many_pixels",
            f"it has {width:,} x {height:,} = {width * height:,} pixels, "
            f"{limits.max_pixels:,} are allowed (limits.max_pixels)",
        )
    if max(width, height) > limits.max_side:
        return (
            "side_too_long",
            f"a side of it has {max(width, height):,} pixels, {limits.max_side:,} are allowed "
            "(limits.max_side)",
        )
    if samples > limits.max_samples:
        return (
            "too_many_samples",
            f"it has {samples:,} samples per pixel, {limits.max_samples:,} are allowed "
            "(limits.max_samples)",
        )
    return None


def of_structure(tiff: Tiff, limits: Limits) -> Refusal | None:
    """Whether the directories of a TIFF are too many or too full.

    A list that leads back into itself counts as neither: it is read once round (`Tiff.loops`).
    """
    pages = len(tiff.directories) + len(tiff.sub_directories)
    if pages > limits.max_pages or tiff.cut:
        more = "more than " if tiff.cut else ""
        return (
            "too_many_pages",
            f"it has {more}{pages:,} directories, {limits.max_pages:,} are allowed (limits.max_pages)",
        )
    tags = max(len(one.tags) for one in (*tiff.directories, *tiff.sub_directories))
    if tags > limits.max_tags:
        return (
            "too_many_tags",
            f"one of its directories has {tags:,} tags, {limits.max_tags:,} are allowed "
            "(limits.max_tags)",
        )
    return None


def of_expansion(decoded_bytes: int, source_bytes: int, limits: Limits) -> Refusal | None:
    """Whether a file of `source_bytes` promises more pixels than its bytes can honestly hold."""
    if decoded_bytes <= _EXPANSION_FROM_BYTES:
        return None
    if decoded_bytes <= limits.max_expansion * max(1, source_bytes):
        return None
    return (
        "expansion",
        f"its {source_bytes:,} bytes promise {decoded_bytes:,} bytes of pixels, "
        f"{limits.max_expansion:,} times as many are allowed (limits.max_expansion)",
    )
