"""What comes from outside, checked where it comes in: files, JSON, numbers and texts of others.

A file may be a FIFO, a link, a directory or endless; JSON may be nested deeply, or hold numbers that
nothing can store and texts that nothing can write. Code behind this module need not think of it.

Source: docs/decisions/019-bulkheads.md
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

__all__ = [
    "DEPTH",
    "LARGEST",
    "SMALL_BYTES",
    "OutsideError",
    "check",
    "number",
    "parse_json",
    "printable",
    "read_file",
    "read_json",
    "regular_file",
    "text",
]

#: No document of our own is nested so deeply.
DEPTH = 32
#: No request, note or message of our own is so large.
SMALL_BYTES = 1 << 20
#: The largest whole number that the index can hold.
LARGEST = (1 << 63) - 1
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


class OutsideError(ValueError):
    """What came from outside cannot be used; the message says why, in words."""


def read_file(
    path: str | bytes | Path, *, most_bytes: int, at: int | None = None, follow: bool = False
) -> bytes:
    """The bytes of the regular file at `path`, which is neither followed nor waited for.

    Parameters
    ----------
    at
        A directory descriptor that a relative `path` starts from.
    follow
        Follow a link: an administrator's own file may be one.

    Raises
    ------
    OutsideError
        It is a link, a FIFO, a device or a directory, or holds more than `most_bytes`.
    OSError
        It is not there, or cannot be read.
    """
    name = os.path.basename(os.fsdecode(path))
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    flags |= 0 if follow else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, dir_fd=at)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise OutsideError(f"{printable(name)} is not a regular file") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OutsideError(f"{printable(name)} is not a regular file")
        if found.st_size > most_bytes:
            raise OutsideError(
                f"{printable(name)} has {found.st_size:,} bytes, at most {most_bytes:,} are read"
            )
        # It may grow while it is read.
        parts: list[bytes] = []
        left = most_bytes + 1
        while left and (part := os.read(descriptor, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    if not left:
        raise OutsideError(f"{printable(name)} has more than {most_bytes:,} bytes")
    return b"".join(parts)


@contextmanager
def regular_file(path: str | Path) -> Iterator[BinaryIO]:
    """The regular file at `path`, of any size, for reading without a buffer; a FIFO is not waited at.

    Raises
    ------
    OutsideError
        It is, or leads to, something else.
    OSError
        It is not there, or cannot be read.
    """
    name = printable(os.path.basename(os.fsdecode(path)))
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise OutsideError(f"{name} is not a regular file") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OutsideError(f"{name} is not a regular file")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            yield cast("BinaryIO", file)
    finally:
        os.close(descriptor)


def parse_json(data: bytes, *, depth: int = DEPTH) -> Any:
    """The document in `data`; anyone who reads `data` bounds its size.

    Raises
    ------
    OutsideError
        It is not JSON, is nested more deeply than `depth`, or holds a number that is not finite or does
        not fit into 64 bits, or a text that cannot be encoded.

    >>> parse_json(b'{"progress": 0.5}')
    {'progress': 0.5}
    >>> parse_json(b'{"progress": 1e999}')
    Traceback (most recent call last):
    ...
    cytowatch.outside.OutsideError: not usable as JSON: 1e999 is not a finite number
    """
    nested = _depth(data)
    if nested > max(depth, 0) * 16:
        raise OutsideError(f"not usable as JSON: it is nested more than {depth} levels deep")
    try:
        found = json.loads(data, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except OutsideError:
        raise
    except (ValueError, RecursionError) as error:
        raise OutsideError(f"not usable as JSON: {error}") from error
    # Brackets in texts count above as well, so only what may be too deep is looked at once more.
    if nested > depth or b"\\u" in data:
        check(found, depth=depth)
    return found


def read_json(
    path: str | bytes | Path, *, most_bytes: int = SMALL_BYTES, at: int | None = None
) -> dict[str, Any]:
    """The JSON object in the regular file at `path`.

    Raises
    ------
    OutsideError
        As `read_file` and `parse_json` say; or it is not an object.
    OSError
        It is not there, or cannot be read.
    """
    found = parse_json(read_file(path, most_bytes=most_bytes, at=at))
    if not isinstance(found, dict):
        raise OutsideError("not usable: it is not a JSON object")
    return found


def number(value: object, *, least: float, most: float) -> float:
    """`value` as a finite number from `least` to `most`.

    Raises
    ------
    OutsideError
        It is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OutsideError("not a number")
    # Compared before it is converted: a huge integer has no float.
    if not least <= value <= most:
        raise OutsideError(f"not a number from {least:g} to {most:g}")
    return float(value)


def text(value: object, *, most: int = 1000) -> str:
    """`value` as a text of at most `most` characters, without anything a terminal would act on.

    >>> text("a\\x1b[2Jb"), text("x" * 50, most=10)
    ('a\\\\x1b[2Jb', 'xxxxxxxxx…')
    """
    said = value if isinstance(value, str) else type(value).__name__
    shown = printable(said[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def check(document: object, *, depth: int = DEPTH, most: int | None = LARGEST) -> None:
    """Check a document that was parsed otherwise, as `parse_json` does; by iteration, of any depth.

    Parameters
    ----------
    most
        The largest whole number; None if nothing is ever done with one but writing it again.

    Raises
    ------
    OutsideError
        It is nested more deeply than `depth`, or holds a number or a text that `parse_json` refuses.
    """
    level: list[object] = [document]
    for _ in range(depth + 1):
        below: list[object] = []
        for one in level:
            match one:
                case str():
                    _check_encodable(one)
                case dict():
                    below.extend(one)
                    below.extend(one.values())
                case list():
                    below.extend(one)
                case int():
                    _check_whole(one, most)
                case float():
                    _check_finite(one)
                case _:
                    pass
        if not below:
            return
        level = below
    raise OutsideError(f"not usable as JSON: it is nested more than {depth} levels deep")


def _depth(data: bytes) -> int:
    """How deeply `data` is nested at the most, brackets in texts counted as well."""
    deepest = now = 0
    for byte in data.translate(None, delete=_NOT_BRACKETS):
        if byte in b"[{":
            now += 1
            deepest = max(deepest, now)
        else:
            now -= 1
    return deepest


def _check_whole(value: int, most: int | None) -> None:
    if most is not None and not -most <= value <= most:
        raise OutsideError("not usable as JSON: a whole number that 64 bits cannot hold")


def _check_finite(value: float) -> None:
    if not math.isfinite(value):
        raise OutsideError("not usable as JSON: a number that is not finite")


def _check_encodable(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise OutsideError("not usable as JSON: a text in it cannot be encoded") from error


def _no_number(word: str) -> float:
    """NaN and Infinity, which Python writes and JSON does not know."""
    raise OutsideError(f"not usable as JSON: {word} is not a finite number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise OutsideError(f"not usable as JSON: {digits[:40]} is not a finite number")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -LARGEST <= (value := int(digits)) <= LARGEST:
        raise OutsideError(f"not usable as JSON: a whole number of {len(digits)} digits")
    return value


def printable(name: str) -> str:
    """`name` with everything escaped that a terminal or a log would act on.

    >>> printable("a\\nb\\u202ec.svs")
    'a\\\\nb\\\\u202ec.svs'
    """
    said = name.encode("utf-8", "replace").decode()
    if said.isprintable():
        # All but a few are: to look at each character takes sixteen times as long.
        return said
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in said
    )
