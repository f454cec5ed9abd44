"""What makes two drops the same: the hashes of all their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cytowatch.record.entries import FileEntry

__all__ = ["content_key"]


def content_key(files: Iterable[FileEntry]) -> str | None:
    """A key that is equal for equal drops: the hash of a file, or a hash of all the hashes of a set.

    Sidecars count, because an image with new annotations must not be dropped as a duplicate. None while a hash is unknown.
    """
    hashes = [file["sha256"] for file in files if file["role"] in ("source", "sidecar")]
    if not hashes or None in hashes:
        return None
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(sorted(h for h in hashes if h)).encode()).hexdigest()
