"""Where the tiles of an MRXS lie in its data files, by Slidedat.ini and Index.dat.

Source: https://openslide.org/formats/mirax/
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from configparser import ConfigParser

__all__ = ["data_files", "lengths", "tiles"]

_VERSION_BYTES = 5
_MOST_RECORDS = 10_000


def data_files(ini: ConfigParser) -> list[str]:
    """The names of the data files, by number."""
    count = ini.getint("DATAFILE", "FILE_COUNT", fallback=0)
    return [ini.get("DATAFILE", f"FILE_{n}", fallback="") for n in range(min(count, 10_000))]


def tiles(ini: ConfigParser, index: int) -> Iterator[tuple[int, int, int]]:
    """(number of the data file, offset, length) of every tile that the index behind `index` places.

    It ends early where the index leads beyond its own end, or in a circle.
    """
    # A record begins with a zero, and then says where its first page is.
    for rows in _pages(ini, index, "HIER"):
        for at in range(0, len(rows) - 3, 4):
            _, offset, length, number = rows[at : at + 4]
            yield number, offset, length


def lengths(ini: ConfigParser, index: int) -> tuple[dict[int, int], dict[int, int]]:
    """How long each data file must be by the index behind `index`, by its number: for the tiles, and for all else.

    What else there is are pictures beside the slide and notes of the scanner.
    """
    of_tiles: dict[int, int] = {}
    for number, offset, length in tiles(ini, index):
        of_tiles[number] = max(of_tiles.get(number, 0), offset + length)
    of_others: dict[int, int] = {}
    for rows in _pages(ini, index, "NONHIER", words=5):
        for at in range(0, len(rows) - 4, 5):
            _, _, offset, length, number = rows[at : at + 5]
            of_others[number] = max(of_others.get(number, 0), offset + length)
    return of_tiles, of_others


def _count(ini: ConfigParser, kind: str) -> int:
    """How many records of a kind there are."""
    layers = ini.getint("HIERARCHICAL", f"{kind}_COUNT", fallback=0)
    return sum(
        ini.getint("HIERARCHICAL", f"{kind}_{n}_COUNT", fallback=0) for n in range(min(layers, 100))
    )


def _pages(
    ini: ConfigParser, index: int, kind: str, *, words: int = 4
) -> Iterator[tuple[int, ...]]:
    """The numbers of every page of the records of a kind; `words` of them stand for one thing."""
    # A valid index lists nothing twice.
    left = os.fstat(index).st_size // (4 * words)
    identity = ini.get("GENERAL", "SLIDE_ID", fallback="")
    root = _VERSION_BYTES + len(identity.encode()) + (4 if kind == "NONHIER" else 0)
    [first] = _numbers(index, root, 1) or (0,)
    for head in _numbers(index, first, min(max(_count(ini, kind), 0), _MOST_RECORDS)):
        page = next(iter(_numbers(index, head + 4, 1)), 0)
        while left > 0:
            listed = _numbers(index, page, 2) if page > 0 else ()
            if not listed:
                break
            count, page_after = listed
            count = min(max(count, 0), left)
            left -= count + 1
            yield _numbers(index, page + 8, words * count)
            page = page_after


def _numbers(descriptor: int, at: int, count: int) -> tuple[int, ...]:
    """`count` numbers at `at`; none if they are not all there."""
    if at < 0 or count <= 0:
        return ()
    data = os.pread(descriptor, 4 * count, at)
    return struct.unpack(f"<{count}i", data) if len(data) == 4 * count else ()
