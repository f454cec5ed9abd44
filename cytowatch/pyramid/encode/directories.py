"""The directories of a pyramid, written behind all of its tiles.

Source: TIFF 6.0; the BigTIFF design.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from cytowatch.pyramid.copied import RGB, YCBCR
from cytowatch.pyramid.encode.settings import FULL_CHROMA, GREY, JPEG, REDUCED, Level, Settings

__all__ = ["write_directories"]


def write_directories(
    file: BinaryIO, levels: Sequence[Level], samples: int, settings: Settings
) -> None:
    """The directories, behind all tiles, and in the header where the first of them is."""
    big = settings.big
    layout = "<Q" if big else "<I"
    first = _aligned(file)
    for number in range(len(levels)):
        at = _aligned(file)
        following = number + 1 < len(levels)
        directory, extra = _directory(number, levels, samples, settings, at)
        end = at + len(directory) + struct.calcsize(layout) + len(extra)
        file.write(directory + struct.pack(layout, end + end % 2 if following else 0))
        file.write(extra)
    file.seek(0)
    file.write(
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, first)
        if big
        else struct.pack("<2sHI", b"II", 42, first)
    )


def _directory(
    number: int, levels: Sequence[Level], samples: int, settings: Settings, at: int
) -> tuple[bytes, bytes]:
    """(entries with their count, the values that do not fit into them)."""
    level = levels[number]
    big, copied = settings.big, level.copied
    long = 16 if big else 4
    tile = copied.tile if copied else (settings.tile, settings.tile)
    colours = copied.photometric if copied else _colours(samples, settings)
    tags: list[tuple[int, int, bytes, int]] = [
        _numbers(254, 4, [REDUCED if number else 0]),
        _numbers(256, 4, [level.width]),
        _numbers(257, 4, [level.height]),
        _numbers(258, 3, [8] * samples),
        _numbers(259, 3, [JPEG]),
        _numbers(262, 3, [colours]),
        _numbers(277, 3, [samples]),
        *_resolution(level, levels[0], settings),
        _numbers(284, 3, [1]),
        _numbers(296, 3, [3 if settings.per_cm else 1]),
        _numbers(322, 4, [tile[0]]),
        _numbers(323, 4, [tile[1]]),
        _numbers(324, long, level.offsets),
        _numbers(325, 4, level.counts),
    ]
    if level.tables:
        tags.append((347, 7, level.tables, len(level.tables)))
    if colours == YCBCR:
        chroma = 1 if settings.quality >= FULL_CHROMA else 2
        tags.append(_numbers(530, 3, list(copied.sampling if copied else (chroma, chroma))))
    if profile := settings.icc_profile:
        tags.append((34675, 7, profile, len(profile)))
    tags.sort(key=lambda tag: tag[0])
    inline, entry, counter = (8, "<HHQ", "<Q") if big else (4, "<HHI", "<H")
    pointer = "<Q" if big else "<I"
    size = struct.calcsize(counter) + len(tags) * (struct.calcsize(entry) + inline)
    extra_at = at + size + struct.calcsize(pointer)
    found, extra = struct.pack(counter, len(tags)), b""
    for code, kind, data, count in tags:
        found += struct.pack(entry, code, kind, count)
        if len(data) <= inline:
            found += data.ljust(inline, b"\0")
            continue
        found += struct.pack(pointer, extra_at + len(extra))
        extra += data + bytes(len(data) % 2)
    return found, extra


def _colours(samples: int, settings: Settings) -> int:
    """PhotometricInterpretation of what is encoded here."""
    if samples == 1:
        return GREY
    return YCBCR if settings.ycbcr else RGB


def _resolution(
    level: Level, first: Level, settings: Settings
) -> Iterator[tuple[int, int, bytes, int]]:
    if settings.per_cm is None:
        return
    x = settings.per_cm[0] * level.width / first.width
    y = settings.per_cm[1] * level.height / first.height
    for code, value in ((282, x), (283, y)):
        yield code, 5, struct.pack("<II", *_ratio(value)), 1


def _numbers(code: int, kind: int, values: list[int]) -> tuple[int, int, bytes, int]:
    letter = {3: "H", 4: "I", 16: "Q"}[kind]
    return code, kind, struct.pack(f"<{len(values)}{letter}", *values), len(values)


def _ratio(value: float) -> tuple[int, int]:
    """`value` as a rational of 32 bits, as exact as it can be.

    >>> _ratio(20000.0), _ratio(40080.16)
    ((4294960000, 214748), (4294949865, 107159))
    """
    down = max(1, min(0xFFFFFFFF, int(0xFFFFFFFF / max(value, 1e-9))))
    return min(0xFFFFFFFF, round(value * down)), down


def _aligned(file: BinaryIO) -> int:
    """The position, moved to an even one: a directory begins on a word."""
    if file.tell() % 2:
        file.write(b"\0")
    return file.tell()
