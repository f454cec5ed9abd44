"""Why the system denies a path, in words: the nearest directory or file that this process may not use, and whose it is.

After a restore, or a `chown` of a part, the path that an error names is often only below the one that is wrong.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

__all__ = ["account", "barred", "words"]


def account(uid: int) -> str:
    """The name of the account, or its number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"{uid}"


def barred(path: Path, *, write: bool = True) -> str | None:
    """What this process may not do with the file or directory at `path`, in words; None if it may use it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    needed = os.R_OK | (os.X_OK if stat.S_ISDIR(found.st_mode) else 0)
    if not os.access(path, needed, effective_ids=True):
        cannot = "read it"
    elif write and not os.access(path, os.W_OK, effective_ids=True):
        cannot = "write to it"
    else:
        return None
    return (
        f"{path} belongs to {account(found.st_uid)} (mode {stat.S_IMODE(found.st_mode):04o}): "
        f"the user {account(os.geteuid())} may not {cannot}"
    )


def words(error: PermissionError) -> str:
    """`error`, with the first path from the root of the filesystem down that explains it."""
    said = f"{error.filename}: {error.strerror}"
    if not isinstance(error.filename, str):
        return said
    # Without its links: one that leads where nobody may look is not what is wrong.
    path = Path(os.path.realpath(error.filename))
    for above in reversed(path.parents):
        if not os.access(above, os.X_OK, effective_ids=True) and (found := barred(above)):
            return found
    # It is missing, or there: the directory matters where it would be made.
    return (barred(path) if os.path.lexists(path) else barred(path.parent)) or said
