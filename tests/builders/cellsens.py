"""The files of a CellSens VSI by their structure: what it announces of its stacks, and lists of tiles without pixels."""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = ["cellsens", "ets", "vsi"]

_TILE = 512


def _tag(
    number: int, kind: int, value: bytes | int, *, second: int | None = None, last: bool
) -> bytes:
    """One tag; a number stands in it, bytes behind it."""
    inline = isinstance(value, int)
    kind |= (0x40000000 if inline else 0) | (0x8000000 if second is not None else 0)
    body = (b"" if second is None else struct.pack("<i", second)) + (b"" if inline else value)
    following = 0 if last else 16 + len(body)
    size = value if inline else len(value)
    return struct.pack("<IiII", kind, number, following, size) + body


def _volume(*tags: tuple[int, int, bytes | int, int | None]) -> bytes:
    body = b""
    for number, (tag, kind, value, second) in enumerate(tags):
        # The next tag is placed from where the volume begins.
        one = _tag(tag, kind, value, second=second, last=True)
        following = 24 + len(body) + len(one) if number < len(tags) - 1 else 0
        body += one[:8] + struct.pack("<I", following) + one[12:]
    return struct.pack("<hhiqII", 24, 21321, 0, 24, len(tags), 0) + body


def vsi(stacks: Sequence[tuple[int, int, int]]) -> bytes:
    """A TIFF whose tags announce a stack for each (width, height, type); 0 is an image, 1 an overview."""
    images = []
    for number, (width, height, kind) in enumerate(stacks):
        external = _volume(
            (2053, 259, struct.pack("<4i", 0, 0, width, height), None), (20005, 12, 1, None)
        )
        frame = _volume((2018, 0x10000001, external, None))
        properties = _volume((2074, 5, kind, None))
        image = _volume((2005, 0x10000001, properties, None), (2002, 0x10000000, frame, 0))
        images.append((2001, 0x10000000, image, number))
    tags = _volume((2000, 0x10000000, _volume(*images), 0))
    at = 8 + len(tags) + len(tags) % 2
    entries = [
        (256, 4, 1),
        (257, 4, 1),
        (258, 3, 8),
        (262, 3, 1),
        (273, 4, at - 1),
        (277, 3, 1),
        (278, 4, 1),
        (279, 4, 1),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    return struct.pack("<2sHI", b"II", 42, at) + tags.ljust(at - 8, b"\0") + directory + bytes(4)


def ets(width: int, height: int) -> bytes:
    """A list of the tiles of an image of that size, each of a few bytes."""
    columns, rows = -(-width // _TILE), -(-height // _TILE)
    inner = b"ETS\0" + struct.pack("<9I", 6, 2, 3, 1, 2, 90, _TILE, _TILE, 1)
    places = [(column, row) for row in range(rows) for column in range(columns)]
    pixels = 64 + len(inner)
    tile = b"\xff\xd8tile\xff\xd9"
    where = pixels + len(places) * len(tile)
    head = struct.pack("<4s7IQI", b"SIS\0", 64, 3, 4, 64, 0, len(inner), 0, where, len(places))
    listed = b"".join(
        struct.pack("<I4IQII", 0, column, row, 0, 0, pixels + number * len(tile), len(tile), 0)
        for number, (column, row) in enumerate(places)
    )
    return head.ljust(64, b"\0") + inner + tile * len(places) + listed


def cellsens(
    stem: str, stacks: Sequence[tuple[int, int, int]], files: Sequence[tuple[int, int]]
) -> dict[str, bytes]:
    """`NAME.vsi` that announces `stacks`, and an .ets for each of `files`, by their paths."""
    return {
        f"{stem}.vsi": vsi(stacks),
        **{
            f"_{stem}_/stack{number}/frame_t.ets": ets(width, height)
            for number, (width, height) in enumerate(files, 1)
        },
    }
