"""The owner of a file: at the claim the daemon becomes it, so that nobody else can open the file for writing again.

The owner of a file can open it for writing at any time, even one that was moved out of reach: a descriptor
for reading is enough, through ``/proc/self/fd``. A lease does not show that beforehand. So the claim changes owner
and mode by descriptor, before the last lease proves that no writer is left. A daemon that may not change them
(without CAP_CHOWN and CAP_FOWNER) leaves the file to its owner; a published file is then hashed once more, and compared.

Source: capabilities(7), fcntl(2), proc(5); tested with a second user.
"""

from __future__ import annotations

import fcntl
import grp
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Owner", "is_ours", "may_take", "nobody_writes", "of", "pass_on", "restore", "take"]

_CAP_CHOWN, _CAP_FOWNER = 0, 3
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The owner and mode that a file had, in case it goes back."""

    uid: int
    gid: int
    mode: int


def of(noted: Mapping[str, Any]) -> Owner | None:
    """The owner and mode in a journal; None if it has none that can be used."""
    numbers = [noted.get(key) for key in ("uid", "gid", "mode")]
    if not all(isinstance(one, int) and 0 <= one < 1 << 32 for one in numbers):
        return None
    uid, gid, mode = (int(one) for one in numbers if one is not None)
    return Owner(uid=uid, gid=gid, mode=stat.S_IMODE(mode))


def take(descriptor: int, *, group: str, mode: int) -> Owner:
    """Make the file the daemon's own where that is allowed, with `group` (if any) and `mode`; return what it had before."""
    found = os.fstat(descriptor)
    # The owner first: changing the mode of somebody else's file needs one more capability.
    with suppress(PermissionError):
        os.fchown(descriptor, os.geteuid(), -1)
    with suppress(PermissionError):
        if group:
            os.fchown(descriptor, -1, grp.getgrnam(group).gr_gid)
        os.fchmod(descriptor, mode)
    return Owner(uid=found.st_uid, gid=found.st_gid, mode=stat.S_IMODE(found.st_mode))


def restore(descriptor: int, before: Owner | None) -> None:
    """Give a file that goes back the owner, group and mode that it had."""
    if before is None:
        return
    # The mode first: once the file belongs to somebody else again, only a capability could change it.
    with suppress(PermissionError):
        os.fchmod(descriptor, before.mode)
    with suppress(PermissionError):
        os.fchown(descriptor, before.uid, before.gid)


def pass_on(descriptor: int, folder: int) -> None:
    """Give a file or folder to the owner of the `folder` that it goes into, with the rights of that folder."""
    above = os.fstat(folder)
    found = os.fstat(descriptor)
    mode = stat.S_IMODE(found.st_mode) | above.st_mode & (stat.S_IRWXU | stat.S_IRWXG)
    if not stat.S_ISDIR(found.st_mode):
        mode &= ~0o111
    with suppress(PermissionError):
        os.fchmod(descriptor, mode & 0o777)
    with suppress(PermissionError):
        os.fchown(descriptor, above.st_uid, above.st_gid)


def is_ours(found: os.stat_result) -> bool:
    """Whether only the daemon's own user can open such a file for writing."""
    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def nobody_writes(descriptor: int) -> bool:
    """Whether it is the daemon's own, and a lease proves that nobody has it open for writing.

    On a filesystem to which other machines write as well, a lease proves nothing.
    """
    if not is_ours(os.fstat(descriptor)):
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def may_take(pid: int | None = None) -> bool:
    """Whether the process `pid`, or this one, may take over the files of other users.

    Source: proc(5), ``CapEff`` in ``/proc/[pid]/status``.
    """
    text = Path(f"/proc/{pid or 'self'}/status").read_text()
    [line] = (line for line in text.splitlines() if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    return all(held >> number & 1 for number in (_CAP_CHOWN, _CAP_FOWNER))
