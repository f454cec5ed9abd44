"""What every answer of the protocol states, and how a refusal of it looks.

Source: https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cytowatch import durable
from cytowatch.panel.uploads.found import Found
from cytowatch.panel.uploads.rules import check_once

__all__ = [
    "VERSION", "abilities", "answered", "check_version", "expires", "marked", "no_room", "refusal",
]  # fmt: skip

VERSION = "1.0.0"
Handler = Callable[[Request], Awaitable[Response]]


def no_room(error: OSError) -> HTTPException:
    """An error of the disk, in words."""
    said = error.strerror or str(error)
    return refusal(507 if durable.is_full(error) else 500, f"The disk refuses it: {said}.")


def refusal(code: int, why: str, *, offset: int | None = None) -> HTTPException:
    headers = {"Tus-Resumable": VERSION}
    if offset is not None:
        headers["Upload-Offset"] = str(offset)
    return HTTPException(code, why, headers)


def marked(handler: Handler) -> Handler:
    """`handler`, whose refusals state the version of the protocol as its answers do."""

    async def found(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException as error:
            error.headers = {"Tus-Resumable": VERSION, **(error.headers or {})}
            raise

    return found


def check_version(request: Request) -> None:
    """Refuse another version of the protocol, and what is stated twice."""
    check_once(request.headers)
    if request.headers.get("tus-resumable") != VERSION:
        raise HTTPException(412, f"Send Tus-Resumable: {VERSION}.", {"Tus-Version": VERSION})


def abilities(most_bytes: int, hashes: Iterable[str]) -> Response:
    """What this server can do."""
    return answered(
        204,
        {
            "Tus-Version": VERSION,
            "Tus-Extension": "creation,creation-with-upload,termination,expiration,checksum",
            "Tus-Max-Size": str(most_bytes),
            "Tus-Checksum-Algorithm": ",".join(hashes),
        },
    )


def expires(found: Found) -> str:
    """When an upload ends, as a header says it."""
    return formatdate(found.ends_at, usegmt=True)


def answered(code: int, headers: dict[str, str]) -> Response:
    """An answer without a body."""
    return Response(status_code=code, headers={"Tus-Resumable": VERSION, **headers})
