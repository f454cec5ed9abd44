"""``inbox/.uploads/.room.json``: what uploads through the panel may still write, so that no stage takes their room.

The panel writes it and goes on writing it while there is anything; the daemon believes one that is fresh.
So a panel that is not running holds up nobody.
"""

from __future__ import annotations

import time
from pathlib import Path

from cytowatch import durable, outside
from cytowatch.outside import OutsideError

__all__ = ["AGAIN_S", "FILE_NAME", "read", "write"]

FILE_NAME = ".room.json"
#: The panel writes it again at least so often while anything is announced.
AGAIN_S = 60.0
_FRESH_S = 5 * AGAIN_S


def write(inbox: Path, size_bytes: int) -> None:
    """State that uploads may still write `size_bytes`.

    Raises
    ------
    OSError
        It cannot be written.
    """
    durable.replace_file(inbox / ".uploads" / FILE_NAME, f'{{"bytes": {size_bytes}}}\n')


def read(inbox: Path, now: float | None = None) -> int:
    """How many bytes uploads may still write; 0 where no panel states it now."""
    path = inbox / ".uploads" / FILE_NAME
    try:
        age_s = (time.time() if now is None else now) - path.lstat().st_mtime
        # A clock that was set back makes it seem to come from the future.
        if abs(age_s) > _FRESH_S:
            return 0
        found = outside.read_json(path)
        return int(outside.number(found.get("bytes"), least=0, most=outside.LARGEST))
    except (OSError, OutsideError):
        return 0
