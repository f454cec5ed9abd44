"""A panel as an admin would start it, and a client that can ask for anything, however odd."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.lab.root import HANGS_S
from tests.lab.told import free_port

__all__ = ["EVIL", "Answer", "Served", "check_html"]

#: A name that would be a script, an attribute and a template, if it were not text.
EVIL = "\"'><script>alert(1)<script>{{7*7}}<img src=x onerror=alert(1)>.jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """One `cytowatch panel` in a process of its own."""

    def __init__(
        self, root: Path, *, more: str = "", words: tuple[str, ...] = (), start: bool = True
    ) -> None:
        self.root = root
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.config = root.parent / f"panel-{self.port}.toml"
        self.config.write_text(f'root = "{root}"\n[storage]\nreserve_bytes = 0\n[panel]\n{more}\n')
        self.log = root.parent / f"panel-{self.port}.log"
        self.words = words
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        if start:
            self.start()

    def start(self) -> None:
        """Start it, and wait until it listens and heeds signals: its port may be answered by another one meanwhile."""
        before = self._listened()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "cytowatch", "panel", "--config", str(self.config),
                    "--listen", self.address, *self.words,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
            )  # fmt: skip
        end = time.monotonic() + HANGS_S
        while self._listened() == before:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def _listened(self) -> int:
        """How often it has begun to listen."""
        return self.log.read_text().count('"panel_listening"') if self.log.exists() else 0

    def stop(self) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Its lines in the log of one event."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]
        return [line for line in found if line["event"] == event]

    def line(self, event: str, **said: Any) -> dict[str, Any]:
        """The last line of `event` that says `said`; a request's line follows its answer, so it is waited for."""
        end = time.monotonic() + HANGS_S
        while time.monotonic() < end:
            found = [one for one in self.lines(event) if said.items() <= one.items()]
            if found:
                return found[-1]
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        body: bytes | None = None,
        form: Mapping[str, str] | None = None,
        origin: str | None = "",
        **headers: str,
    ) -> Answer:
        """One request as it stands; `origin` is that of the panel's own pages unless it is given."""
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        if form is not None:
            body = urlencode(form).encode()
            said.setdefault("Content-Type", "application/x-www-form-urlencoded")
        if method != "GET" and origin is not None:
            said.setdefault("Origin", origin or f"http://{self.address}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host="Host" in said, skip_accept_encoding=True)
            for name, value in said.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            found = connection.getresponse()
            headers_back = {name.lower(): value for name, value in found.getheaders()}
            return Answer(code=found.status, headers=headers_back, body=found.read())
        finally:
            connection.close()

    def as_user(self, user: str, path: str, method: str = "GET", **more: Any) -> Answer:
        """As a trusted proxy asks for `user`."""
        return self.ask(path, method, X_Forwarded_User=user, **more)

    def token(self, name: str, user: str, *words: str) -> str:
        """A token that `cytowatch token add` makes."""
        told = subprocess.run(
            [sys.executable, "-m", "cytowatch", "token", "add", name, "--user", user, "--root", str(self.root), *words],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return told.stdout.splitlines()[-1]

    def memory_kb(self) -> int:
        """Its resident memory."""
        assert self.process
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0])

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        assert self.process
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def uploads_held(self) -> int:
        """How many uploads it has open; a request that asks might come first, and hold one itself for a moment."""
        assert self.process
        found = 0
        for one in Path(f"/proc/{self.process.pid}/fd").iterdir():
            # Some are closed while they are looked at.
            with suppress(FileNotFoundError):
                link = os.readlink(one)
                found += "/.uploads/" in link and "/tree/" in link
        return found


class _Html(HTMLParser):
    """Guards what no page may hold: script or style in itself, handlers, addresses of elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" and not (given.get("src") or "").startswith("/"):
            self.found.append("a script in the page")
        if tag in ("style", "iframe", "object", "embed"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.found.append(f"{tag} {name}")
            if name in ("href", "src", "action") and ":" in (value or "").partition("?")[0]:
                self.found.append(f"{tag} {name}={value}")


def check_html(text: str) -> None:
    """Nothing in a page runs, and nothing in it is from elsewhere."""
    parser = _Html()
    parser.feed(text)
    assert parser.found == []
    assert text.lstrip().startswith(("<!doctype html>", "<"))
