"""What every command and the daemon are started with: streams that are open and take any letter, names as UTF-8."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["prepare", "read_names_as_utf8"]


def read_names_as_utf8() -> None:
    """Start again in Python's UTF-8 mode, in this process, if the locale has another encoding.

    Names of files are bytes, and those that clients of a share write are UTF-8. In the locale of an old shell
    (``de_DE.ISO-8859-1``, ``ja_JP.eucJP``) Python would take them for other letters, and write notes and
    directories under names that no client can read. Text on the terminal keeps the locale's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


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
