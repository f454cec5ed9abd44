"""What a browser or a program sends: it must be small, come soon, and is checked before anything is done with it."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from cytowatch import outside
from cytowatch.outside import OutsideError

__all__ = ["back_to", "read", "text"]

_MOST_BYTES = 64 << 10
_PATIENCE_S = 10.0
_MOST_FIELDS = 50


async def read(request: Request) -> dict[str, str]:
    """The fields of a form, or of a JSON object of texts.

    Raises
    ------
    HTTPException
        408: it does not come; 413: it is too large; 400: it cannot be read.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S):
            body = await _body(request)
    except TimeoutError:
        raise HTTPException(408, "The request was not completed.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The request broke off.") from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            found = outside.parse_json(body) if body else {}
            if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
                raise HTTPException(400, "Expected a JSON object of texts.")
            return found
        if kind == "application/x-www-form-urlencoded" or not body:
            return dict(
                parse_qsl(
                    body.decode(),
                    max_num_fields=_MOST_FIELDS,
                    keep_blank_values=True,
                    errors="strict",
                )
            )
    except (ValueError, OutsideError):
        raise HTTPException(400, "This cannot be read.") from None
    raise HTTPException(415, "Send a form or a JSON object.")


async def _body(request: Request) -> bytes:
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > _MOST_BYTES:
            raise HTTPException(413, "The request is too large.")
    return bytes(found)


def text(value: str | None, most: int = 200) -> str:
    """A parameter as a text: cut, without blanks around it; what cannot be encoded is replaced.

    >>> text("  a\\0b "), text(None)
    ('ab', '')
    """
    return (value or "")[:most].replace("\0", "").encode("utf-8", "replace").decode().strip()


def back_to(wanted: str) -> str:
    """`wanted` if it is an address of this panel, else the first page.

    >>> back_to("/files?a=b"), back_to("//evil.example"), back_to("https://evil.example"), back_to("/\\\\evil")
    ('/files?a=b', '/', '/', '/')
    """
    good = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if good and "\\" not in wanted else "/"
