"""What is being uploaded now, for the first page and ``/api/v1/uploads``: one row per file or folder that its sender has not completed."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

from cytowatch.panel.uploads.found import Found, latest
from cytowatch.panel.uploads.store import Store, owner_key

__all__ = ["Moving", "moving"]

#: At most this many unfinished files of one folder are looked at.
_MOST_MEMBERS = 20
#: A sender from which nothing has come for this long has paused, or is gone.
_QUIET_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """One upload; `share` is the part of it that is here, `quiet_s` how long nothing came, None while bytes come.

    `since` and `last_at` are seconds since 1970. The bytes of a folder are None, because nobody announces their sum.
    """

    key: str
    name: str
    user: str
    project: str
    share: float
    received_bytes: int | None
    size_bytes: int | None
    files: int
    whole_files: int
    since: float
    last_at: float
    quiet_s: float | None


def moving(store: Store, owner: str | None, most: int, skip: int = 0) -> tuple[list[Moving], int]:
    """The newest `most` of `owner`, or of everyone, after `skip` of them, and how many more there are.

    Only these are looked up on the disk, however many there are.
    """
    begins = owner_key(owner) if owner is not None else ""
    folders = store.ledger.newest(begins)
    shown = []
    for folder, tokens in list(folders.items())[skip : skip + most]:
        found = [one for one in map(store.at, tokens[:_MOST_MEMBERS]) if one is not None]
        if found:
            shown.append(_row(folder, found))
    return shown, max(0, len(folders) - skip - most)


def _row(folder: str, found: list[Found]) -> Moving:
    first = found[0]
    files, whole = first.announced.files, 0
    with suppress(OSError):
        whole = len(os.listdir(first.home / "done"))
    parts = sum(one.offset / max(1, one.announced.size) for one in found)
    last_at = latest([one.bytes_at for one in found])
    quiet_s = time.time() - last_at
    single = files == 1
    return Moving(
        key=folder,
        name=first.announced.top,
        user=first.announced.user,
        project=first.announced.project,
        share=min(1.0, (whole + parts) / files),
        received_bytes=first.offset if single else None,
        size_bytes=first.announced.size if single else None,
        files=files,
        whole_files=whole,
        since=min(one.began_at for one in found),
        last_at=last_at,
        quiet_s=quiet_s if quiet_s >= _QUIET_S else None,
    )
