"""The SHA-256 of a file's content: the only place that computes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

__all__ = ["sha256"]

_CHUNK_BYTES = 1 << 20


def sha256(
    read: Callable[[int], bytes],
    seen: Callable[[bytes], object] = lambda _chunk: None,
    *,
    chunk_bytes: int = _CHUNK_BYTES,
) -> str:
    """The SHA-256, in hexadecimal, of everything that `read` returns until it returns nothing.

    `seen` is called with each chunk, in order; anything that it raises ends the reading.

    >>> import io
    >>> sha256(io.BytesIO(b"abc").read)[:16]
    'ba7816bf8f01cfea'
    """
    digest = hashlib.sha256()
    while chunk := read(chunk_bytes):
        digest.update(chunk)
        seen(chunk)
    return digest.hexdigest()
