"""Where the tiles of an MRXS lie in its data files, by Slidedat.ini and Index.dat.

Source: https://openslide.org/formats/mirax/
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator
from configparser import ConfigParser
from operator import add

from cytowatch.formats.structure.places import pread

__all__ = ["MOST_TILES", "data_files", "jpeg_levels", "lengths", "places"]

_VERSION_BYTES = 5
_MOST_RECORDS = 10_000
#: A slide has ten.
_MOST_LEVELS = 100
#: Of a page so many are read at once: a page may hold all tiles of a level.
_ROWS = 16_384
#: An index of 64 MiB. The largest known slides have half as many tiles.
MOST_TILES = 4 << 20


def data_files(ini: ConfigParser) -> list[str]:
    """The names of the data files, by number."""
    count = ini.getint("DATAFILE", "FILE_COUNT", fallback=0)
    return [ini.get("DATAFILE", f"FILE_{n}", fallback="") for n in range(min(count, 10_000))]


def jpeg_levels(ini: ConfigParser) -> tuple[int, tuple[int, int]] | None:
    """How many zoom levels there are, and the size of a tile, if all are JPEG of one size; they come first in the index.

    Raises
    ------
    ValueError
        What should be a number is none.
    """
    count = ini.getint("HIERARCHICAL", "HIER_0_COUNT", fallback=0)
    named = ini.get("HIERARCHICAL", "HIER_0_NAME", fallback=None) or ""
    if named.strip().lower() != "slide zoom level" or not 0 < count <= _MOST_LEVELS:
        return None
    sizes: set[tuple[int, int]] = set()
    for level in range(count):
        section = ini.get("HIERARCHICAL", f"HIER_0_VAL_{level}_SECTION", fallback=None) or ""
        if (ini.get(section, "IMAGE_FORMAT", fallback=None) or "").strip().upper() != "JPEG":
            return None
        sizes.add(
            (
                ini.getint(section, "DIGITIZER_WIDTH", fallback=0),
                ini.getint(section, "DIGITIZER_HEIGHT", fallback=0),
            )
        )
    return (count, sizes.pop()) if len(sizes) == 1 else None


def places(
    ini: ConfigParser, index: int, *, records: int | None = None
) -> dict[int, array[int]] | None:
    """Where the tiles lie in each data file, by its number: offset << 32 | length, ascending, each once.

    With `records` only those of so many records, which are the zoom levels.

    None if there are more than `MOST_TILES`: then there is no memory for them. What lies at no place in a file is
    left out. It ends early where the index leads beyond its own end, or in a circle.
    """
    found: dict[int, array[int]] = {}
    count = 0
    for rows in _pages(ini, index, "HIER", records=records):
        count += len(rows) // 4
        if count > MOST_TILES:
            return None
        for number, offset, length in zip(rows[3::4], rows[1::4], rows[2::4], strict=True):
            if offset >= 0 <= length:
                found.setdefault(number, array("Q")).append(offset << 32 | length)
    return {number: array("Q", _ascending(found.pop(number))) for number in list(found)}


def _ascending(values: array[int]) -> Iterator[int]:
    before = -1
    for value in sorted(values):
        if value != before:
            yield value
        before = value


def lengths(ini: ConfigParser, index: int) -> tuple[dict[int, int], dict[int, int]]:
    """How long each data file must be by the index behind `index`, by its number: for the tiles, and for all else.

    What else there is are pictures beside the slide and notes of the scanner.
    """
    of_tiles: dict[int, int] = {}
    for rows in _pages(ini, index, "HIER"):
        _reach(of_tiles, rows[3::4], rows[1::4], rows[2::4])
    of_others: dict[int, int] = {}
    for rows in _pages(ini, index, "NONHIER", words=5):
        _reach(of_others, rows[4::5], rows[2::5], rows[3::5])
    return of_tiles, of_others


def _reach(
    found: dict[int, int], numbers: array[int], offsets: array[int], lengths: array[int]
) -> None:
    """Note in `found` how far each data file is used; whole columns at once, for an index may have millions."""
    if not numbers:
        return
    if min(numbers) == max(numbers):
        number = numbers[0]
        end = max(map(add, offsets, lengths))
        found[number] = max(found.get(number, 0), end)
        return
    for number, end in zip(numbers, map(add, offsets, lengths), strict=True):
        if end > found.get(number, 0):
            found[number] = end


def _count(ini: ConfigParser, kind: str) -> int:
    """How many records of a kind there are."""
    layers = ini.getint("HIERARCHICAL", f"{kind}_COUNT", fallback=0)
    return sum(
        ini.getint("HIERARCHICAL", f"{kind}_{n}_COUNT", fallback=0) for n in range(min(layers, 100))
    )


def _pages(
    ini: ConfigParser, index: int, kind: str, *, words: int = 4, records: int | None = None
) -> Iterator[array[int]]:
    """The numbers of every page of the `records` of a kind, in pieces; `words` of them stand for one thing."""
    # A valid index lists nothing twice.
    left = os.fstat(index).st_size // (4 * words)
    identity = ini.get("GENERAL", "SLIDE_ID", fallback="")
    root = _VERSION_BYTES + len(identity.encode()) + (4 if kind == "NONHIER" else 0)
    [first] = _numbers(index, root, 1) or (0,)
    most = min(max(_count(ini, kind), 0), _MOST_RECORDS)
    for head in _numbers(index, first, most)[:records]:
        page = next(iter(_numbers(index, head + 4, 1)), 0)
        while left > 0:
            listed = _numbers(index, page, 2) if page > 0 else ()
            if not listed:
                break
            count, page_after = listed
            count = min(max(count, 0), left)
            left -= count + 1
            for row in range(0, count, _ROWS):
                rows = _numbers(index, page + 8 + 4 * words * row, words * min(_ROWS, count - row))
                if not rows:
                    break
                yield rows
            page = page_after


def _numbers(descriptor: int, at: int, count: int) -> array[int]:
    """`count` numbers at `at`; none if they are not all there."""
    if at < 0 or count <= 0:
        return array("i")
    data = pread(descriptor, 4 * count, at)
    found = array("i", data if len(data) == 4 * count else b"")
    if sys.byteorder == "big":
        found.byteswap()
    return found
