"""Faults of the machine: which pass by themselves, and what they are called."""

from __future__ import annotations

import errno

__all__ = ["is_full", "is_transient", "says_full", "why_of"]

#: Faults of the machine, not of the file: what met them waits and is tried again.
_TRANSIENT_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.EMFILE, errno.ENFILE}
)
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
#: The system's words for those, which libraries put into errors of their own.
_FULL_WORDS = ("no space left", "disk quota")


def is_transient(error: OSError) -> bool:
    """Whether it is a fault of the machine that may pass, and of no file."""
    return error.errno in _TRANSIENT_ERRNOS


def is_full(error: OSError) -> bool:
    """Whether the disk, or the part of it that is allowed, is full."""
    return error.errno in _FULL_ERRNOS


def says_full(text: str) -> bool:
    """Whether the error of a library says so.

    >>> says_full("write error: No space left on device"), says_full("no such file")
    (True, False)
    """
    return any(words in text.lower() for words in _FULL_WORDS)


def why_of(error: OSError) -> str:
    """The word for what a fault of the machine makes wait.

    >>> why_of(OSError(errno.EDQUOT, "")), why_of(OSError(errno.EIO, ""))
    ('disk', 'input_output')
    """
    return "disk" if is_full(error) else "input_output"
