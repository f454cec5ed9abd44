"""Columns of plain text, fitted to the width of a terminal: some are left out, some are cut in the middle."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Column", "cells", "cut", "fitted", "lines", "padded"]

_GAP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its heading and what stands below it, row by row."""

    title: str
    texts: Sequence[str]
    #: It may be cut to so many columns of the terminal; None: it is never cut.
    least: int | None = None
    right: bool = False
    #: A sentence is cut at its end, a name in the middle.
    prose: bool = False

    @property
    def widest(self) -> int:
        """How much room all of it needs."""
        return max(map(cells, (self.title, *self.texts)))


def cells(text: str) -> int:
    """How many columns of a terminal `text` takes.

    >>> cells("abc"), cells("検査")
    (3, 4)
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) != 0 for letter in text)


def cut(text: str, width: int, *, prose: bool = False) -> str:
    """`text` in at most `width` columns: a name without its middle, a sentence without its end.

    >>> cut("case-101/HE_2026-11-12_001.svs", 20), cut("a.svs", 20), cut("abc", 1)
    ('case-1…11-12_001.svs', 'a.svs', '…')
    >>> cut("The copy stopped.", 9, prose=True)
    'The copy…'
    """
    if cells(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    if prose:
        return _first(text, width - 1).rstrip() + "…"
    # The end of a name says more than its beginning.
    head, tail = (width - 1) // 3, width - 1 - (width - 1) // 3
    return _first(text, head) + "…" + _first(text[::-1], tail)[::-1]


def _first(text: str, width: int) -> str:
    if text.isascii():
        return text[:width]
    taken = 0
    for at, letter in enumerate(text):
        taken += cells(letter)
        if taken > width:
            return text[:at]
    return text


def padded(text: str, width: int, *, right: bool = False, prose: bool = False) -> str:
    """`text` in exactly `width` columns."""
    shown = cut(text, width, prose=prose)
    gap = " " * (width - cells(shown))
    return gap + shown if right else shown + gap


def fitted(layouts: Sequence[Sequence[Column]], width: int) -> tuple[int, list[int]]:
    """Which of `layouts`, the richest first, has room within `width`, and how wide its columns are.

    The last one is taken where none has.

    >>> name, size = Column(title="NAME", texts=["a long name"], least=6), Column(title="SIZE", texts=["1 B"])
    >>> fitted([[name, size], [name]], 17), fitted([[name, size], [name]], 12), fitted([[name, size], [name]], 9)
    ((0, [11, 4]), (0, [6, 4]), (1, [9]))
    """
    for number, layout in enumerate(layouts):
        natural = [column.widest for column in layout]
        least = [
            wide if column.least is None else min(column.least, wide)
            for column, wide in zip(layout, natural, strict=True)
        ]
        left = width - sum(least) - _GAP * (len(layout) - 1)
        if left >= 0 or number == len(layouts) - 1:
            break
    widths = []
    for wide, narrow in zip(natural, least, strict=True):
        more = max(0, min(wide - narrow, left))
        widths.append(narrow + more)
        left -= more
    return number, widths


def lines(layout: Sequence[Column], widths: Sequence[int]) -> Iterator[list[str]]:
    """The heading and then each row, as its padded cells."""
    for at in range(-1, len(layout[0].texts)):
        yield [
            padded(
                column.title if at < 0 else column.texts[at],
                wide,
                right=column.right,
                prose=column.prose,
            )
            for column, wide in zip(layout, widths, strict=True)
        ]
