"""Which content a user has deployed already: a cache beside the tree, rebuilt from its manifests.

Source: docs/decisions/010-duplicates.md
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cytowatch.manifest import FileEntry, Manifest
from cytowatch.status import Status

__all__ = ["Index", "content_key"]

_SCHEMA = """
CREATE TABLE content (user TEXT, key TEXT, id TEXT, PRIMARY KEY (user, key, id)) WITHOUT ROWID;
"""
_HELD = frozenset({Status.DEPLOYED.name, Status.CONVERTED.name, Status.EXTRACTED.name})


def content_key(files: Iterable[FileEntry]) -> str | None:
    """What is equal for equal sources: the hash of one file, or of all the hashes of a set.

    None while a hash is not known.
    """
    hashes = [file["sha256"] for file in files if file["role"] == "source"]
    if not hashes or None in hashes:
        return None
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(sorted(h for h in hashes if h)).encode()).hexdigest()


class Index:
    """Guards one SQLite file that may be deleted at any time; safe from any thread."""

    def __init__(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            path.unlink()
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # Whatever is lost with it is in the manifests.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)

    def add(self, found: Manifest) -> None:
        """Take note of an uploaded file that is in storage; any other is passed over."""
        key = content_key(found["files"]) or found["sha256"]
        if found["status"] in _HELD and key is not None and found["duplicate_of"] is None:
            with self._lock:
                self._database.execute(
                    "INSERT OR IGNORE INTO content VALUES (?, ?, ?)",
                    (found["user"], key, found["id"]),
                )

    def first(self, user: str, key: str) -> str | None:
        """The id of the first uploaded file of `user` with that content."""
        with self._lock:
            row = self._database.execute(
                "SELECT min(id) FROM content WHERE user = ? AND key = ?", (user, key)
            ).fetchone()
        found: str | None = row[0]
        return found

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
