"""Requests that no browser sends: two lengths, trailers for heads, hosts that cannot be, numbers without end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.lab.panel import Served
from tests.lab.root import Root

ANN = b"Host: x\r\nX-Forwarded-User: ann\r\n"


@pytest.fixture(scope="module")
def panel(serve: Callable[..., Served]) -> Served:
    """One behind a proxy that states the user."""
    return serve(more='auth = "proxy"\n')


def said(panel: Served, data: bytes) -> bytes:
    """All that comes back until the panel ends the connection, or is silent for a second."""
    with socket.create_connection(("127.0.0.1", panel.port)) as raw:
        raw.settimeout(1)
        raw.sendall(data)
        found = b""
        with suppress(TimeoutError, ConnectionResetError):
            while part := raw.recv(1 << 16):
                found += part
        return found


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5, 5", b"Content-Length: +5",
        b"Content-Length: -1", b"Content-Length: 0x5", b"Content-Length: " + b"9" * 40, b"Content-Length:",
        b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity",
        b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        b"Transfer-Encoding : chunked", b" Content-Length: 5", b"Content-Length: 5\nX: y",
    ],
)  # fmt: skip
def test_a_body_whose_end_is_in_doubt_is_refused(panel: Served, head: bytes) -> None:
    """Proxy and panel might see it end at different places: nothing behind it is taken for another request."""
    hidden = b"GET /static/panel.css HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = said(panel, b"POST /login HTTP/1.1\r\n" + ANN + head + b"\r\n\r\n0\r\n\r\n" + hidden)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


def test_a_trailer_is_not_a_line_of_the_head(panel: Served, ids: dict[str, str]) -> None:
    """What comes behind a body names no user, although all of it comes at once."""
    head = (
        f"POST /files/{ids['photo.jpg']}/retry HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n"
        "Transfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    ).encode()
    body = b"\r\n3\r\na=b\r\n0\r\n"
    # With the name in its place the gate lets it through, and no daemon runs.
    named = said(panel, head + b"X-Forwarded-User: ann\r\n" + body + b"\r\n")
    assert named.startswith(b"HTTP/1.1 503 ")
    late = said(panel, head + body + b"X-Forwarded-User: ann\r\n\r\n")
    assert late.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"0\r\n", b"X: " + b"y" * 1000 + b"\r\n"), (b"0\r\nX: ", b"y" * 1000),
        (b"5;a=", b"y" * 1000), (b"0;a=", b"y" * 1000),
    ],
)  # fmt: skip
def test_what_never_ends_behind_a_body_is_ended(panel: Served, begin: bytes, more: bytes) -> None:
    """Trailers and extensions of a chunk: the connection is closed before they take room."""
    panel.ask("/static/panel.css")
    before = panel.memory_kb()
    with socket.create_connection(("127.0.0.1", panel.port)) as raw:
        raw.settimeout(60)
        raw.sendall(
            b"POST /uploads HTTP/1.1\r\n" + ANN + b"Origin: http://x\r\nTus-Resumable: 1.0.0\r\n"
            b"Upload-Length: 5000000\r\nUpload-Metadata: filename YS5zdnM=\r\n"
            b"Content-Type: application/offset+octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n" + begin
        )
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(200):
                raw.sendall(more * 1000)
    assert panel.memory_kb() < before + 50_000


def test_a_body_in_many_small_chunks_is_taken(panel: Served, made: Root) -> None:
    """Frames larger than the bytes in them do not end it."""
    size = 100_000
    answer = said(
        panel, b"POST /uploads HTTP/1.1\r\n" + ANN + b"Origin: http://x\r\nTus-Resumable: 1.0.0\r\n"
        b"Upload-Length: 100001\r\nUpload-Metadata: filename YS5zdnM=\r\n"
        b"Content-Type: application/offset+octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1;name=value\r\nx\r\n" * size + b"0\r\nX-Trailer: y\r\n\r\n",
    )  # fmt: skip
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"upload-offset: 100000" in answer.lower()


def test_which_host_is_meant_is_clear(panel: Served, ids: dict[str, str]) -> None:
    """One name, that can be one; and what a proxy passes on of a client does not become an address."""
    for host in ("[", "[::1", "a]b", "x:abc", "a b", "x@y", "//evil", ".."):
        for path in ("/", f"/iiif/3/{ids['photo.jpg']}/info.json", "/nothing"):
            assert panel.as_user("ann", path, Host=host).code == 400, host
    twice = said(panel, b"GET / HTTP/1.1\r\nHost: y\r\n" + ANN + b"\r\n")
    assert twice.startswith(b"HTTP/1.1 400 ")
    for host in ("[", "a b", 'x"y', "http://evil/"):
        answer = panel.as_user(
            "ann", f"/iiif/3/{ids['photo.jpg']}/info.json", X_Forwarded_Host=host
        )
        assert answer.json["id"].startswith(f"http://{panel.address}/iiif/3/"), host
    for origin in (f"//{panel.address}", f"javascript://{panel.address}", "null", "http://["):
        path = f"/files/{ids['photo.jpg']}/retry"
        assert panel.as_user("ann", path, "POST", form={}, origin=origin).code == 403, origin
    assert panel.lines("panel_unexpected") == []


def test_numbers_beyond_measure_are_answered(panel: Served, ids: dict[str, str]) -> None:
    """Thousands of digits, wherever a number may stand; thousands of ranges."""
    many, id_ = "9" * 5000, ids["photo.jpg"]
    for path, code in (
        (f"/files?page={many}", 200), (f"/api/v1/files?page={many}", 200),
        (f"/api/v1/files?limit={many}", 400), (f"/projects/Trial%207?page={many}", 404),
        (f"/iiif/3/{id_}/{many},0,1,1/max/0/default.jpg", 400), (f"/iiif/3/{id_}~{many}/info.json", 404),
        (f"/iiif/3/{id_}/full/{many},/0/default.jpg", 400), (f"/tiles/{id_}/0/{many}/0_0.jpg", 404),
        (f"/tiles/{id_}/{many}/thumbnail.jpg", 404),
    ):  # fmt: skip
        assert panel.as_user("ann", path).code == code, path[:60]
    whole = panel.as_user("ann", f"/files/{id_}/download/original").body
    for ranges in (
        ",".join(f"{at}-{at}" for at in range(0, 4000, 2)), "0-," * 5000 + "0-", f"{many}-", "," * 9000,
        "5-2", "--5", "a-b",
    ):  # fmt: skip
        answer = panel.as_user("ann", f"/files/{id_}/download/original", Range=f"bytes={ranges}")
        assert answer.code in (200, 206, 400, 416), ranges[:60]
        assert len(answer.body) <= 2 * len(whole)
    assert panel.lines("panel_unexpected") == []
