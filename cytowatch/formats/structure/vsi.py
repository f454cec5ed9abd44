"""What a CellSens VSI states of its stacks, each of which is an .ets file of its own.

Behind the header of the TIFF a tree of numbered tags begins. Under the collection lies a volume for each
image, in it its frames, and in one of those what is stored in another file: whether there is one, and the
size of its pixels.

Source: CellSensReader of Bio-Formats; the vsi driver of slideio; a real file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cytowatch.formats.structure.places import pread

__all__ = ["Ets", "Stack", "ets", "stacks", "tiles_of"]

_HEADER = struct.Struct("<hhiqII")
_TAG = struct.Struct("<IiII")
_MAGIC = (24, 21321)
_COLLECTION, _IMAGE, _FRAME, _PROPERTIES, _EXTERNAL = 2000, 2001, 2002, 2005, 2018
#: The tags that lead to what is asked; all others are passed over.
_INSIDE = frozenset({_COLLECTION, _IMAGE, _FRAME, _PROPERTIES, _EXTERNAL})
_BOUNDARY, _HAS_EXTERNAL_FILE, _STACK_TYPE = 2053, 20005, 2074
_MOST_TAGS = 200_000
_DEEPEST = 8
#: Of a longer list only the beginning is looked at.
_LONGEST_LIST = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One image with a file of its own; `width` and `height` are 0 where they are not stated.

    An overview, a label, a mask or a map of focus is `spare`: the slide itself is whole without it.
    """

    width: int = 0
    height: int = 0
    spare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ets:
    """The header of an .ets: `tiles` entries of `entry_bytes` from `where` on, each with `axes` numbers.

    The first two numbers are column and row, and the last one is the level, if it `has_levels`.
    """

    axes: int
    where: int
    tiles: int
    tile: tuple[int, int]
    samples: int
    packing: int
    has_levels: bool

    @property
    def entry_bytes(self) -> int:
        """The length of one entry: its numbers stand behind four bytes."""
        return 20 + 4 * self.axes


@dataclass(frozen=True, slots=True)
class _Tag:
    path: tuple[int, ...]
    #: The number of the volumes on the way: tells one image, and one frame, from the next.
    volumes: tuple[int, ...]
    at: int
    size_bytes: int
    inline: bool


def stacks(descriptor: int) -> list[Stack]:
    """Every stack that the .vsi behind `descriptor` states to have a file of its own; none if it cannot be read.

    Raises
    ------
    OSError
        It cannot be read.
    """
    external: dict[tuple[int, ...], bool] = {}
    sizes: dict[tuple[int, ...], tuple[int, int]] = {}
    kinds: dict[tuple[int, ...], int] = {}
    for tag in _tags(descriptor):
        match tag.path:
            case (2000, 2001, 2002, 2018, 20005):
                value = tag.size_bytes if tag.inline else _number(descriptor, tag)
                external[tag.volumes[:3]] = value == 1
            case (2000, 2001, 2002, 2018, 2053) if not tag.inline and tag.size_bytes >= 16:
                _, _, width, height = struct.unpack(
                    "<4i", _read(descriptor, 16, tag.at).ljust(16, b"\0")
                )
                sizes[tag.volumes[:3]] = (max(0, width), max(0, height))
            case (2000, 2001, 2005, 2074):
                kinds[tag.volumes[:2]] = tag.size_bytes if tag.inline else _number(descriptor, tag)
            case _:
                continue
    return [
        Stack(
            width=sizes.get(frame, (0, 0))[0],
            height=sizes.get(frame, (0, 0))[1],
            spare=kinds.get(frame[:2], 0) != 0,
        )
        for frame, is_external in external.items()
        if is_external
    ]


def _read(descriptor: int, size_bytes: int, at: int) -> bytes:
    """As far as it is there: an offset may be anything."""
    return pread(descriptor, size_bytes, at) if 0 <= at < 1 << 62 else b""


def _number(descriptor: int, tag: _Tag) -> int:
    return int.from_bytes(_read(descriptor, min(4, tag.size_bytes), tag.at), "little")


def _tags(descriptor: int) -> Iterator[_Tag]:
    """The tags on the way, each with where its value lies."""
    waiting: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = [(8, (), ())]
    seen: set[int] = set()
    left = _MOST_TAGS
    while waiting:
        at, path, volumes = waiting.pop()
        if at in seen or len(path) > _DEEPEST:
            continue
        seen.add(at)
        head = _read(descriptor, _HEADER.size, at)
        if len(head) < _HEADER.size:
            continue
        size, magic, _, first, flags, _ = _HEADER.unpack(head)
        place = at + first
        for _ in range(flags & 0xFFFFFFF if (size, magic) == _MAGIC else 0):
            left -= 1
            data = _read(descriptor, _TAG.size, place)
            if left < 0 or len(data) < _TAG.size:
                return
            kind, number, following, length = _TAG.unpack_from(data)
            value = place + _TAG.size + (4 if kind >> 27 & 1 else 0)
            inline = bool(kind >> 30 & 1)
            if not kind >> 28 & 1:
                yield _Tag((*path, number), (*volumes, place), value, length, inline)
            elif number in _INSIDE:
                inside = ((*path, number), (*volumes, place))
                if kind & 0xFFFFFF == 0:
                    # Several volumes may follow each other in it.
                    waiting += [(one, *inside) for one in _volumes(descriptor, value, length)]
                elif kind & 0xFFFFFF in (1, 2):
                    waiting.append((value, *inside))
            if not following:
                break
            place = at + following


def _volumes(descriptor: int, at: int, length: int) -> list[int]:
    """Where the volumes begin that lie in `length` bytes from `at`."""
    found: list[int] = []
    end = at + length
    while at < end and len(found) < _MOST_TAGS:
        head = _read(descriptor, _HEADER.size, at)
        if len(head) < _HEADER.size or _HEADER.unpack(head)[:2] != _MAGIC:
            break
        found.append(at)
        last = _end_of_volume(descriptor, at, head)
        if last <= at:
            break
        at = last
    return found


def _end_of_volume(descriptor: int, at: int, head: bytes) -> int:
    """Behind the last tag of the volume at `at`."""
    *_, first, flags, _ = _HEADER.unpack(head)
    place = at + first
    for _ in range(min(flags & 0xFFFFFFF, _MOST_TAGS)):
        data = _read(descriptor, _TAG.size, place)
        if len(data) < _TAG.size:
            return 0
        _, _, following, length = _TAG.unpack(data)
        if not following:
            return int(at + length + 32)
        place = at + following
    return 0


def tiles_of(descriptor: int) -> tuple[int, int, int, int] | None:
    """How many pixels the tiles of an .ets cover, across and down, and the size of a tile; None if they cannot be read."""
    head = ets(descriptor)
    if head is None:
        return None
    listed = _read(descriptor, min(head.tiles * head.entry_bytes, _LONGEST_LIST), head.where)
    columns = rows = 0
    for at in range(0, len(listed) - head.entry_bytes + 1, head.entry_bytes):
        place = struct.unpack_from(f"<{head.axes}I", listed, at + 4)
        # The last number is the level, or a plane.
        if place[-1] == 0:
            columns, rows = max(columns, place[0] + 1), max(rows, place[1] + 1)
    across, down = head.tile
    return (columns * across, rows * down, across, down) if columns else None


def ets(descriptor: int) -> Ets | None:
    """What the header of an .ets states; None if it cannot be read."""
    head = pread(descriptor, 64, 0)
    if len(head) < 64 or not head.startswith(b"SIS\0"):
        return None
    axes, inner_at = struct.unpack_from("<II", head, 12)
    where, count = struct.unpack_from("<QI", head, 32)
    inner = _read(descriptor, 156, inner_at)
    if len(inner) < 40 or not inner.startswith(b"ETS\0") or not 2 <= axes < 16:
        return None
    samples, _, packing = struct.unpack_from("<III", inner, 12)
    return Ets(
        axes=axes,
        where=where,
        tiles=count,
        tile=struct.unpack_from("<II", inner, 28),
        samples=samples,
        packing=packing,
        # A file that ends before has no word on it.
        has_levels=inner[152:156] not in (b"", bytes(4)),
    )
