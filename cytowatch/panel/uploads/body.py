"""The body of a request: written as it comes, with its checksum, and never more than was announced."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from cytowatch import durable
from cytowatch.panel.uploads.store import Found, Store

__all__ = ["HASHES", "VERSION", "Body", "no_room", "refusal"]

VERSION = "1.0.0"
HASHES: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "sha1": hashlib.sha1}
#: A client that sends nothing for so long is let go; what it sent stays.
_PATIENCE_S = 60.0
#: How much is collected before it is written.
_PART_BYTES = 1 << 20


def no_room(error: OSError) -> HTTPException:
    """An error of the disk, in words."""
    said = error.strerror or str(error)
    return refusal(507 if durable.is_full(error) else 500, f"The disk refuses it: {said}.")


def refusal(code: int, why: str, *, offset: int | None = None) -> HTTPException:
    headers = {"Tus-Resumable": VERSION}
    if offset is not None:
        headers["Upload-Offset"] = str(offset)
    return HTTPException(code, why, headers)


class Body:
    """Guards that nothing beyond the announced size is taken, and that a wrong checksum leaves nothing behind."""

    def __init__(self, request: Request, found: Found, offset: int) -> None:
        self._request = request
        self._left = found.announced.size - offset
        self._begin = offset
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
        if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > self._left:
            raise self._beyond()

    def _beyond(self) -> HTTPException:
        return refusal(413, f"Only {self._left:,} bytes are missing: nothing of more is kept.")

    async def into(self, store: Store, descriptor: int) -> int:
        """Write the body; gives the offset behind it."""
        at, broken = self._begin, False
        try:
            async for part in self._parts():
                if len(part) > self._left - (at - self._begin):
                    await self._undo(descriptor)
                    raise self._beyond()
                await run_in_threadpool(self._write, store, descriptor, part)
                at += len(part)
        except (ClientDisconnect, TimeoutError):
            broken = True
        if self._hasher and (
            broken or not hmac.compare_digest(self._hasher.digest(), self._wanted)
        ):
            await self._undo(descriptor)
            if not broken:
                raise refusal(460, "The bytes do not match their checksum: send them again.")
            at = self._begin
        await run_in_threadpool(store.keep, descriptor)
        if broken:
            raise refusal(408, "The bytes stopped coming: go on from where they ended.")
        return at

    def _write(self, store: Store, descriptor: int, part: bytes) -> None:
        if self._hasher:
            self._hasher.update(part)
        store.write(descriptor, part)

    async def _undo(self, descriptor: int) -> None:
        await run_in_threadpool(os.ftruncate, descriptor, self._begin)

    async def _parts(self) -> AsyncIterator[bytes]:
        """The body in parts of about a MiB; what came is given before a break is raised."""
        held = bytearray()
        stream = self._request.stream()
        try:
            while True:
                async with asyncio.timeout(_PATIENCE_S):
                    held += await anext(stream)
                if len(held) >= _PART_BYTES:
                    yield bytes(held)
                    held.clear()
        except StopAsyncIteration:
            yield bytes(held)
        except (ClientDisconnect, TimeoutError):
            yield bytes(held)
            raise
