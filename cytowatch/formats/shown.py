"""Parts of a TIFF that OpenSlide shows differently from what the file means, without an error.

Source: found out against OpenSlide 4.0.1, which draws tiles by libtiff's TIFFRGBAImage as 8 bits
and knows no orientation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError

__all__ = ["ascending", "misread", "unheeded"]

#: Samples that are colours, by the photometric interpretation; of the others three.
_COLOURS = {0: 1, 1: 1, 3: 1, 4: 1, 5: 4}
_YCBCR = 6
#: Colours that libtiff converts roughly, and without a profile.
_CONVERTED = {5: "colours of inks", 8: "Lab colours", 9: "Lab colours", 10: "Lab colours"}
#: Of these the stream itself says how its chroma is stored: JPEG and JPEG 2000.
_DECODED = frozenset({6, 7, 33003, 33004, 33005, 34712})
#: What is neither unsigned nor undefined, by the sample format.
_KINDS = {2: "signed", 3: "floating", 5: "complex", 6: "complex"}


def misread(tiff: Tiff) -> str | None:
    """Which of its samples are not shown as they are; None if all have 8 bits."""
    return _first(_samples(one) for one in _levels(tiff))


def unheeded(tiff: Tiff) -> str | None:
    """Which of its statements OpenSlide ignores: a turn, a sample that is not transparency, what its colours are."""
    return _first(
        said
        for one in _levels(tiff)
        for said in (_turn(one), _further_samples(one), _transparency(one), _colours(one))
    )


def ascending(tiff: Tiff) -> str | None:
    """That a level is not smaller than the one before it, as a phrase: OpenSlide refuses such a slide."""
    try:
        sizes = [one.size for one in tiff.directories if one.tiled]
    except TiffError:
        return None
    for number, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
        if after[0] >= before[0] or after[1] >= before[1]:
            wide, tall = after
            return f"its level {number}, {wide} x {tall}, is not smaller than the one before it"
    return None


def _first(said: Iterator[str | None]) -> str | None:
    try:
        return next((one for one in said if one is not None), None)
    except TiffError:
        # A tag that lies beyond the end is the matter of another check.
        return None


def _levels(tiff: Tiff) -> Iterator[Directory]:
    yield from (one for n, one in enumerate(tiff.directories) if n == 0 or one.tiled)


def _samples(directory: Directory) -> str | None:
    kind = next((_KINDS[one] for one in directory.numbers(339) if one in _KINDS), None)
    if kind is not None:
        return f"{kind} samples"
    other = next((bits for bits in directory.numbers(258) or (1,) if bits != 8), None)
    return None if other is None else f"samples of {other} bit" + "s" * (other != 1)


def _turn(directory: Directory) -> str | None:
    turn = directory.number(274, 1)
    return f"an orientation tag of {turn}" if 1 < turn <= 8 else None


def _further_samples(directory: Directory) -> str | None:
    further = directory.number(277, 1) - _COLOURS.get(directory.number(262, 2), 3)
    stated = directory.numbers(338)
    if further > len(stated) or 0 in stated:
        return "samples beside its colours that are not transparency"
    return None


def _transparency(directory: Directory) -> str | None:
    single = _COLOURS.get(directory.number(262, 2), 3) == 1
    alpha = any(one in (1, 2) for one in directory.numbers(338))
    return "transparency beside grey or a palette" if single and alpha else None


def _colours(directory: Directory) -> str | None:
    """Which colours libtiff converts without their profile, or guesses the order of."""
    photometric = directory.number(262, 2)
    if photometric == _YCBCR:
        guessed = 530 not in directory.tags and directory.number(259, 1) not in _DECODED
        return "YCbCr that does not state whether its chroma is subsampled" if guessed else None
    return _CONVERTED.get(photometric)
