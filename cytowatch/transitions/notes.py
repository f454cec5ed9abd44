"""The notes in ``state/requests/``: work that is still to be done, and files there that cannot be used.

A note, ``<id>.hash`` or ``<id>.lighten``, is written before its uploaded file is published; it holds the
name of its user. A file that does not match its name is moved to ``state/requests/refused/``, so the daemon
reads it once, and an administrator can look at it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cytowatch import aside, durable, outside
from cytowatch.outside import OutsideError
from cytowatch.record.entries import Manifest
from cytowatch.record.names import ID_PATTERN, UploadedFileId
from cytowatch.tree import places
from cytowatch.tree.spool import Spool

__all__ = ["HASH", "REFUSED", "note_hash", "place_of", "refuse", "refused", "there"]

#: The ending of a note: the hash of the uploaded file that it names is still to be computed.
HASH = ".hash"

REFUSED = "refused"
#: The oldest ones are removed, because the program that writes them may never stop.
_MOST_REFUSED = 100
_LONGEST_NAME = 200


def there(spool: Spool, ending: str) -> Iterator[tuple[Path, UploadedFileId]]:
    """Every note with `ending`, and the id that it is about; anything else is refused."""
    # Not `glob`: this also runs while the daemon is idle, and a list takes a third of the time.
    for name in sorted(name for name in os.listdir(spool.requests) if name.endswith(ending)):
        id_ = name.removesuffix(ending)
        if ID_PATTERN.fullmatch(id_):
            yield spool.requests / name, UploadedFileId(id_)
            continue
        with aside.fence("request", name):
            refuse(spool, spool.requests / name)


def note_hash(spool: Spool, found: Manifest) -> None:
    """Note, before `found` is published, that its hash is still to be computed, if so.

    Raises
    ------
    OSError
        The note cannot be written; the step is repeated.
    """
    if any(row["sha256"] is None for row in found["files"]):
        # Otherwise, after a power cut, it would stay in storage without a hash.
        durable.write_note(spool.requests / f"{found['id']}{HASH}", found["user"])


def place_of(spool: Spool, note: Path, id_: UploadedFileId) -> Path | None:
    """Where in storage the uploaded file of `note` is; None if it is not there.

    If the note is damaged, it is still found: the folders of all users are searched.
    """
    said = ""
    try:
        said = outside.read_file(note, most_bytes=outside.SMALL_BYTES).decode()
    except FileNotFoundError:
        return None
    except (OutsideError, UnicodeDecodeError):
        pass
    return places.in_storage(spool, id_, said)


def refuse(spool: Spool, path: Path) -> Path:
    """Move `path`, no matter what it is, out of ``state/requests/``; return its new place."""
    folder = spool.requests / REFUSED
    folder.mkdir(mode=0o750, exist_ok=True)
    # Its bytes, not its characters: a name can have 255 bytes, and need not be text at all.
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])
    target = folder / f"{name}.{os.urandom(4).hex()}"
    durable.rename(path, target)
    found = sorted(os.scandir(folder), key=lambda one: one.stat(follow_symlinks=False).st_mtime_ns)
    for old in found[:-_MOST_REFUSED]:
        spool.discard(Path(old.path))
    return target


def refused(spool: Spool) -> int:
    """How many files lie there for an administrator to look at."""
    try:
        return len(os.listdir(spool.requests / REFUSED))
    except (FileNotFoundError, NotADirectoryError):
        return 0
