"""What went wrong, for others: a file in ``state/reports/`` for a defect, a list of what is set aside."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from cytowatch import aside
from cytowatch.record import names

__all__ = ["keep", "set_aside"]

#: The oldest ones go: a defect that shows itself at every slide must not fill the disk.
_MOST = 100
#: At most this many things that are set aside are listed one by one: the metric counts all.
_MOST_ASIDE = 100


def keep(directory: Path, about: str, text: str, *, now: datetime) -> str | None:
    """Write `text` to a file of its own below `directory` and give its path.

    Parameters
    ----------
    about
        The id of the uploaded file, or a word; it is a part of the file's name.

    Returns
    -------
    str or None
        None if it cannot be written, on a full disk for example: that is not a second error.
    """
    path = directory / f"{now:%Y%m%d-%H%M%S}-{names.slug(about)}.txt"
    try:
        directory.mkdir(mode=0o750, exist_ok=True)
        path.write_text(text, errors="backslashreplace")
        for old in sorted(directory.iterdir())[:-_MOST]:
            with suppress(OSError):
                old.unlink()
    except OSError:
        return None
    return str(path)


def set_aside() -> list[dict[str, Any]]:
    """What this process has set aside now, ready for JSON; the first of them, if there are very many."""
    return [
        {
            "where": one.where,
            "which": names.printable(one.which),
            "why": one.why,
            "tries": one.tries,
        }
        for one in aside.all_of()[:_MOST_ASIDE]
    ]
