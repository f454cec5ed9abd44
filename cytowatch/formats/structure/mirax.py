"""Where the tiles of an MRXS lie in its data files, by Slidedat.ini and Index.dat.

Source: https://openslide.org/formats/mirax/
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from configparser import ConfigParser

__all__ = ["data_files", "tiles"]

_VERSION_BYTES = 5
_MOST_RECORDS = 10_000
_MOST_PAGES = 1_000_000
_MOST_ON_A_PAGE = 1_000_000


def data_files(ini: ConfigParser) -> list[str]:
    """The names of the data files, by number."""
    count = ini.getint("DATAFILE", "FILE_COUNT", fallback=0)
    return [ini.get("DATAFILE", f"FILE_{n}", fallback="") for n in range(min(count, 10_000))]


def tiles(ini: ConfigParser, index: int) -> Iterator[tuple[int, int, int]]:
    """(number of the data file, offset, length) of every tile that the index behind `index` places.

    It ends early where the index leads beyond its own end.
    """
    identity = ini.get("GENERAL", "SLIDE_ID", fallback="")
    layers = ini.getint("HIERARCHICAL", "HIER_COUNT", fallback=0)
    records = sum(
        ini.getint("HIERARCHICAL", f"HIER_{n}_COUNT", fallback=0) for n in range(min(layers, 100))
    )
    [root] = _numbers(index, _VERSION_BYTES + len(identity.encode()), 1) or (0,)
    for head in _numbers(index, root, min(max(records, 0), _MOST_RECORDS)):
        # A record begins with a zero, and then says where its first page is.
        page = next(iter(_numbers(index, head + 4, 1)), 0)
        for _ in range(_MOST_PAGES):
            listed = _numbers(index, page, 2) if page > 0 else ()
            if not listed:
                break
            count, page_after = listed
            rows = _numbers(index, page + 8, 4 * min(max(count, 0), _MOST_ON_A_PAGE))
            for at in range(0, len(rows), 4):
                _, offset, length, number = rows[at : at + 4]
                yield number, offset, length
            page = page_after


def _numbers(descriptor: int, at: int, count: int) -> tuple[int, ...]:
    """`count` numbers at `at`; none if they are not all there."""
    if at < 0 or count <= 0:
        return ()
    data = os.pread(descriptor, 4 * count, at)
    return struct.unpack(f"<{count}i", data) if len(data) == 4 * count else ()
