"""What stands in place of a page: the storage is gone, an address is wrong, a name is missing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from cytowatch.config import Config
from cytowatch.panel.app import make_app
from cytowatch.panel.uploads.publish import NoInboxError, check_inbox
from tests.lab.panel import Served, check_html
from tests.lab.root import Root

HTML = {"Accept": "text/html"}


@pytest.fixture
def panel(own: Root) -> Iterator[Served]:
    """One behind a proxy that states the user, on a tree to be changed."""
    served = Served(own.path, more='auth = "proxy"\nadmins = ["boss"]\n')
    yield served
    served.stop()


@pytest.mark.parametrize("gone", ["", "storage", "inbox"])
def test_a_tree_that_is_gone_is_said_and_comes_back(
    own: Root, panel: Served, ids: dict[str, str], tmp_path: Path, gone: str
) -> None:
    """As when a disk is not mounted: 503 in words, and neither 'unexpected' nor an empty list of slides."""
    place, aside = own.path / gone, tmp_path / "aside"
    place.rename(aside)
    if not gone:
        # What is left is the empty mount point.
        place.mkdir()
    for path in ("/", "/files", f"/files/{ids['photo.jpg']}"):
        answer = panel.as_user("ann", path, **HTML)
        assert answer.code == 503, path
        assert "The storage cannot be reached." in answer.text
        check_html(answer.text)
    told = panel.as_user("ann", "/api/v1/files")
    assert told.code == 503
    assert told.json["error"].startswith("The storage cannot be reached.")
    assert panel.ask("/healthz").code == 503
    assert panel.lines("panel_unexpected") == []
    if not gone:
        place.rmdir()
    aside.rename(place)
    assert panel.as_user("ann", f"/files/{ids['photo.jpg']}").code == 200
    assert panel.ask("/healthz").json["status"] == "ok"


def test_a_tree_without_its_projects_is_shown(own: Root, tmp_path: Path) -> None:
    """Nothing is linked there: a member of a project sees their own files as before."""
    (own.path / "projects").rename(tmp_path / "aside")
    member = Served(own.path, more='auth = "proxy"\n[panel.projects]\n"Trial 7" = ["ann"]\n')
    try:
        for path in ("/", "/files", "/files?project=Trial%207", "/projects", "/projects/Trial%207"):
            assert member.as_user("ann", path).code == 200, path
    finally:
        member.stop()


def test_an_error_that_is_unexpected_is_a_page_as_well(made: Root) -> None:
    """With words for a person, JSON for a program, and a line for anyone else; the error itself is in the log only."""

    def fails(_request: Request) -> Response:
        raise RuntimeError("a defect")

    app = make_app(made.path, Config(root=made.path))
    app.router.routes.insert(0, Route("/{rest:path}", fails))

    def ask(path: str, accept: bytes) -> str:
        found: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            found.append(message)

        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": b"", "client": None,
            "headers": [(b"host", b"localhost"), (b"accept", accept)], "http_version": "1.1",
        }  # fmt: skip
        asyncio.run(app(scope, receive, send))
        assert found[0]["status"] == 500
        return bytes(found[1]["body"]).decode()

    shown = ask("/files", b"text/html")
    assert "<h1>Something went wrong</h1>" in shown
    assert "it is not your doing" in shown
    check_html(shown)
    assert "not your doing" in json.loads(ask("/api/v1/files", b"*/*"))["error"]
    assert ask("/files", b"*/*").startswith("An unexpected error.")
    for one in (shown, ask("/api/v1/files", b"*/*")):
        assert "a defect" not in one


def test_health_and_metrics_need_no_name_of_a_proxy(panel: Served) -> None:
    """Prometheus and a health check ask the panel itself; a page without a name is refused, as before."""
    assert panel.ask("/healthz").json["status"] == "ok"
    assert "cytowatch_panel_build_info" in panel.ask("/metrics").text
    assert panel.ask("/metrics", X_Forwarded_For="10.0.0.9").code == 404
    refused = panel.ask("/", **HTML)
    assert refused.code == 401
    assert "It is not known who you are" in refused.text
    check_html(refused.text)
    assert panel.ask("/api/v1/files").json["error"].startswith("The proxy does not say who asks")


def test_an_address_of_a_button_says_so(panel: Served, ids: dict[str, str]) -> None:
    """Who types it, or goes back to it, reads what to do; an action that is none is not there."""
    for path in (f"/files/{ids['photo.jpg']}/retry", "/actions/pause", "/logout"):
        answer = panel.as_user("ann", path)
        assert answer.code == 405
        assert "Only a button on a page leads here." in answer.text
        assert "Method Not Allowed" not in answer.text
    assert panel.as_user("ann", "/api/v1/pause").json == {"error": "this cannot be opened"}
    for path in (f"/files/{ids['photo.jpg']}/nonsense", "/actions/nonsense", "/api/v1/nonsense"):
        for method in ("GET", "POST"):
            assert panel.as_user("ann", path, method).code == 404


def test_pages_for_whom_a_refusal_is_a_page(serve: Callable[..., Served]) -> None:
    """Another host, or a change from elsewhere: a browser shows a page, and a script gets one line."""
    panel = serve(words=("--actions",))
    shown = panel.ask("/", Host="elsewhere.example", **HTML)
    assert shown.code == 400
    assert "does not answer to the name elsewhere.example" in shown.text
    check_html(shown.text)
    assert panel.ask("/", Host="elsewhere.example").text.count("\n") == 1
    shown = panel.ask("/actions/pause", "POST", origin="http://evil.example", **HTML)
    assert shown.code == 403
    assert "does not come from a page of this panel" in shown.text
    check_html(shown.text)


def test_a_form_that_is_not_utf8_is_refused(
    serve: Callable[..., Served], ids: dict[str, str]
) -> None:
    """Its letters would be replaced, and a project of that name be made."""
    panel = serve(words=("--actions",))
    for body in (b"project=%FF", b"project=\xff", b"project=%ED%A0%80"):
        answer = panel.ask(
            f"/files/{ids['photo.jpg']}/link", "POST", body=body,
            Content_Type="application/x-www-form-urlencoded",
        )  # fmt: skip
        assert answer.code == 400
        assert "This cannot be read." in answer.text


def test_inboxes_on_a_disk_that_is_read_only(tree: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said of the disk: nobody looks for rights that are missing."""
    flags = os.fstatvfs

    def read_only(at: int) -> os.statvfs_result:
        return os.statvfs_result([*flags(at)[:8], flags(at).f_flag | os.ST_RDONLY, 255])

    monkeypatch.setattr(os, "fstatvfs", read_only)
    with pytest.raises(NoInboxError, match="the disk with the inboxes is read-only"):
        check_inbox(tree.path / "inbox", "ann")
