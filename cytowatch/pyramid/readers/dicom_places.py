"""Where each frame of a level lies in it: by its number (TILED_FULL), or as its own header states (TILED_SPARSE).

A level may lie in several files. The files of a concatenation name it, and each describes its own frames; some
writers only split a level, and then the places that the frames state are all there is to join it by.

Source: DICOM PS3.3, C.7.6.17.3 (tiles), C.7.6.16.2.2.4 (concatenations) and C.8.12.6 (places on the slide)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cytowatch.pyramid.readers.dicom_parts import Part
from cytowatch.record.errors import ConversionError

__all__ = [
    "astray",
    "inside_of",
    "is_joined",
    "levels",
    "misplaced",
    "missing_file",
    "placed",
    "split",
    "twice",
]

#: Places are objects while they are read: some 4 KiB each.
_MOST_PLACES = 200_000
#: Of one concatenation.
_MOST_FILES = 10_000


class _Place(NamedTuple):
    """Column and row of pixels, from 0 on, and what else a frame differs by: its focal plane, and its optical path."""

    column: int
    row: int
    plane: tuple[str, str]


def levels(found: Sequence[Part]) -> list[list[Part]]:
    """The parts of each level, of the largest first."""
    by_size: dict[tuple[int, int], list[Part]] = {}
    for one in found:
        if one.kind == "VOLUME":
            by_size.setdefault(one.size, []).append(one)
    return [by_size[size] for size in sorted(by_size, reverse=True)]


def is_joined(level: Sequence[Part]) -> bool:
    """Whether the parts of a level say how they belong together."""
    one_concatenation = len({part.concatenation for part in level}) == 1
    return len(level) == 1 or (one_concatenation and bool(level[0].concatenation)) or split(level)


def split(level: Sequence[Part]) -> bool:
    """Whether a level was split into files that do not form a concatenation: together they have no more frames than it has tiles.

    If they have more, they are copies of it.
    """
    several = len({part.uid for part in level}) > 1
    alone = not any(part.concatenation for part in level)
    return several and alone and sum(part.frames for part in level) <= level[0].tiles


def missing_file(found: Sequence[Part]) -> str | None:
    """Which file of a concatenation is not there, as a phrase; None if none is known to be missing."""
    for level in levels(found):
        joined = [part for part in level if part.concatenation == level[0].concatenation != ""]
        numbers = {part.number for part in joined}
        total = max((max(part.number, part.of) for part in joined), default=0)
        missing = next((n for n in range(1, min(total, _MOST_FILES) + 1) if n not in numbers), None)
        # Without numbers the frames that follow are asked for.
        if missing is not None and 0 not in numbers:
            width, height = level[0].size
            return f"file {missing} of the {total} that hold its level of {width} x {height} pixels"
    return None


def twice(found: Sequence[Part]) -> tuple[Part, Part] | None:
    """Two files that hold the same level, of which OpenSlide takes neither; None if there are none."""
    for level in levels(found):
        alone = [one for one in level if not one.concatenation]
        other = next((one for one in alone[1:] if one.uid != alone[0].uid), None)
        if other is not None and not split(level):
            return alone[0], other
    return None


def astray(found: Sequence[Part]) -> str | None:
    """Why the files of the largest level cannot be joined, as a phrase; None if they can, or if it is one file."""
    largest = next(iter(levels(found)), [])
    return misplaced(found) if len(largest) > 1 else None


def misplaced(found: Sequence[Part]) -> str | None:
    """Why the frames of the largest level cannot be joined to a picture, as a phrase; None if they can."""
    try:
        for largest in levels(found)[:1]:
            placed(largest)
    except ConversionError as error:
        return error.detail
    return None


def inside_of(part: Part, tile: int) -> tuple[int, int]:
    """(width, height) of what lies inside of the image, of a tile by its number."""
    (width, height), (wide, tall) = part.size, part.tile
    row, column = divmod(tile, -(-width // wide))
    return min(wide, width - column * wide), min(tall, height - row * tall)


def placed(level: Sequence[Part]) -> list[list[int | None]]:
    """For each part of a level the tile that each of its frames is; None for those of further planes.

    Raises
    ------
    ConversionError
        `unsupported_format`: they lie between the tiles, over each other, or nothing says where.
    """
    if all(part.full for part in level):
        if split(level):
            width, height = level[0].size
            raise _unplaced(
                f"its level of {width} x {height} pixels lies in {len(level)} files, and they do not say which part "
                "of it each one is"
            )
        ranges = (range(part.first_frame, part.first_frame + part.frames) for part in level)
        return [[number if number < level[0].tiles else None for number in one] for one in ranges]
    if sum(part.frames for part in level) > _MOST_PLACES:
        raise _unplaced(f"it has more than {_MOST_PLACES:,} frames that each state their place")
    found: list[list[int | None]] = []
    taken: set[int] = set()
    plane: tuple[str, str] | None = None
    for part in level:
        tiles: list[int | None] = []
        for number, place in enumerate(_places(part, sum(one.frames for one in level)), start=1):
            plane = plane or place.plane
            tile = _tile(part, place, number) if place.plane == plane else None
            if tile in taken:
                raise _unplaced(
                    f"frame {number} of {os.path.basename(part.path)} lies over another one"
                )
            if tile is not None:
                taken.add(tile)
            tiles.append(tile)
        found.append(tiles)
    return found


def _unplaced(said: str) -> ConversionError:
    return ConversionError("unsupported_format", said)


def _tile(part: Part, place: _Place, number: int) -> int:
    (width, height), (wide, tall) = part.size, part.tile
    between = place.column % wide or place.row % tall
    if between or not 0 <= place.column < width or not 0 <= place.row < height:
        raise _unplaced(
            f"frame {number} of {os.path.basename(part.path)} lies at {place.column}, {place.row}, and not where "
            f"a tile of {wide} x {tall} pixels begins"
        )
    return place.row // tall * -(-width // wide) + place.column // wide


def _places(part: Part, of_all: int) -> Iterator[_Place]:
    """What the header of a file states of each of its frames."""
    import pydicom

    tags = ["PerFrameFunctionalGroupsSequence"]
    try:
        header: Any = pydicom.dcmread(part.path, stop_before_pixels=True, specific_tags=tags)
        listed = header.PerFrameFunctionalGroupsSequence
        if len(listed) == of_all > part.frames:
            # Some list the frames of the whole concatenation in each of its files.
            listed = listed[part.first_frame : part.first_frame + part.frames]
        if len(listed) != part.frames:
            raise _unplaced(
                f"{os.path.basename(part.path)} states {len(listed)} places for {part.frames} frames"
            )
        yield from [_place(one) for one in listed]
    except ConversionError:
        raise
    except Exception as error:  # no matter what it raises, the places are not known
        raise _unplaced(
            f"{os.path.basename(part.path)} does not state where its frames lie"
        ) from error


def _place(group: Any) -> _Place:
    where = group.PlanePositionSlideSequence[0]
    light = group.get("OpticalPathIdentificationSequence")
    return _Place(
        column=int(where.ColumnPositionInTotalImagePixelMatrix) - 1,
        row=int(where.RowPositionInTotalImagePixelMatrix) - 1,
        plane=(
            str(where.get("ZOffsetInSlideCoordinateSystem", "")),
            str(light[0].get("OpticalPathIdentifier", "")) if light else "",
        ),
    )
