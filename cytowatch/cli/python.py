"""Whether the owner of the tree can read the Python that runs this command, and what is installed in it.

Root installs it, and the service runs as a user of its own, who cannot see below ``/root``.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import cytowatch

__all__ = ["advice", "complaint", "is_at_home", "parts", "unreadable"]

_HOMES = ("/root", "/home", "/run/user")
#: What a service needs of a folder of packages, by the names in it.
_PACKAGES = (
    "cytowatch", "watchdog", "pyvips", "tifffile", "openslide", "numpy", "imagecodecs", "PIL",
    "pydicom", "structlog", "tomli", "prometheus_client", "typer", "rich",
)  # fmt: skip

#: Why the user for whom this process acts cannot read it.
complaint: str | None = None


def parts() -> list[str]:
    """What of this Python is needed: the program, its library, the packages; as the caller sees them."""
    here = None
    with suppress(OSError):
        # It may have been removed.
        here = os.getcwd()
    folders = [path for path in sys.path if os.path.isabs(path) and path != here]
    packages = [os.path.join(folder, name) for folder in folders for name in _PACKAGES]
    own = os.fspath(Path(cytowatch.__file__).parent)
    found = [sys.executable, os.__file__, own, *folders, *packages]
    return [path for path in found if os.path.exists(path)]


def unreadable(needed: list[str]) -> str | None:
    """The first of `needed` that this process may not read; None if there is none."""
    for path in needed:
        wanted = os.R_OK | (os.X_OK if path == sys.executable else 0)
        if not os.access(path, wanted):
            return path
        if os.path.isdir(path) and not os.access(path, os.X_OK):
            return path
    return None


def is_at_home(needed: list[str]) -> str | None:
    """The first of `needed` that lies in a home directory, which the hardened unit hides."""
    return next(
        (path for path in needed if os.path.realpath(path).startswith(tuple(f"{h}/" for h in _HOMES))),
        None,
    )  # fmt: skip


def advice(user: str, path: str) -> str:
    """What to do when `user` cannot read `path`, in words; it is kept for anything that fails later."""
    global complaint  # noqa: PLW0603 - a process becomes another user once
    complaint = (
        f"{user}, who owns the tree, cannot read the Python that runs cytowatch: install cytowatch "
        "where every user can read it, with a Python such as /usr/bin/python3 "
        f"(/usr/bin/python3 -m venv /opt/cytowatch, with umask 022). It is {path}"
    )
    return complaint
