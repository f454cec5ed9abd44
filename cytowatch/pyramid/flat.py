"""Whether zeros in a JPEG are flat pixels: then its decoder needs every byte of them, and has nothing to say.

Zeros in place of other codes make more blocks, or fewer, than the bytes they stand for. Too few are a
warning of the decoder; of too many it says nothing, but then the scan ends before its last byte.

Source: ITU-T T.81, F.1.2.3 (a scan is padded to a whole byte and no further); found out by trying.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from cytowatch.formats.completeness.judging import Doubt
from cytowatch.formats.structure import jpeg
from cytowatch.formats.structure.places import bytes_at
from cytowatch.pyramid.complaints import said_of_jpeg

__all__ = ["first_gap"]

_END_OF_JPEG = b"\xff\xd9"


def first_gap(path: str, doubts: Iterable[Doubt]) -> str | None:
    """What the first of `doubts` says that is a gap in the file at `path`, and not flat pixels; else None.

    Raises
    ------
    OSError
        It cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return next((one.what for one in doubts if _is_gap(descriptor, one)), None)
    finally:
        os.close(descriptor)


def _is_gap(descriptor: int, doubt: Doubt) -> bool:
    # One JPEG at a time, as its decoder holds it as well.
    stream = bytes_at(descriptor, doubt.end - doubt.begin, doubt.begin)
    if said_of_jpeg(_without_end(jpeg.with_tables(stream, doubt.tables))):
        return True
    for scan in doubt.scans:
        at = scan - doubt.begin
        # A code of FF has a zero behind it.
        cut = at - (2 if stream[at - 2 : at] == b"\xff\0" else 1)
        shorter = stream[:cut] + stream[at:]
        if not said_of_jpeg(_without_end(jpeg.with_tables(shorter, doubt.tables))):
            return True
    return False


def _without_end(stream: bytes) -> bytes:
    at = stream.rfind(_END_OF_JPEG)
    return stream[:at] if at >= 0 else stream
