"""The body of a request: written as it arrives, compared with its checksum, and never longer than announced."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from cytowatch.panel.straight import STATE, Straight, Use
from cytowatch.panel.threads import to_its_end, writing
from cytowatch.panel.uploads.answers import refusal
from cytowatch.panel.uploads.appending import Appending
from cytowatch.panel.uploads.found import Found
from cytowatch.panel.uploads.store import Store

__all__ = ["HASHES", "Body"]

HASHES: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "sha1": hashlib.sha1}
#: The connection to a client that sends nothing for this long is closed; the bytes that it sent stay.
_PATIENCE_S = 60.0
#: How many bytes are collected before they are written, and in how many parts at most (IOV_MAX is 1024).
_PIECE_BYTES = 1 << 20
_MOST_PARTS = 512


class Body:
    """Guards that nothing beyond the announced size is taken, and that a wrong checksum leaves nothing behind.

    Memory bound
    ------------
    At most a piece of about a MiB per request: in a `Straight`, or collected by `_parsed`, which awaits the write before
    it goes on. Without that, a client that is faster than the disk would fill the memory with its upload.
    """

    def __init__(
        self,
        request: Request,
        found: Found,
        offset: int,
        pace: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._request = request
        #: Waits as long as the user's rate demands after that number of bytes.
        self._pace = pace
        self._token, self._size = found.token, found.announced.size
        self._left = self._size - offset
        self._begin = offset
        self._taken = 0
        if request.headers.get("content-encoding", "identity") != "identity":
            raise refusal(415, "The bytes must be sent as they are, without Content-Encoding.")
        kind, _, wanted = request.headers.get("upload-checksum", "").partition(" ")
        self._hasher: Any = None
        self._wanted = b""
        if kind:
            if kind not in HASHES:
                raise refusal(400, f"The checksum must be one of {', '.join(HASHES)}.")
            try:
                self._wanted = base64.b64decode(wanted, validate=True)
            except ValueError:
                raise refusal(400, "The checksum is not base64.") from None
            self._hasher = HASHES[kind]()
        length = request.headers.get("content-length", "")
        #: The bytes that the client announced for this request; 0 if it announced none.
        self.least_bytes = 0
        if length.isascii() and length.isdigit() and len(length) < 20:
            self.least_bytes = int(length)
        if self.least_bytes > self._left:
            raise self._beyond()

    def _beyond(self) -> HTTPException:
        return refusal(
            413, f"Only {self._left:,} bytes are missing, and more were sent: none of them is kept."
        )

    async def into(self, store: Store, descriptor: int) -> int:
        """Write the body; gives the offset after it."""
        at, broken = self._begin, False
        try:
            appending = Appending(descriptor, at, self._size, store.disk)
            async with aclosing(self._turns(appending)) as turns:
                async for size in turns:
                    at += size
                    store.ledger.left(self._token, self._size - at)
                    if self._pace is not None:
                        await self._pace(size)
        except (ClientDisconnect, TimeoutError):
            broken = True
        except HTTPException:
            # More came than was announced.
            await self._undo(descriptor)
            raise
        except OSError:
            # Nobody has compared what was written of it.
            if self._hasher:
                await self._undo(descriptor)
            raise
        if self._hasher and (
            broken or not hmac.compare_digest(self._hasher.digest(), self._wanted)
        ):
            await self._undo(descriptor)
            if not broken:
                raise refusal(460, "The bytes do not match their checksum: send them again.")
            at = self._begin
        try:
            await writing(store.keep, descriptor)
        except OSError:
            # The next fsync would succeed without these bytes, so they must be sent again.
            await self._undo(descriptor)
            raise
        if broken:
            raise refusal(408, "The bytes stopped coming: go on from where they ended.")
        return at

    def _write(self, appending: Appending, parts: Sequence[bytes | memoryview]) -> None:
        self._taken += sum(map(len, parts))
        if self._taken > self._left:
            raise self._beyond()
        if self._hasher:
            for part in parts:
                self._hasher.update(part)
        appending.add(parts)

    async def _undo(self, descriptor: int) -> None:
        await writing(os.ftruncate, descriptor, self._begin)

    def _turns(self, appending: Appending) -> AsyncGenerator[int]:
        """Write the body; after each part of it, how many bytes that were. What arrived is written before an interruption is raised."""
        write = functools.partial(self._write, appending)
        take = self._request.scope["state"].get(STATE)
        straight: Straight | None = take() if take else None
        if straight is None:
            return self._parsed(write)
        at = self._begin if appending.takes_blocks else None
        return straight.turns(write, _PATIENCE_S, pieces=self._pace is not None, at=at)

    async def _parsed(self, write: Use) -> AsyncGenerator[int]:
        """A body in chunks, or one that is here already."""
        held: list[bytes] = []
        size = 0
        end: Exception | None = None
        stream = self._request.stream()
        while end is None:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    held.append(await anext(stream))
                size += len(held[-1])
            except (StopAsyncIteration, ClientDisconnect, TimeoutError) as error:
                end = error
            if size >= _PIECE_BYTES or len(held) >= _MOST_PARTS or end:
                await to_its_end(writing(write, held))
                yield size
                held, size = [], 0
        if not isinstance(end, StopAsyncIteration):
            raise end
