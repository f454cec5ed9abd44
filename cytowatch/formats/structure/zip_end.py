"""The record at the end of a zip, which says where its directory is.

Source: PKWARE APPNOTE 6.3.10, section 4.3.16
"""

from __future__ import annotations

import struct

__all__ = ["BYTES", "MARK", "last_end"]

MARK = b"PK\5\6"
#: Without its comment.
BYTES = 22


def last_end(tail: bytes) -> int:
    """Where the record begins in the last bytes of a file: its comment, which may hold its mark, ends with them.

    Where none does so there is something behind it, and the last mark is taken; -1 if there is none.

    >>> last_end(b"PK" + MARK + bytes(16) + b"\\4\\0" + MARK)
    2
    """
    places, at = list[int](), tail.rfind(MARK)
    while at >= 0:
        if at + BYTES <= len(tail):
            places.append(at)
            [comment] = struct.unpack_from("<H", tail, at + BYTES - 2)
            if at + BYTES + comment == len(tail):
                return at
        at = tail.rfind(MARK, 0, at + len(MARK) - 1)
    return places[0] if places else -1
