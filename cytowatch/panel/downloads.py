"""What is downloaded: originals, pyramids and manifests, thumbnails; never shown as a page."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cytowatch.panel.context import Context
from cytowatch.record import names
from cytowatch.record.originals import originals
from cytowatch.tree import find

__all__ = ["routes"]

#: Two of them are in memory for each client that reads slowly.
_PIECE = 256 << 10
_MOST_FILES = 200_000
#: A dropped file is sent as bytes, no matter what it states.
_BYTES = "application/octet-stream"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PICTURES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png"}


def routes(context: Context) -> list[Route]:
    """The addresses that answer with a file."""

    def download(request: Request) -> Response:
        entry = context.entry(request, request.path_params["id"])
        match request.path_params["what"]:
            case "original":
                rows = [(row["path"], name) for row, name in originals(entry.manifest)]
            case "pyramid":
                rows = _pyramids(entry)
            case "manifest":
                body = json.dumps(entry.manifest, indent=1)
                return Response(
                    body,
                    media_type="application/json",
                    headers=_saved_as(f"{entry.manifest['id']}.json"),
                )
            case _:
                raise HTTPException(404)
        return _files(context, entry, rows)

    def thumbnail(request: Request) -> Response:
        return _picture(context, request, "thumbnail")

    def associated(request: Request) -> Response:
        role = request.path_params["role"]
        # They can carry a patient's name.
        if not context.panel.labels or role not in ("label", "macro"):
            raise HTTPException(404)
        return _picture(context, request, role)

    return [
        Route("/files/{id}/download/{what}", download, name="download"),
        Route("/files/{id}/thumbnail", thumbnail, name="thumbnail"),
        Route("/files/{id}/associated/{role}", associated, name="thumbnail"),
    ]


def _pyramids(entry: find.Entry) -> list[tuple[str, str]]:
    """What a viewer can open: what was derived, or the original that is deployed as it is."""
    about = entry.manifest
    derived = [
        (row["path"], row["path"].rpartition("/")[2])
        for row in about["files"]
        if row["role"] == "pyramid"
    ]
    native = about["format"] is not None and about["format"]["native"] and entry.status.is_success
    if derived or not native:
        return derived
    return [(row["path"], name) for row, name in originals(about)]


def _saved_as(name: str) -> dict[str, str]:
    """The header that makes a browser save a file under `name`, in any script (RFC 6266)."""
    safe = names.file_name(name)
    plain = safe.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    quoted = quote(safe, safe="")
    return {"Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quoted}"}


def _files(context: Context, entry: find.Entry, rows: list[tuple[str, str]]) -> Response:
    """One file as it is, with ranges; several as one zip, which is written while it is sent."""
    if not rows or len(rows) > _MOST_FILES:
        raise HTTPException(404)
    if len(rows) == 1:
        path, name = rows[0]
        headers = _saved_as(name.rpartition("/")[2])
        return FileResponse(context.file_of(entry, path), media_type=_BYTES, headers=headers)
    found = [(context.file_of(entry, path), name) for path, name in rows]
    stem = entry.manifest["name"].rpartition(".")[0] or entry.manifest["name"]
    return _Zip(found, _saved_as(f"{stem}.zip"))


class _Zip(StreamingResponse):
    """Guards that its files are closed when a client goes away in the middle."""

    def __init__(self, files: list[tuple[Path, str]], headers: dict[str, str]) -> None:
        self._parts = _zipped(files)
        super().__init__(self._parts, media_type="application/zip", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; to a client that asks for the head only, nothing is read."""
        if scope["method"] == "HEAD":
            head = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **head})
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._parts.close()


class _Sink:
    """Guards the bytes of a zip between being written and being sent."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep `data` until it is taken."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def take(self) -> bytes:
        """All that was written since the last time."""
        found, self._parts = b"".join(self._parts), []
        return found


def _zipped(files: list[tuple[Path, str]]) -> Generator[bytes, None, None]:
    sink = _Sink()
    # Slides are packed already, so nothing is packed again.
    with zipfile.ZipFile(cast("IO[bytes]", sink), "w", zipfile.ZIP_STORED) as archive:
        for path, name in files:
            about = zipfile.ZipInfo(names.printable(name))
            about.file_size = path.stat().st_size
            with archive.open(about, "w", force_zip64=True) as target, path.open("rb") as source:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    yield sink.take()
                if source.tell() != about.file_size:
                    # The download is broken off, so that nobody takes it for whole.
                    raise OSError(f"{path.name} has changed while it was sent")
    yield sink.take()


def _picture(context: Context, request: Request, role: str) -> Response:
    entry = context.entry(request, request.path_params["id"])
    for row in entry.manifest["files"]:
        kind = _PICTURES.get(row["path"].rpartition(".")[2].lower())
        if row["role"] != role or kind is None:
            continue
        headers = {"Cache-Control": "private, max-age=86400"}
        # A manifest that somebody has edited holds anything, and a header does not.
        if row["sha256"] and _SHA256.fullmatch(row["sha256"]):
            headers["ETag"] = f'"{row["sha256"]}"'
            if headers["ETag"] in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
        return FileResponse(context.file_of(entry, row["path"]), media_type=kind, headers=headers)
    raise HTTPException(404)
