"""Originals that were handed back: the text beside each in ``_returned/``, and its note on the share.

The text is kept in the inbox, where its user may change or delete it: then the note changes, or goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cytowatch import aside, durable, outside
from cytowatch.observe import wording
from cytowatch.observe.feedback import Note
from cytowatch.observe.seen import Seen
from cytowatch.outside import OutsideError
from cytowatch.record.names import decode

__all__ = ["ENDING", "FOLDER", "notes", "why"]

FOLDER = "_returned"
ENDING = ".why.txt"
_LONGEST_BYTES = 64 << 10
_MOST = 200


def why(one: Seen) -> str:
    """What is written beside an original that is handed back."""
    return wording.text(
        [
            f"The administrator returned this file: it is in the folder {FOLDER} of the inbox. It was dropped as {one.path} on {wording.dropped(one)}.",
            "",
            *wording.of_error(one, None, kept="Nothing of it is kept elsewhere: this is the file that you sent."),
            "",
            f"Delete this text, and the note on the status share goes as well. id: {one.id}",
        ]
    )  # fmt: skip


def notes(inbox: Path, *, since: datetime) -> Iterator[tuple[str, Note]]:
    """The note of each original that was handed back after `since` and whose text is still there."""
    for user in sorted(os.listdir(inbox)):
        found: list[tuple[str, Note]] = []
        # There may be no such folder, or its user put something else there.
        which = f"{user}/{FOLDER}"
        with (
            aside.fence("note", which, clears=False),
            suppress(OSError),
            durable.beneath(inbox, which) as at,
        ):
            found += _of_user(at, user, since)
        yield from found


def _of_user(at: int, user: str, since: datetime) -> Iterator[tuple[str, Note]]:
    there = [name for name in os.listdir(at) if name.endswith(ENDING)]
    times = {name: os.stat(name, dir_fd=at, follow_symlinks=False).st_mtime for name in there}
    for name in sorted(there, key=lambda name: -times[name])[:_MOST]:
        if times[name] < since.timestamp():
            return
        with suppress(OSError, OutsideError):
            text = outside.read_file(name, most_bytes=_LONGEST_BYTES, at=at)
            shown = decode(os.fsencode(name.removesuffix(ENDING)))[0]
            yield (
                f"{user}/{FOLDER}/{shown}",
                Note(
                    user=user,
                    about=shown,
                    says="RETURNED",
                    text=text.decode("utf-8", "replace"),
                    first=True,
                ),
            )
