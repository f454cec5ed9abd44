"""The three standard streams, as every command and the daemon need them: open, and able to take any letter."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["prepare"]


def prepare() -> None:
    """Open closed streams on ``/dev/null``, and write what an encoding lacks as its number.

    A closed stream (``>&-``, some supervisors) is None in Python. Its descriptor would go to the next file that
    is opened, a slide or the index, and anything that a library writes to "its standard error" would go there.
    In a locale without UTF-8, names in other scripts would end the command.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free one is taken, and those below are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "r" if descriptor == 0 else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
