"""A client of the panel's uploads on the standard library: it asks where a file ended, and goes on from there.

Nothing is noted here: the server finds an upload by its `group`, which is the same for the same files.

Source: https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cytowatch import durable
from cytowatch.record import names

__all__ = ["Item", "Part", "SendError", "Server", "item_of"]

_VERSION = "1.0.0"
_PATCH_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
_PATIENCE_S = 120.0
#: How many requests in a row may fail before it gives up, with longer and longer pauses.
_TRIES = 8
_LONGEST_PAUSE_S = 15.0
#: Answers after which another try can help.
_AGAIN = frozenset({408, 409, 423, 500, 502, 503, 504})


class SendError(Exception):
    """Something cannot be sent; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of what is sent, and its path below the inbox."""

    file: Path
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or a folder: what becomes one drop."""

    name: str
    group: str
    parts: tuple[Part, ...]
    skipped: tuple[str, ...]

    @property
    def size(self) -> int:
        """All its bytes."""
        return sum(part.size for part in self.parts)


def item_of(path: Path) -> Item:
    """What is at `path`, with the hash of each file.

    Raises
    ------
    SendError
        Nothing there can be sent.
    """
    path = path.absolute()
    found: list[Part] = []
    skipped: list[str] = []
    mark = hashlib.sha256()
    try:
        for file in _files(path, skipped):
            known = os.stat(file)
            shown = str(file.relative_to(path.parent))
            part = Part(file=file, path=shown, size=known.st_size, sha256=_hash(file))
            mark.update(
                f"{file}\0{part.size}\0{known.st_mtime_ns}\0{part.sha256}\0".encode(
                    "utf-8", "replace"
                )
            )
            found.append(part)
    except OSError as error:
        raise SendError(error.strerror or str(error)) from error
    if not found:
        raise SendError("there is no file to send")
    return Item(
        name=path.name, group=mark.hexdigest()[:32], parts=tuple(found), skipped=tuple(skipped)
    )


def _files(path: Path, skipped: list[str]) -> Iterator[Path]:
    """The regular files of a folder, in order, without links and the temporary files of others."""
    if not path.is_dir():
        yield path
        return
    for at, folders, files in durable.walk(path):
        folders.sort()
        for name in folders:
            # One that is passed over would make a folder that is not whole look as if it were.
            if not os.access(Path(at, name), os.R_OK | os.X_OK):
                raise PermissionError(errno.EACCES, f"{name} in it cannot be read")
        for name in sorted(files):
            file = Path(at, name)
            if names.ignored(name, ()) or not stat.S_ISREG(os.lstat(file).st_mode):
                skipped.append(str(file.relative_to(path.parent)))
            else:
                yield file


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return durable.sha256(opened.read)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def why(self) -> str:
        """What the server says is wrong."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return f"the server answers {self.code}"


class Server:
    """Guards one address: each request has a connection of its own, so several threads may ask."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SendError(
                f"{url}: give the address of a panel, such as https://slides.lab.example"
            )
        self._parts = parts
        self._base = parts.path.rstrip("/")
        self._token = token

    def send(
        self, item: Item, part: Part, more: dict[str, str], sent: Callable[[int], None]
    ) -> str:
        """Send one file; gives the address of its upload once the server has every byte.

        `sent` is called with the number of bytes that are there.

        Raises
        ------
        SendError
            The server refuses it, or does not answer for long.
        """
        pairs = {
            "filename": part.file.name, "relativePath": part.path, "sha256": part.sha256,
            "group": item.group, "groupFiles": str(len(item.parts)), **more,
        }  # fmt: skip
        metadata = ",".join(
            f"{key} {base64.b64encode(value.encode('utf-8', 'replace')).decode()}"
            for key, value in pairs.items()
        )
        wanted = {"Upload-Length": str(part.size), "Upload-Metadata": metadata}
        made = self._patiently(lambda: self._ask("POST", f"{self._base}/uploads", wanted), (201,))
        at = urlsplit(made.headers["location"]).path
        offset = int(made.headers.get("upload-offset", "0"))
        tries = 0
        sent(offset)
        while offset < part.size:
            answer = self._patch(at, part, offset)
            if answer.code == 460:
                raise SendError("it changed while it was sent: send it again when it is complete")
            if answer.code not in (0, 204, *_AGAIN):
                raise SendError(answer.why)
            here = self._offset(at)
            tries = 0 if here > offset else tries + 1
            if tries == _TRIES:
                raise SendError(answer.why)
            if tries:
                _pause(tries)
            offset = here
            sent(offset)
        # The hash of the whole is compared before this is answered.
        self._offset(at)
        return at

    def _offset(self, at: str) -> int:
        """How many bytes are there; a last file is published by this question if it is not yet."""
        answer = self._patiently(lambda: self._ask("HEAD", at, {}), (200,))
        return int(answer.headers["upload-offset"])

    def seen(self, at: str) -> dict[str, Any]:
        """What became of an upload."""
        answer = self._patiently(lambda: self._ask("GET", at, {}), (200,))
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def _patiently(self, ask: Callable[[], _Answer], good: tuple[int, ...]) -> _Answer:
        for tries in range(1, _TRIES + 1):
            answer = ask()
            if answer.code in good:
                return answer
            if answer.code not in (0, *(_AGAIN - {409})) or tries == _TRIES:
                break
            _pause(tries)
        raise SendError(answer.why)

    def _ask(self, method: str, at: str, headers: dict[str, str]) -> _Answer:
        return self._request(method, at, headers, 0, lambda _connection: None)

    def _patch(self, at: str, part: Part, offset: int) -> _Answer:
        size = min(_PATCH_BYTES, part.size - offset)
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}

        def body(connection: http.client.HTTPConnection) -> None:
            left = size
            with part.file.open("rb") as file:
                file.seek(offset)
                while left and (data := file.read(min(_BLOCK_BYTES, left))):
                    connection.send(data)
                    left -= len(data)
            if left:
                raise SendError("it became shorter while it was sent")

        return self._request("PATCH", at, headers, size, body)

    def _request(
        self,
        method: str,
        at: str,
        headers: dict[str, str],
        size: int,
        body: Callable[[http.client.HTTPConnection], None],
    ) -> _Answer:
        """One request; the code is 0 if the network fails, and `why` says how."""
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=_PATIENCE_S)
        try:
            connection.putrequest(method, at)
            given = {"Tus-Resumable": _VERSION, **headers}
            if self._token:
                given["Authorization"] = f"Bearer {self._token}"
            else:
                # Without a token the panel asks that a change comes from its own address.
                given["Origin"] = f"{self._parts.scheme}://{self._parts.netloc}"
            if method in ("POST", "PATCH"):
                given["Content-Length"] = str(size)
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders()
            # A server that refuses may answer before it has everything.
            with suppress(BrokenPipeError, ConnectionResetError):
                body(connection)
            found = connection.getresponse()
            told = {name.lower(): value for name, value in found.getheaders()}
            return _Answer(code=found.status, headers=told, body=found.read())
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or error
            said = json.dumps({"error": f"no connection to {self._parts.netloc}: {why}"})
            return _Answer(code=0, headers={}, body=said.encode())
        finally:
            connection.close()


def _pause(tries: int) -> None:
    time.sleep(min(_LONGEST_PAUSE_S, 0.25 * 2**tries))
