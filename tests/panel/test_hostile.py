"""What an attacker sends: each costs only that request, and nothing in the tree."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.panel import Served, check_html
from tests.lab.root import HANGS_S, Root

_TRAVERSALS = (
    "..", "../..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e", "....//", "/etc/passwd",
    "%2fetc%2fpasswd", "..%5c..%5c", "%00", "a%00b", "%c0%ae%c0%ae%2f", "%ff%fe", "\\\\server\\share",
    "x" * 5000, "%3Cscript%3Ealert(1)%3C/script%3E", "{{7*7}}", "'%20OR%201=1--", "%0d%0aSet-Cookie:%20a=b",
)  # fmt: skip


@pytest.fixture(scope="module")
def panel(serve: Callable[..., Served]) -> Served:
    """Anyone on this machine may act: what is refused is refused for its own sake."""
    return serve(words=("--actions",))


def test_no_parameter_leads_out_of_the_tree(panel: Served, ids: dict[str, str]) -> None:
    """In every part of every address and in every parameter of a question."""
    id_ = ids["photo.jpg"]
    for evil in _TRAVERSALS:
        plain = evil.replace("\\", "%5c")
        paths = [
            f"/files/{plain}", f"/files/{plain}/thumbnail", f"/files/{plain}/download/original",
            f"/files/{id_}/download/{plain}", f"/files/{id_}/associated/{plain}", f"/projects/{plain}",
            f"/reasons/{plain}", f"/api/v1/files/{plain}", f"/static/{plain}", f"/live/files/{plain}",
        ]  # fmt: skip
        for path in paths:
            found = panel.ask(path)
            assert found.code in (200, 400, 404, 405, 414, 431), path
            assert b"root:x:0" not in found.body
            assert "set-cookie" not in found.headers
            if found.code == 200:
                # "/files/.." is the first page; no file was meant.
                assert found.headers["content-type"].startswith("text/html"), path
            if found.headers.get("content-type", "").startswith("text/html"):
                check_html(found.text)
        for name in (
            "status",
            "user",
            "project",
            "format",
            "reason",
            "name",
            "since",
            "until",
            "parent",
            "sort",
            "order",
            "page",
        ):
            found = panel.ask(f"/files?{name}={plain}")
            assert found.code == 200, (name, evil)
            check_html(found.text)
            assert panel.ask(f"/api/v1/files?{name}={plain}").code == 200


def test_a_link_in_the_tree_leads_nowhere(own: Root, ids: dict[str, str], tmp_path: Path) -> None:
    """A manifest's file that is a link out of the tree, a FIFO or a folder is not there."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    place = next(own.path.glob(f"storage/ann/{ids['photo.jpg']}"))
    thumbnail = place / "derived" / "thumbnail.jpg"
    panel = Served(own.path)
    try:
        assert panel.ask(f"/files/{ids['photo.jpg']}/thumbnail").code == 200
        thumbnail.unlink()
        for make in (
            lambda: thumbnail.symlink_to(secret),
            lambda: thumbnail.symlink_to("/etc/passwd"),
            lambda: os.mkfifo(thumbnail),
            lambda: thumbnail.symlink_to(thumbnail.name),
        ):
            make()
            assert panel.ask(f"/files/{ids['photo.jpg']}/thumbnail").code == 404
            thumbnail.unlink()
        thumbnail.mkdir()
        assert panel.ask(f"/files/{ids['photo.jpg']}/thumbnail").code == 404
    finally:
        panel.stop()


def test_names_that_are_not_utf8_cost_no_page(own: Root) -> None:
    """A folder in `inbox/`, `storage/` or `projects/` that an old copier has named: every page is shown without it."""
    for place in ("inbox", "storage", "projects"):
        os.mkdir(os.fsencode(own.path / place) + b"/caf\xe9")
    pages = (
        "/",
        "/live/storage",
        "/files",
        "/projects",
        "/upload",
        "/api/v1/status",
        "/api/v1/projects",
    )
    named = Served(own.path, more='auth = "proxy"\nadmins = ["boss"]\n')
    nobody = Served(own.path, words=("--actions",))
    try:
        for path in pages:
            for answer in (named.as_user("boss", path), nobody.ask(path)):
                assert answer.code == 200, path
        assert "Trial 7" in named.as_user("boss", "/projects").text
        # Of the inboxes those are offered that files can be added to.
        (own.path / "inbox" / "<b>").mkdir()
        offered = nobody.ask("/upload").text
        assert '<option value="ann">' in offered
        assert "&lt;b&gt;" not in offered
    finally:
        named.stop()
        nobody.stop()


def test_a_manifest_that_was_edited_adds_no_header(own: Root, ids: dict[str, str]) -> None:
    """The hash of a thumbnail names it for the browser, if it is one."""
    path = own.path / "storage/ann" / ids["photo.jpg"] / "manifest.json"
    document = json.loads(path.read_text())
    for row in document["files"]:
        row["sha256"] = "a\r\nSet-Cookie: x=y" if row["role"] == "thumbnail" else "\ud800"
    path.write_text(json.dumps(document))
    panel = Served(own.path)
    try:
        answer = panel.ask(f"/files/{ids['photo.jpg']}/thumbnail")
        assert answer.code == 200
        assert "set-cookie" not in answer.headers
        assert panel.ask(f"/files/{ids['photo.jpg']}").code == 200
        assert panel.lines("panel_unexpected") == []
    finally:
        panel.stop()


def test_a_page_elsewhere_changes_nothing(panel: Served, ids: dict[str, str]) -> None:
    """CSRF: without an Origin, with another one, with a null one, and where the browser says cross-site."""
    path = f"/files/{ids['photo.jpg']}/link"
    form = {"project": "Stolen"}
    for origin in (
        None,
        "null",
        "https://evil.example",
        f"http://127.0.0.1:{panel.port + 1}",
        "http://[",
    ):
        assert panel.ask(path, "POST", form=form, origin=origin).code == 403, origin
    assert panel.ask(path, "POST", form=form, Sec_Fetch_Site="cross-site").code == 403
    # From a page of its own it is asked for; here no daemon runs.
    assert panel.ask(path, "POST", form=form).code == 503
    assert not (panel.root / "projects" / "Stolen").exists()


def test_another_host_is_not_answered(panel: Served, serve: Callable[..., Served]) -> None:
    """A name that somebody points at this machine (DNS rebinding) shows nothing."""
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[", "localhost.evil.example:9780"):
        assert panel.ask("/", Host=host).code == 400, host
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:9780", "localhost."):
        assert panel.ask("/", Host=host).code == 200, host
    named = serve(more='auth = "proxy"\nhosts = ["slides.lab"]\n')
    assert named.as_user("ann", "/", Host="slides.lab").code == 200
    assert named.as_user("ann", "/", Host="evil.example").code == 400


def test_methods_bodies_and_heads_beyond_measure(panel: Served, ids: dict[str, str]) -> None:
    """Too large, of another kind, not what they say they are."""
    path = f"/files/{ids['photo.jpg']}/link"
    assert (
        panel.ask(path, "POST", body=b"x" * (65 << 10), Content_Type="application/json").code == 413
    )
    assert panel.ask(path, "POST", body=b"<a/>", Content_Type="text/xml").code == 415
    for body in (b"[]", b"{", b'{"project": 1}', b"[" * 5000, b"\xff"):
        assert panel.ask(path, "POST", body=body, Content_Type="application/json").code == 400
    for project in ("", "..", "a/b", "a\nb", ".", "x" * 400):
        assert panel.ask(path, "POST", form={"project": project}).code in (400, 503)
    assert panel.ask(f"/files/{ids['photo.jpg']}/remove", "POST", form={}).code == 404
    assert panel.ask("/api/v1/reindex", "POST", form={}).code == 404
    with socket.create_connection(("127.0.0.1", panel.port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        raw.settimeout(5)
        try:
            answer = raw.recv(100)
        except ConnectionResetError:
            answer = b""
        assert answer == b""


def test_slow_clients_hold_up_nobody(panel: Served) -> None:
    """Slowloris: heads that never end are let go after ten seconds, and others are served meanwhile."""
    slow = [socket.create_connection(("127.0.0.1", panel.port)) for _ in range(100)]
    for one in slow:
        one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    began = time.monotonic()
    assert panel.ask("/static/panel.css").code == 200
    # It did not have to wait until they were let go.
    assert time.monotonic() - began < 10
    ended = 0
    while time.monotonic() - began < HANGS_S and ended < len(slow):
        time.sleep(0.5)
        ended = 0
        for one in slow:
            try:
                # One more letter, as a slow client sends.
                one.sendall(b"x")
                one.setblocking(False)
                ended += one.recv(10) == b""
            except BlockingIOError:
                pass
            except OSError:
                ended += 1
            finally:
                one.setblocking(True)
    for one in slow:
        one.close()
    assert ended == len(slow)
    assert panel.ask("/").code == 200


def test_a_thousand_connections_leave_it_serving(panel: Served) -> None:
    """More than it takes at a time are turned away; its memory and descriptors come back."""
    panel.ask("/")
    before = panel.descriptors()
    held = []
    for _ in range(700):
        try:
            held.append(socket.create_connection(("127.0.0.1", panel.port), timeout=2))
        except OSError:
            break
    assert len(held) > 500
    # They are taken many at a time, and those that are too many are closed right after that.
    end = time.monotonic() + HANGS_S
    while panel.descriptors() >= before + 600:
        assert time.monotonic() < end, "all of them are held"
        time.sleep(0.05)
    for one in held:
        one.close()
    end = time.monotonic() + HANGS_S
    while panel.descriptors() >= before + 60:
        assert time.monotonic() < end, "its descriptors do not come back"
        time.sleep(0.05)
    assert panel.ask("/").code == 200
