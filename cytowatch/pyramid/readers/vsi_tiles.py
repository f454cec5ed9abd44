"""The stacks of a CellSens VSI: which planes an .ets holds, and the tiles of the first.

A tile is numbered by its column and row, and by numbers of focal planes, times and channels. slideio asks
the .vsi what those mean. Where that does not say it, slideio takes a tile of any plane: a place that the
first plane lacks would be filled from another. At a tile that is not a JPEG slideio ends the whole process,
so packed tiles are decoded here.

Source: the vsi driver of slideio; CellSensReader of Bio-Formats
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape, glob
from types import MappingProxyType
from typing import Any

import numpy as np

from cytowatch.formats.structure import jp2, vsi
from cytowatch.formats.structure.places import bytes_at
from cytowatch.pyramid.complaints import refuse_lost_of_jpeg
from cytowatch.pyramid.pixels import Pixels, each
from cytowatch.pyramid.readers.jp2_codestream import check_units
from cytowatch.pyramid.refusals import damaged
from cytowatch.record.errors import ConversionError

__all__ = ["Stack", "Tiles", "check", "check_starts", "fitting", "stacks"]

#: Of a longer list of tiles only the beginning is looked at.
_LONGEST_LIST = 256 << 20
#: A tile of more bytes is not read.
_LARGEST_TILE = 64 << 20
_RAW, _JPEG = 0, 2
#: How a tile begins, by how it is packed; a JPEG 2000 may stand in boxes.
_MARKS: Mapping[int, tuple[bytes, ...]] = MappingProxyType(
    {2: (b"\xff\xd8\xff",), 3: (jp2.BEGIN, jp2.MARK)}
)
#: How tiles are packed, by the number of the format: the function of imagecodecs.
_DECODERS: Mapping[int, str] = MappingProxyType(
    {2: "jpeg8_decode", 3: "jpeg2k_decode", 5: "jpeg8_decode"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What one .ets holds: `covered` are the pixels of its tiles.

    `count` are its planes; `lacking` the tiles that the first plane lacks and another one has; `first` has
    (offset, length) of the tiles of the first plane, by column and row.
    """

    path: str
    covered: tuple[int, int]
    tile: tuple[int, int]
    samples: int
    packing: int
    count: int
    lacking: int
    first: Mapping[tuple[int, int], tuple[int, int]]


def stacks(path: str) -> list[Stack]:
    """Of each .ets beside the .vsi at `path`; those that cannot be read are left to slideio."""
    folder, name = os.path.split(path)
    inside = os.path.join(folder, f"_{os.path.splitext(name)[0]}_")
    found = (_stack(one) for one in sorted(glob(f"{escape(inside)}/**/*.ets", recursive=True)))
    return [one for one in found if one is not None]


def fitting(found: list[Stack], size: tuple[int, int]) -> list[Stack]:
    """Those that may be the stack of an image of `size` pixels: slideio goes by the tiles that it needs."""
    return [
        one
        for one in found
        if all(
            covered - tile <= wanted <= covered
            for covered, tile, wanted in zip(one.covered, one.tile, size, strict=True)
        )
    ]


def check(found: list[Stack], known: int) -> list[str]:
    """What there is to say of a stack of which slideio knows `known` planes.

    Raises
    ------
    ConversionError
        `unsupported_format`: what would be shown is not the picture.
    """
    if any(one.packing == _RAW and one.samples > 1 for one in found):
        raise ConversionError(
            "unsupported_format",
            "its tiles are colours without compression, which slideio shows as white: save it with JPEG "
            "or JPEG 2000 from cellSens",
        )
    other = next((one.packing for one in found if one.packing not in (_RAW, *_DECODERS)), None)
    if other is not None:
        raise ConversionError(
            "unsupported_format",
            "its tiles are neither JPEG nor JPEG 2000: save it with one of these from cellSens "
            f"(compression {other})",
        )
    lacking = max((one.lacking for one in found), default=0)
    if lacking:
        raise ConversionError(
            "unsupported_format",
            f"the first of its planes lacks {lacking:,} of the tiles that another one has, and a picture would "
            "be mixed from several planes: save one plane from cellSens",
        )
    hidden = max((one.count for one in found), default=0)
    if hidden <= known:
        return []
    return [f"it has {hidden} planes, and does not state of what: the first is the pyramid"]


def check_starts(found: list[Stack]) -> None:
    """Refuse stacks with a tile that does not begin as it must: slideio would end the process at it.

    Raises
    ------
    ConversionError
        `damaged`.
    """
    for stack in found:
        marks = _MARKS.get(stack.packing, ())
        with open(stack.path, "rb") as file:
            for (column, row), (offset, _) in stack.first.items() if marks else ():
                if not os.pread(file.fileno(), 12, offset).startswith(marks):
                    raise damaged(f"the tile at {column}, {row} does not begin as it must")


class Tiles:
    """Rows of the first plane of a stack, whose tiles are packed; where there is none, nothing was scanned."""

    def __init__(
        self, stack: Stack, size: tuple[int, int], dtype: np.dtype[Any], descriptor: int
    ) -> None:
        self.width, self.height = size
        self.samples, self.dtype = stack.samples, dtype
        self._wide, self._tall = stack.tile
        self.block_rows = self._tall
        self._places = stack.first
        self._descriptor = descriptor
        self._packing = stack.packing

    @staticmethod
    def reads(found: list[Stack], dtype: np.dtype[Any]) -> bool:
        """Whether it is known which stack an image is of, and its tiles are packed."""
        return len(found) == 1 and found[0].packing in _DECODERS and dtype.kind == "u"

    def rows(self, top: int, bottom: int) -> Pixels:
        # As slideio shows what was not scanned: white, or black in fluorescence.
        empty = 255 if self.dtype.itemsize == 1 else 0
        found = np.full((bottom - top, self.width, self.samples), empty, self.dtype)
        across = -(-self.width // self._wide)

        def place(number: int) -> None:
            row, column = divmod(number, across)
            if (column, row) not in self._places:
                return
            at, left = row * self._tall - top, column * self._wide
            skip, until = max(0, -at), min(self._tall, len(found) - at, self.height - top - at)
            wide = min(self._wide, self.width - left)
            pixels = self._decoded(*self._places[column, row])
            if pixels.shape[0] < until or pixels.shape[1] < wide:
                raise damaged(f"the tile at {column}, {row} is {pixels.shape[1]} x {pixels.shape[0]} pixels")  # fmt: skip
            found[at + skip : at + until, left : left + wide] = pixels[skip:until, :wide]

        first, last = top // self._tall, -(-bottom // self._tall)
        each(place, range(first * across, last * across), out_bytes=found.nbytes)
        return found

    def _decoded(self, offset: int, length: int) -> Pixels:
        import imagecodecs

        data = bytes_at(self._descriptor, min(length, _LARGEST_TILE), offset)
        check_units(data)
        decode: Callable[[bytes], Pixels] = getattr(imagecodecs, _DECODERS[self._packing])
        try:
            pixels = decode(data)
        except Exception as error:
            raise damaged(error) from error
        if self._packing == _JPEG:
            refuse_lost_of_jpeg(data)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if pixels.dtype != self.dtype or pixels.shape[2] != self.samples:
            raise damaged(f"a tile has {pixels.shape[2]} samples of {pixels.dtype}")
        return pixels


def _stack(path: str) -> Stack | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = vsi.ets(descriptor)
        if head is None or head.axes < 3:
            return None
        count = min(head.tiles, _LONGEST_LIST // head.entry_bytes)
        data = bytes_at(descriptor, count * head.entry_bytes, head.where)
    finally:
        os.close(descriptor)
    entries = np.frombuffer(data[: len(data) // head.entry_bytes * head.entry_bytes], "<u4")
    entries = entries.reshape(-1, head.entry_bytes // 4)
    if head.has_levels:
        entries = entries[entries[:, head.axes] == 0]
    if not len(entries):
        return None
    numbers = entries[:, 3 : 1 + head.axes - head.has_levels]
    of_first = entries[~numbers.any(axis=1)]
    columns, rows = (int(one) + 1 for one in entries[:, 1:3].max(axis=0))
    wide, tall = head.tile
    # Offsets have 64 bits.
    places = of_first[:, head.axes + 1 : head.axes + 4].astype(np.int64)
    first = {
        (int(column), int(row)): (int(low) + (int(high) << 32), int(length))
        for (column, row), (low, high, length) in zip(of_first[:, 1:3], places, strict=True)
    }
    return Stack(
        path=path,
        covered=(columns * wide, rows * tall),
        tile=head.tile,
        samples=head.samples,
        packing=head.packing,
        count=len(np.unique(numbers, axis=0)) if numbers.shape[1] else 1,
        lacking=len(np.unique(entries[:, 1:3], axis=0)) - len(first),
        first=MappingProxyType(first),
    )
