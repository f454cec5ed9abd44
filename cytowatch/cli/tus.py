"""A client of the panel's uploads on the standard library: it asks where a file ended, and goes on from there.

Nothing is noted here: the server finds an upload by its `group`, which is the same for the same files.

Source: https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cytowatch.cli.parcels import CHANGED, Item, Part, SendError, pieces

__all__ = ["Server"]

_VERSION = "1.0.0"
_PATCH_BYTES = 64 << 20
_PATIENCE_S = 120.0
#: How many requests in a row may fail before it gives up, with longer and longer pauses.
_TRIES = 8
_LONGEST_PAUSE_S = 15.0
#: All bytes are there, and they are not those that were announced.
_WRONG_HASH = 460
#: Answers after which another try can help.
_AGAIN = frozenset({408, 409, 423, 500, 502, 503, 504})


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
            pass
        if self.code == _WRONG_HASH:
            return CHANGED
        if 300 <= self.code < 400:
            return f"the server leads to {self.headers.get('location', 'elsewhere')}: give the address of the panel itself"
        return f"the server answers {self.code}: is this the address of a panel?"


class Server:
    """Guards one address: each request has a connection of its own, so several threads may ask.

    Parameters
    ----------
    tell
        Called with the reason when something fails that is tried again, once until it works.
    """

    def __init__(
        self, url: str, token: str = "", *, tell: Callable[[str], None] = lambda _why: None
    ) -> None:
        try:
            parts = urlsplit(url.strip())
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise SendError(
                f"{url}: give the address of a panel, such as https://slides.lab.example"
            )
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise SendError("this is not a token: give it as `cytowatch token add` prints it")
        self._parts = parts
        self._base = parts.path.rstrip("/")
        self._token = token
        self._tell = tell
        self._told: str | None = None
        self._is_stopped = threading.Event()
        self._open: set[http.client.HTTPConnection] = set()

    def stop(self) -> None:
        """End what other threads send; each of them raises `SendError`."""
        self._is_stopped.set()
        for one in list(self._open):
            # One that is not connected yet finds out by itself.
            with suppress(OSError, AttributeError):
                one.sock.shutdown(socket.SHUT_RDWR)

    def go_on(self) -> None:
        """Raise `SendError` after `stop`."""
        if self._is_stopped.is_set():
            raise SendError("stopped: send it again to go on where it ended")

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
        at = urlsplit(made.headers.get("location", "")).path
        offset = self._number(made)
        tries = 0
        sent(offset)
        while offset < part.size:
            answer = self._patch(at, part, offset)
            if answer.code == _WRONG_HASH:
                raise SendError(CHANGED)
            if answer.code not in (0, 204, *_AGAIN):
                raise SendError(answer.why)
            here = self._offset(at)
            tries = 0 if here > offset else tries + 1
            if tries == _TRIES:
                raise SendError(answer.why)
            if tries:
                self._pause(tries, answer)
            offset = here
            sent(offset)
        # The hash of the whole is compared before this is answered.
        self._offset(at)
        return at

    def _offset(self, at: str) -> int:
        """How many bytes are there; a last file is published by this question if it is not yet."""
        try:
            return self._number(self._patiently(lambda: self._ask("HEAD", at, {}), (200,)))
        except SendError:
            # The answer to HEAD has no words: a question with an answer says what is wrong, if it is refused as well.
            self.seen(at)
            raise

    def _number(self, answer: _Answer) -> int:
        given = answer.headers.get("upload-offset", "0")
        if answer.headers.get("tus-resumable") != _VERSION or not (
            given.isascii() and given.isdigit()
        ):
            raise SendError(f"{self._parts.netloc} is not a panel: it answers in another way")
        return int(given)

    def seen(self, at: str) -> dict[str, Any]:
        """What became of an upload."""
        answer = self._patiently(lambda: self._ask("GET", at, {}), (200,))
        found = None
        with suppress(ValueError):
            found = json.loads(answer.body)
        if not isinstance(found, dict) or not {"drop", "files", "taken", "waits"} <= found.keys():
            raise SendError(f"{self._parts.netloc} is not a panel: it answers in another way")
        return found

    def _patiently(self, ask: Callable[[], _Answer], good: tuple[int, ...]) -> _Answer:
        for tries in range(1, _TRIES + 1):
            answer = ask()
            if answer.code in good:
                self._told = None
                return answer
            if answer.code not in (0, *(_AGAIN - {409})) or tries == _TRIES:
                break
            self._pause(tries, answer)
        raise SendError(answer.why)

    def _pause(self, tries: int, answer: _Answer) -> None:
        if self._told != answer.why:
            self._told = answer.why
            self._tell(f"{answer.why}; it is tried again")
        self._is_stopped.wait(min(_LONGEST_PAUSE_S, 0.25 * 2**tries))

    def _ask(self, method: str, at: str, headers: dict[str, str]) -> _Answer:
        return self._request(method, at, headers, 0, lambda _connection: None)

    def _patch(self, at: str, part: Part, offset: int) -> _Answer:
        size = min(_PATCH_BYTES, part.size - offset)
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}

        def body(connection: http.client.HTTPConnection) -> None:
            for data in pieces(part, offset, size):
                self.go_on()
                connection.send(data)

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
        self.go_on()
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=_PATIENCE_S)
        self._open.add(connection)
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
        except ssl.SSLCertVerificationError as error:
            raise SendError(
                f"the certificate of {self._parts.netloc} is not trusted here: {error.verify_message}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
                raise SendError(
                    f"{self._parts.netloc} does not speak TLS: give its address with http://"
                ) from error
            why = getattr(error, "strerror", None) or error
            said = json.dumps({"error": f"no connection to {self._parts.netloc}: {why}"})
            return _Answer(code=0, headers={}, body=said.encode())
        finally:
            self._open.discard(connection)
            connection.close()
