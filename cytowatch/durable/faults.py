"""Faults of the machine: which of them pass by themselves, and their names."""

from __future__ import annotations

import errno

__all__ = ["is_full", "is_transient", "says_full", "says_no_thread", "why_of"]

#: Faults of the machine, not of the file: the work that met one waits and is tried again.
_TRANSIENT_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.EMFILE, errno.ENFILE}
)
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
#: The system's words for a full disk, which libraries quote in errors of their own.
_FULL_WORDS = ("no space left", "disk quota")
#: The words of Python, GLib and OpenMP where the machine, a container or a unit allows no further thread.
_NO_THREAD_WORDS = ("can't start new thread", "error creating thread", "thread creation failed")


def is_transient(error: OSError) -> bool:
    """Whether it is a fault of the machine that may pass, not a fault of the file."""
    return error.errno in _TRANSIENT_ERRNOS


def is_full(error: OSError) -> bool:
    """Whether the disk, or the quota on it, is full."""
    return error.errno in _FULL_ERRNOS


def says_full(text: str) -> bool:
    """Whether the error of a library says that the disk is full.

    >>> says_full("write error: No space left on device"), says_full("no such file")
    (True, False)
    """
    return any(words in text.lower() for words in _FULL_WORDS)


def says_no_thread(text: str) -> bool:
    """Whether an error says that a limit of processes is reached: they and threads are counted together.

    >>> says_no_thread("unable to call jpegsave glib: Error creating thread: Resource temporarily unavailable")
    True
    """
    return any(words in text.lower() for words in _NO_THREAD_WORDS)


def why_of(error: OSError) -> str:
    """The word for the fault of the machine that makes something wait.

    >>> why_of(OSError(errno.EDQUOT, "")), why_of(OSError(errno.EIO, ""))
    ('disk', 'input_output')
    """
    return "disk" if is_full(error) else "input_output"
