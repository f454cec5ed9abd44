"""``/uploads``: tus 1.0 with creation, creation-with-upload, termination, expiration and checksum.

Source: https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from email.utils import formatdate
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cytowatch.observe import logs
from cytowatch.panel.context import Context, person_of
from cytowatch.panel.projects import allowed
from cytowatch.panel.uploads import publish
from cytowatch.panel.uploads.publish import NoInboxError, WrongHashError
from cytowatch.panel.uploads.rules import Announced, announced
from cytowatch.panel.uploads.seen import seen
from cytowatch.panel.uploads.store import BusyError, Found, Store
from cytowatch.panel.who import Proof, is_name
from cytowatch.record.names import printable
from cytowatch.tree.room import Amount, free, spare, too_little

__all__ = ["Uploads"]

_VERSION = "1.0.0"
_EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
_HASHES: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "sha1": hashlib.sha1}
_OFFSETS = "application/offset+octet-stream"
#: A client that sends nothing for so long is let go; what it sent stays.
_PATIENCE_S = 60.0
#: So much is collected before it is written.
_PART_BYTES = 1 << 20
_SWEEP_S = 1800.0
_FEW_INODES = 4


class Uploads:
    """Guards the uploads of one panel."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = Store(context.spool.inbox)
        self._creating = asyncio.Lock()
        self._log = logs.get()

    def routes(self) -> list[BaseRoute]:
        """The addresses of the protocol."""
        return [
            Route("/uploads", self._many, methods=["POST", "OPTIONS"], name="upload"),
            Route(
                "/uploads/{token}", self._one, methods=["HEAD", "GET", "PATCH", "DELETE", "POST"],
                name="upload",
            ),
        ]  # fmt: skip

    async def sweep(self) -> None:
        """Remove expired uploads, now and again and again."""
        while True:
            try:
                removed = await run_in_threadpool(self._store.expire)
                if removed:
                    self._log.info("uploads_expired", count=removed)
            except OSError as error:
                self._log.warning("uploads_not_expired", detail=str(error))
            await asyncio.sleep(_SWEEP_S)

    # Requests

    async def _many(self, request: Request) -> Response:
        self._check_on()
        if request.method == "OPTIONS":
            return _answer(
                204,
                {
                    "Tus-Version": _VERSION,
                    "Tus-Extension": _EXTENSIONS,
                    "Tus-Max-Size": str(self._context.panel.max_upload_bytes),
                    "Tus-Checksum-Algorithm": ",".join(_HASHES),
                },
            )
        self._check_version(request)
        found = await self._create(request)
        offset = await run_in_threadpool(lambda: found.offset)
        headers = {"Location": f"{self._context.panel.base_path}/uploads/{found.token}"}
        if request.headers.get("content-type") == _OFFSETS and not offset:
            offset = await self._append(request, found, 0)
        elif not found.announced.size:
            await self._settle(found)
        headers["Upload-Expires"] = _expires(found)
        return _answer(201, {**headers, "Upload-Offset": str(offset)})

    async def _one(self, request: Request) -> Response:
        self._check_on()
        method = request.headers.get("x-http-method-override", request.method).upper()
        owner = person_of(request).name
        token = request.path_params["token"]
        found = await run_in_threadpool(self._store.find, token, owner)
        if method == "GET":
            if found is None:
                raise HTTPException(404, "There is no such upload.")
            return JSONResponse(await run_in_threadpool(seen, self._context, request, found))
        self._check_version(request)
        if found is None:
            raise HTTPException(404, headers={"Tus-Resumable": _VERSION})
        match method:
            case "HEAD":
                return await self._head(found)
            case "PATCH":
                return await self._patch(request, found)
            case "DELETE":
                return await self._delete(found)
            case _:
                raise HTTPException(405)

    async def _head(self, found: Found) -> Response:
        await self._settle(found)
        offset = await run_in_threadpool(lambda: found.offset)
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Length": str(found.announced.size),
            "Upload-Expires": _expires(found),
        }
        return _answer(200, headers)

    async def _patch(self, request: Request, found: Found) -> Response:
        if request.headers.get("content-type") != _OFFSETS:
            raise _refusal(415, f"The bytes must be sent as {_OFFSETS}.")
        given = request.headers.get("upload-offset", "")
        if not (given.isascii() and given.isdigit() and len(given) < 20):
            raise _refusal(400, "Upload-Offset must be a number.")
        offset = await self._append(request, found, int(given))
        return _answer(204, {"Upload-Offset": str(offset), "Upload-Expires": _expires(found)})

    async def _delete(self, found: Found) -> Response:
        if await run_in_threadpool(lambda: found.drop) is not None:
            raise _refusal(409, "It is complete and on its way: nothing is left to cancel.")
        await run_in_threadpool(self._store.remove, found)
        return _answer(204, {})

    # What they do

    def _check_on(self) -> None:
        if not self._context.panel.uploads:
            raise _refusal(404, "Adding files is switched off (panel.uploads).")

    def _check_version(self, request: Request) -> None:
        if request.headers.get("tus-resumable") != _VERSION:
            raise HTTPException(412, f"Send Tus-Resumable: {_VERSION}.", {"Tus-Version": _VERSION})

    async def _create(self, request: Request) -> Found:
        config, panel = self._context.config, self._context.panel
        headers = request.headers
        if headers.get("upload-defer-length"):
            raise _refusal(400, "The size must be announced: send Upload-Length.")
        wanted = announced(
            headers.get("upload-length"), headers.get("upload-metadata", ""),
            ignore=config.inbox.ignore, most_bytes=panel.max_upload_bytes,
        )  # fmt: skip
        who = person_of(request)
        user = who.name
        if who.proof is Proof.NONE:
            user = wanted.user
            if not who.acts:
                raise _refusal(
                    403, "Nobody has to log in here, so nobody may add files: see --actions."
                )
            if not is_name(user):
                raise _refusal(400, "Name the inbox: send user in Upload-Metadata.")
        elif wanted.user and not self._context.same_user(wanted.user, user):
            raise _refusal(403, "Files go into your own inbox: leave out user.")
        if wanted.project:
            await run_in_threadpool(allowed, self._context, request, wanted.project)
        made = Announced(
            path=wanted.path, size=wanted.size, project=wanted.project, user=user,
            group=wanted.group, files=wanted.files, sha256=wanted.sha256,
        )  # fmt: skip
        async with self._creating:
            return await run_in_threadpool(self._make, made, who.name)

    def _make(self, wanted: Announced, owner: str) -> Found:
        """Check what there is room for, and make it; one at a time, so that no two count on the same room."""
        panel, config = self._context.panel, self._context.config
        if self._store.count(owner) >= panel.max_unfinished:
            raise _refusal(
                429,
                f"You have {panel.max_unfinished:,} unfinished uploads: complete or cancel some first.",
            )
        try:
            publish.check_inbox(self._store.inbox, wanted.user)
            there = free(self._store.inbox)
            lacks = too_little(
                there, Amount(bytes=wanted.size, inodes=_FEW_INODES), spare(config.storage, there),
                Amount(bytes=self._store.missing_bytes()),
            )  # fmt: skip
            if lacks:
                raise _refusal(507, f"There is no room for it: {lacks}.")
            return self._store.create(wanted, owner)
        except NoInboxError as error:
            raise _refusal(409, str(error)) from error
        except FileExistsError as error:
            raise _refusal(409, f"It cannot be added: {error}.") from error
        except NotADirectoryError as error:
            raise _refusal(409, "A file of this folder has the name of a folder in it.") from error
        except OSError as error:
            raise _no_room(error) from error

    async def _append(self, request: Request, found: Found, offset: int) -> int:
        """Add the body at `offset`; gives the new one, once it is on the disk."""
        try:
            with ExitStack() as stack:
                descriptor = await run_in_threadpool(
                    stack.enter_context, self._store.writing(found)
                )
                here = await run_in_threadpool(lambda: found.offset)
                if here != offset:
                    raise _refusal(409, f"{here:,} bytes are here: go on from there.", offset=here)
                if here < found.announced.size:
                    body = _Body(request, found, here)
                    here = await body.into(self._store, descriptor)
        except BusyError:
            raise _refusal(423, "Another client adds to this upload.") from None
        except FileNotFoundError:
            # It was published: the answer to its last bytes was lost.
            if found.drop is None or offset != found.announced.size:
                raise _refusal(410, "This upload is no longer here.") from None
            return found.announced.size
        except OSError as error:
            raise _no_room(error) from error
        # The descriptor is closed: the daemon takes nothing that somebody could still write to.
        await self._settle(found)
        return here

    async def _settle(self, found: Found) -> None:
        try:
            drop = await run_in_threadpool(publish.settle, found, self._store.inbox)
        except WrongHashError:
            raise _refusal(
                460, "The bytes are not those announced by sha256: send them again."
            ) from None
        except NoInboxError as error:
            raise _refusal(409, str(error)) from error
        except OSError as error:
            raise _no_room(error) from error
        if drop:
            self._log.debug("upload_published", path=printable(drop))


class _Body:
    """Guards that no more is taken than was announced, and that a wrong checksum leaves nothing behind."""

    def __init__(self, request: Request, found: Found, offset: int) -> None:
        self._request = request
        self._left = found.announced.size - offset
        self._begin = offset
        kind, _, wanted = request.headers.get("upload-checksum", "").partition(" ")
        self._hasher: Any = None
        self._wanted = b""
        if kind:
            if kind not in _HASHES:
                raise _refusal(400, f"The checksum must be one of {', '.join(_HASHES)}.")
            try:
                self._wanted = base64.b64decode(wanted, validate=True)
            except ValueError:
                raise _refusal(400, "The checksum is not base64.") from None
            self._hasher = _HASHES[kind]()
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._left:
            raise self._beyond()

    def _beyond(self) -> HTTPException:
        return _refusal(413, f"Only {self._left:,} bytes are missing: nothing of more is kept.")

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
                raise _refusal(460, "The bytes do not match their checksum: send them again.")
            at = self._begin
        await run_in_threadpool(store.keep, descriptor)
        if broken:
            raise _refusal(408, "The bytes stopped coming: go on from where they ended.")
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


def _expires(found: Found) -> str:
    return formatdate(found.ends_at, usegmt=True)


def _no_room(error: OSError) -> HTTPException:
    """An error of the disk, in words."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    said = error.strerror or str(error)
    return _refusal(507 if full else 500, f"The disk refuses it: {said}.")


def _refusal(code: int, why: str, *, offset: int | None = None) -> HTTPException:
    headers = {"Tus-Resumable": _VERSION}
    if offset is not None:
        headers["Upload-Offset"] = str(offset)
    return HTTPException(code, why, headers)


def _answer(code: int, headers: dict[str, str]) -> Response:
    return Response(status_code=code, headers={"Tus-Resumable": _VERSION, **headers})
