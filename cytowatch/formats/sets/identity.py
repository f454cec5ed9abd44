"""Whether the files of a set are of one slide, by what the format itself says, never by a name.

An MRXS has a SLIDE_ID in Slidedat.ini. It stands behind the version in Index.dat, and in the header
of a Data file where that has one.

Source: https://openslide.org/formats/mirax/
"""

from __future__ import annotations

import re

from cytowatch.formats.base import Probe

__all__ = ["header", "is_of_another"]

#: A shorter one could stand anywhere by chance.
_SHORTEST_ID = 16
_VERSION = re.compile(rb"\d\d\.\d\d")


def header(probe: Probe) -> bytes:
    """The first bytes of a file, in which an identity may stand."""
    return probe.head[:128]


def is_of_another(slide_id: str, head: bytes) -> bool:
    """Whether `head` has an identity other than `slide_id`.

    >>> own, other = "0123456789abcdef" * 2, b"fedcba9876543210" * 2
    >>> is_of_another(own, b"01.02" + other), is_of_another(own, other), is_of_another(own, b"01.02" + own.encode())
    (True, True, False)
    >>> is_of_another(own, bytes([255, 216, 255, 224]) + b"JFIF" * 20)
    False
    """
    wanted = slide_id.encode("utf-8", "replace")
    if len(wanted) < _SHORTEST_ID:
        return False
    version = _VERSION.match(head)
    begin = version.end() if version else 0
    found = head[begin : begin + len(wanted)]
    bears_one = len(found) == len(wanted) and re.fullmatch(rb"[0-9A-Za-z-]+", found)
    return bool(bears_one) and found.lower() != wanted.lower()
