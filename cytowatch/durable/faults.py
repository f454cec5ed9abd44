"""Faults of the machine: which pass by themselves, and what they are called."""

from __future__ import annotations

import errno

__all__ = ["is_transient", "why_of"]

#: Faults of the machine, not of the file: what met them waits and is tried again.
_TRANSIENT_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.EMFILE, errno.ENFILE}
)


_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_transient(error: OSError) -> bool:
    """Whether it is a fault of the machine that may pass, and of no file."""
    return error.errno in _TRANSIENT_ERRNOS


def why_of(error: OSError) -> str:
    """The word for what a fault of the machine makes wait.

    >>> why_of(OSError(errno.EDQUOT, "")), why_of(OSError(errno.EIO, ""))
    ('disk', 'input_output')
    """
    return "disk" if error.errno in _FULL_ERRNOS else "input_output"
