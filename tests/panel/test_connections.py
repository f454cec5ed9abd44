"""Clients that read slowly or not at all, ask for everything at once, or speak HTTP/1.0."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cytowatch.panel import connection
from tests.lab.inside import panel_inside
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root

LARGE = b"GET /static/openseadragon.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMALL = b"GET /static/panel.css HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def panel(serve: Callable[..., Served]) -> Served:
    """One behind a proxy that states the user."""
    return serve(more='auth = "proxy"\n')


def silent(port: int, data: bytes) -> socket.socket:
    """A client that sends `data` and reads nothing, with next to no room for what comes."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    made.connect(("127.0.0.1", port))
    made.settimeout(HANGS_S)
    with suppress(ConnectionError):
        made.sendall(data)
    return made


def within(true: Callable[[], bool]) -> None:
    end = time.monotonic() + HANGS_S
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def test_an_answer_that_nobody_reads_is_given_up(
    made: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its middle and at its end: the connection is there for somebody else after a while."""
    monkeypatch.setattr(connection, "_UNREAD_S", 1.0)
    with panel_inside(made.path) as (port, server):
        for data in (LARGE * 20, LARGE, SMALL * 20, LARGE.replace(b"1.1", b"1.0")):
            held = [silent(port, data) for _ in range(3)]
            within(lambda: not server.server_state.connections)
            for one in held:
                one.close()
        # A client that reads is answered as often as it asks.
        one = http.client.HTTPConnection("127.0.0.1", port, timeout=HANGS_S)
        for _ in range(20):
            one.request("GET", "/static/openseadragon.min.js")
            assert len(one.getresponse().read()) > 300_000
        one.close()


def test_a_flood_of_requests_is_ended(panel: Served) -> None:
    """Thousands behind one that is not read: they take no memory, and others are served meanwhile."""
    panel.ask("/static/panel.css")
    before = panel.memory_kb()
    small = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    held = [silent(panel.port, LARGE + small * 9000) for _ in range(40)]
    assert panel.as_user("ann", "/static/panel.css").code == 200
    assert panel.memory_kb() < before + 80_000
    for one in held:
        one.close()


def test_some_requests_at_once_are_answered_in_their_order(panel: Served) -> None:
    """As HTTP/1.1 allows, whether or not each has a body."""
    ask = b"%s HTTP/1.1\r\nHost: x\r\nX-Forwarded-User: ann\r\nOrigin: http://x\r\n%s\r\n"
    requests = [
        ask % (b"GET /static/panel.css", b""),
        ask % (b"POST /nothing", b"Content-Length: 3\r\n") + b"abc",
        ask % (b"GET /api/v1/projects", b""),
        ask % (b"POST /uploads", b"Transfer-Encoding: chunked\r\n") + b"1\r\na\r\n0\r\n\r\n",
    ] * 4
    with socket.create_connection(("127.0.0.1", panel.port), timeout=HANGS_S) as one:
        one.sendall(b"".join(requests) + ask % (b"GET /healthz", b"Connection: close\r\n"))
        found = b""
        while part := one.recv(1 << 16):
            found += part
    codes = [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]]
    assert codes == [b"200", b"404", b"200", b"412"] * 4 + [b"200"]


def two_pyramids(own: Root, id_: str) -> Path:
    """Make a second pyramid of `id_`, so that they are sent as a zip; gives its path."""
    path = next(own.path.glob(f"storage/ann/{id_}"))
    document = json.loads((path / "manifest.json").read_text())
    second = path / "derived" / "second.tiff"
    second.write_bytes(os.urandom(16 << 20))
    document["files"].append(
        {"role": "pyramid", "path": "derived/second.tiff", "size_bytes": 16 << 20, "sha256": None, "status": "DEPLOYED"}
    )  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(document))
    return second


def times_open(panel: Served, path: Path) -> int:
    """How often the panel has the file at `path` open."""
    assert panel.process
    found = 0
    for one in Path(f"/proc/{panel.process.pid}/fd").iterdir():
        # Some are closed while they are looked at.
        with suppress(FileNotFoundError):
            found += os.readlink(one) == str(path)
    return found


def test_a_zip_that_is_broken_off(own: Root, ids: dict[str, str]) -> None:
    """By clients that go away: no file stays open, no memory is kept. By a file that changes: it is not taken for whole."""
    second = two_pyramids(own, ids["photo.jpg"])
    path = f"/files/{ids['photo.jpg']}/download/pyramid"
    ask = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-User: ann\r\n\r\n".encode()
    panel = Served(own.path, more='auth = "proxy"\n')
    try:
        panel.as_user("ann", path)
        memory_kb = panel.memory_kb()
        held = [silent(panel.port, ask) for _ in range(40)]
        within(lambda: times_open(panel, second) == 40)
        assert panel.memory_kb() < memory_kb + 60_000
        for one in held:
            one.close()
        within(lambda: times_open(panel, second) == 0)
        with contextlib.closing(silent(panel.port, ask)) as slow:
            within(lambda: times_open(panel, second) == 1)
            os.truncate(second, 1000)
            found = b""
            with suppress(ConnectionError):
                while part := slow.recv(1 << 20):
                    found += part
        assert not found.endswith(b"0\r\n\r\n")
        assert "changed" in panel.line("panel_unexpected")["detail"]
    finally:
        panel.stop()


def test_the_head_of_a_zip_reads_no_slide(own: Root, ids: dict[str, str]) -> None:
    """A link checker asks so: of a set of 40 GB nothing is read, and the head is that of a GET."""
    two_pyramids(own, ids["photo.jpg"])
    path = f"/files/{ids['photo.jpg']}/download/pyramid"
    panel = Served(own.path, more='auth = "proxy"\n')
    try:
        whole, head = panel.as_user("ann", path), panel.as_user("ann", path, "HEAD")
        assert (head.code, head.body) == (200, b"")
        assert "content-length" not in head.headers
        for name in ("content-type", "content-disposition"):
            assert head.headers[name] == whole.headers[name]
        assert panel.line("request", method="HEAD")["bytes"] == 0
        assert panel.line("request", method="GET", path=path)["bytes"] == len(whole.body)
    finally:
        panel.stop()


def test_http_1_0(own: Root, ids: dict[str, str]) -> None:
    """Without a host and without chunks: an answer whose length is unknown ends with its connection, and is whole."""
    two_pyramids(own, ids["photo.jpg"])
    panel = Served(own.path, more='auth = "proxy"\n')

    def asked(method: str, address: str) -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", panel.port), timeout=HANGS_S) as one:
            one.sendall(f"{method} {address} HTTP/1.0\r\nX-Forwarded-User: ann\r\n\r\n".encode())
            found = b""
            while part := one.recv(1 << 16):
                found += part
        head, _, body = found.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"chunked" not in head.lower()
        return head, body

    try:
        zipped = f"/files/{ids['photo.jpg']}/download/pyramid"
        _, body = asked("GET", zipped)
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert archive.testzip() is None
            assert len(archive.namelist()) == 2
        assert asked("HEAD", zipped)[1] == b""
        head, body = asked("GET", "/files")
        assert f"content-length: {len(body)}".encode() in head
        assert panel.lines("panel_unexpected") == []
    finally:
        panel.stop()
