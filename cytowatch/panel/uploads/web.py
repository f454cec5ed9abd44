"""``/uploads``: tus 1.0 with creation, creation-with-upload, termination, expiration and checksum.

Source: https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cytowatch.observe import logs
from cytowatch.panel.context import Context, person_of
from cytowatch.panel.projects import allowed
from cytowatch.panel.threads import comparing, writing
from cytowatch.panel.uploads import publish
from cytowatch.panel.uploads.answers import (
    abilities,
    answered,
    check_version,
    expires,
    marked,
    no_room,
    refusal,
)
from cytowatch.panel.uploads.body import HASHES, Body
from cytowatch.panel.uploads.found import Found
from cytowatch.panel.uploads.moving import Moving, moving
from cytowatch.panel.uploads.pace import Pace
from cytowatch.panel.uploads.publish import NoInboxError, WrongHashError
from cytowatch.panel.uploads.reserve import Reserve
from cytowatch.panel.uploads.rules import Announced, announced
from cytowatch.panel.uploads.seen import seen
from cytowatch.panel.uploads.store import BusyError, Store
from cytowatch.panel.who import Proof, is_name
from cytowatch.record.names import printable
from cytowatch.tree.announced import Part

__all__ = ["Uploads"]

_OFFSETS = "application/offset+octet-stream"
_SWEEP_S = 1800.0
_LIVE_FOR_S = 0.25
#: A writer that has gone is noticed by then.
_LETS_GO_S = 3.0


class Uploads:
    """Guards the uploads of one panel."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._part = Part(context.spool.inbox)
        self._store = Store(context.spool.inbox, others=self._part.others)
        self._creating = asyncio.Lock()
        self._reserve = Reserve(context, self._store, self._part)
        self._pace = Pace()
        self._log = logs.get()

    def moving(
        self, request: Request, most: int, skip: int = 0, *, load: bool = False
    ) -> tuple[list[Moving], int]:
        """The uploads that the user may see, and how many more there are; `load` waits until the disk was read."""
        who = person_of(request)
        owner = None if who.sees_all else who.name
        if load:
            self._store.ledger.load()
        key = f"uploading {owner!r} {most} {skip}"
        look = functools.partial(moving, self._store, owner, most, skip)
        found: tuple[list[Moving], int] = self._context.kept(key, _LIVE_FOR_S, look, times=20)
        return found

    async def announce(self) -> None:
        """Tell the daemon again and again what uploads may still write."""
        try:
            await self._reserve.announce_always()
        finally:
            self._part.close()

    def routes(self) -> list[BaseRoute]:
        """The addresses of the protocol."""
        return [
            Route("/uploads", marked(self._many), methods=["POST", "OPTIONS"], name="upload"),
            Route(
                "/uploads/{token}", marked(self._one), methods=["HEAD", "GET", "PATCH", "DELETE", "POST"],
                name="upload",
            ),
        ]  # fmt: skip

    async def sweep(self) -> None:
        """Publish interrupted uploads and remove expired ones, now and then periodically."""
        while True:
            try:
                for drop in await run_in_threadpool(
                    publish.publish_whole, self._store, self._marker_of
                ):
                    self._log.info("upload_published", path=printable(drop))
                removed = await run_in_threadpool(self._store.expire)
                if removed:
                    self._log.info("uploads_expired", count=removed)
                await run_in_threadpool(self._store.ledger.read_again)
            except OSError as error:
                self._log.warning("uploads_not_expired", detail=str(error))
            await asyncio.sleep(_SWEEP_S)

    # Requests

    async def _many(self, request: Request) -> Response:
        self._check_on()
        if request.method == "OPTIONS":
            return abilities(self._context.panel.max_upload_bytes, HASHES)
        check_version(request)
        found = await self._create(request)
        offset = await run_in_threadpool(lambda: found.offset)
        headers = {"Location": f"{self._context.panel.base_path}/uploads/{found.token}"}
        if request.headers.get("content-type") == _OFFSETS and not offset:
            try:
                offset = await self._append(request, found, 0)
            except HTTPException:
                await self._forget(found)
                raise
        elif not found.announced.size:
            await self._settle(found)
        headers["Upload-Expires"] = expires(found)
        return answered(201, {**headers, "Upload-Offset": str(offset)})

    async def _one(self, request: Request) -> Response:
        self._check_on()
        method = request.method
        if method == "POST":
            # Only for a POST, because the gate has checked the origin of that.
            method = request.headers.get("x-http-method-override", method).upper()
        owner = person_of(request).name
        token = request.path_params["token"]
        found = await run_in_threadpool(self._store.find, token, owner)
        if method == "GET":
            if found is None:
                raise HTTPException(404, "There is no such upload.")
            return JSONResponse(await run_in_threadpool(seen, self._context, request, found))
        check_version(request)
        if found is None:
            raise HTTPException(404, "There is no such upload.")
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
            "Upload-Expires": expires(found),
        }
        return answered(200, headers)

    async def _patch(self, request: Request, found: Found) -> Response:
        if request.headers.get("content-type") != _OFFSETS:
            raise refusal(415, f"The bytes must be sent as {_OFFSETS}.")
        given = request.headers.get("upload-offset", "")
        if not (given.isascii() and given.isdigit() and len(given) < 20):
            raise refusal(400, "Upload-Offset must be a number.")
        offset = await self._append(request, found, int(given))
        return answered(204, {"Upload-Offset": str(offset), "Upload-Expires": expires(found)})

    async def _delete(self, found: Found) -> Response:
        if await run_in_threadpool(lambda: found.drop) is not None:
            raise refusal(409, "It is complete and on its way: nothing is left to cancel.")
        end = time.monotonic() + _LETS_GO_S
        while True:
            try:
                await run_in_threadpool(self._store.remove, found)
                break
            except BusyError:
                # A client that has just broken off is noticed in a moment.
                if time.monotonic() > end:
                    raise refusal(423, "Another client adds to this upload.") from None
                await asyncio.sleep(0.1)
        return answered(204, {})

    # What they do

    async def _forget(self, found: Found) -> None:
        """Remove an upload whose address its client was not told: nobody could continue it."""
        known = bool(found.announced.group)
        if known or await run_in_threadpool(lambda: found.drop) is not None:
            return
        with suppress(BusyError, OSError):
            await run_in_threadpool(self._store.remove, found)

    def _check_on(self) -> None:
        if not self._context.panel.uploads:
            raise refusal(404, "Adding files is switched off (panel.uploads).")

    async def _create(self, request: Request) -> Found:
        config, panel = self._context.config, self._context.panel
        headers = request.headers
        if headers.get("upload-defer-length"):
            raise refusal(400, "The size must be announced: send Upload-Length.")
        if headers.get("upload-concat"):
            raise refusal(400, "Parts are not joined here: send the file in one upload.")
        wanted = announced(
            headers.get("upload-length"), headers.get("upload-metadata", ""),
            ignore=config.inbox.ignore, most_bytes=panel.max_upload_bytes,
        )  # fmt: skip
        who = person_of(request)
        user = who.name
        if who.proof is Proof.NONE:
            user = wanted.user
            if not who.acts:
                raise refusal(
                    403, "Nobody has to log in here, so nobody may add files: see --actions."
                )
            if not is_name(user):
                raise refusal(400, "Name the inbox: send user in Upload-Metadata.")
        elif wanted.user and not self._context.same_user(wanted.user, user):
            raise refusal(403, "Files go into your own inbox: leave out user.")
        marker = self._marker_of(user)
        if marker and wanted.top.endswith(marker):
            raise refusal(
                400,
                f"A name that ends in {marker} only says that another file is complete: leave it out.",
            )
        if wanted.project:
            await run_in_threadpool(allowed, self._context, request, wanted.project)
        made = Announced(
            path=wanted.path, size=wanted.size, project=wanted.project, user=user,
            group=wanted.group, files=wanted.files, sha256=wanted.sha256,
        )  # fmt: skip
        async with self._creating:
            return await run_in_threadpool(self._make, made, who.name)

    def _make(self, wanted: Announced, owner: str) -> Found:
        """Check the room and begin the upload; one at a time, so that no two count on the same room."""
        try:
            if (known := self._store.known(wanted, owner)) is not None:
                return known
            publish.check_inbox(self._store.inbox, wanted.user)
            why = self._lacks(wanted, owner)
            # Uploads that somebody else removed no longer count.
            if why and self._store.ledger.read_again():
                why = self._lacks(wanted, owner)
            if why:
                raise refusal(*why)
            made = self._store.create(wanted, owner)
            # Before the client is promised this room, the daemon learns that it is taken.
            with suppress(OSError):
                self._reserve.announce()
            return made
        except NoInboxError as error:
            raise refusal(409, str(error)) from error
        except FileExistsError as error:
            raise refusal(409, f"It cannot be added: {error}.") from error
        except (NotADirectoryError, IsADirectoryError) as error:
            raise refusal(409, "A file of this folder has the name of a folder in it.") from error
        except OSError as error:
            raise no_room(error) from error

    def _lacks(self, wanted: Announced, owner: str) -> tuple[int, str] | None:
        """Why no further upload can begin now; None if one can."""
        panel, ledger = self._context.panel, self._store.ledger
        if self._store.count(owner) >= panel.max_unfinished:
            return 429, (
                f"You have {panel.max_unfinished:,} unfinished uploads: complete or cancel some first."
            )
        lacks = self._reserve.lacks(wanted.size, beside_bytes=ledger.missing_bytes())
        return (507, lacks) if lacks else None

    async def _append(self, request: Request, found: Found, offset: int) -> int:
        """Add the body at `offset`; gives the new offset once the bytes are on the disk."""
        try:
            with ExitStack() as stack:
                descriptor = await run_in_threadpool(
                    stack.enter_context, self._store.writing(found)
                )
                here = await run_in_threadpool(lambda: found.offset)
                if here != offset:
                    raise refusal(409, f"{here:,} bytes are here: go on from there.", offset=here)
                if here < found.announced.size:
                    body = Body(request, found, here, self._pace_of(found))
                    # The room was reserved, but others may have filled it since.
                    if lacks := await run_in_threadpool(self._reserve.lacks, body.least_bytes):
                        raise refusal(507, lacks)
                    here = await body.into(self._store, descriptor)
        except BusyError:
            raise refusal(423, "Another client adds to this upload.") from None
        except FileNotFoundError:
            # It was published, by this client, whose last answer was lost, or by another one.
            if await run_in_threadpool(lambda: found.drop) is None:
                raise refusal(410, "This upload is no longer here.") from None
            whole = found.announced.size
            if offset != whole:
                said = f"All {whole:,} bytes are here."
                raise refusal(409, said, offset=whole) from None
            return found.announced.size
        except OSError as error:
            raise no_room(error) from error
        # The descriptor is closed by now, so nobody can still write to what the daemon takes.
        await self._settle(found)
        return here

    def _pace_of(self, found: Found) -> Callable[[int], Awaitable[None]] | None:
        rate = self._context.panel.upload_bytes_per_s
        user = found.token.partition("-")[0]
        return (lambda size: self._pace.passed(user, size, rate)) if rate else None

    async def _settle(self, found: Found) -> None:
        try:
            in_thread = comparing if found.announced.sha256 else writing
            drop = await in_thread(self._settled, found)
        except WrongHashError:
            raise refusal(
                460, "The bytes are not those announced by sha256: send them again."
            ) from None
        except NoInboxError as error:
            raise refusal(409, str(error)) from error
        except OSError as error:
            raise no_room(error) from error
        if drop:
            self._log.info("upload_published", path=printable(drop))

    def _marker_of(self, user: str) -> str:
        return self._context.config.inbox.of(user).done_marker

    def _settled(self, found: Found) -> str | None:
        try:
            marker = self._marker_of(found.announced.user)
            return publish.settle(found, self._store.inbox, marker)
        finally:
            if found.is_whole:
                self._store.ledger.end(found.token)
            else:
                self._store.ledger.left(found.token, found.announced.size - found.offset)
