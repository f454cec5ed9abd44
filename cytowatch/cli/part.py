"""A file that a command writes for a user: under its own name only once it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["until_whole"]


@contextmanager
def until_whole(target: Path) -> Iterator[Path]:
    """Where to write what replaces `target` when it is whole; if writing it fails, nothing is left.

    Not every filesystem can rename without replacing, so a caller that must not replace looks before.
    """
    part = target.with_name(f".{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
