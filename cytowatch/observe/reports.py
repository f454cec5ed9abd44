"""``state/reports/``: what a defect left behind, for whoever mends it; never in the log itself."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path

__all__ = ["keep"]

#: The oldest ones go: a defect that shows itself at every slide must not fill the disk.
_MOST = 100


def keep(directory: Path, about: str, text: str, *, now: datetime) -> str | None:
    """Write `text` to a file of its own below `directory` and give its path.

    Parameters
    ----------
    about
        The id of the uploaded file, or a word; it is a part of the file's name.

    Returns
    -------
    str or None
        None if it cannot be written, on a full disk for example: that is no second error.
    """
    path = directory / f"{now:%Y%m%d-%H%M%S}-{about}.txt"
    try:
        directory.mkdir(mode=0o750, exist_ok=True)
        path.write_text(text, errors="backslashreplace")
        for old in sorted(directory.iterdir())[:-_MOST]:
            with suppress(OSError):
                old.unlink()
    except OSError:
        return None
    return str(path)
