"""Each page and each address, on a tree that a daemon made."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from cytowatch.cli.schema import schema_of
from tests.lab.panel import EVIL, Served, check_html
from tests.lab.root import Root


@pytest.fixture(scope="module")
def panel(serve: Callable[..., Served]) -> Served:
    """As it starts without any configuration: this machine, reading only."""
    return serve()


def test_every_page_reads_without_a_script(panel: Served, ids: dict[str, str]) -> None:
    """All that a page says is in its HTML; nothing in it runs, and nothing comes from elsewhere."""
    pages = {
        "/": ("In progress", "Recently deployed", "photo.jpg", "Needs attention"),
        "/files": ("photo.jpg", "bob.tif", "scans.zip"),
        "/projects": ("Trial 7", "1 image"),
        "/projects/Trial%207": ("shared.jpg",),
        "/reasons": ("damaged",),
        "/reasons/damaged": ("What you can do",),
        "/reasons/incomplete": ("administrator",),
        **{f"/files/{id_}": ("History", "Facts") for id_ in ids.values()},
    }
    for path, words in pages.items():
        found = panel.ask(path)
        assert found.code == 200, path
        check_html(found.text)
        for word in words:
            assert word in found.text, (path, word)
        assert found.headers["content-security-policy"].startswith("default-src 'self'")
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["referrer-policy"] == "same-origin"


def test_a_name_is_text(panel: Served, ids: dict[str, str]) -> None:
    """A file that is called like a script, an attribute and a template is shown as its name."""
    id_ = ids[EVIL.replace("/", "_")]
    for path in ("/", "/files", f"/files/{id_}", f"/live/files/{id_}"):
        text = panel.ask(path).text
        assert "&lt;script&gt;alert(1)" in text
        assert "<script>alert" not in text
        assert "49<img" not in text
        check_html(text)


def test_the_details_say_what_there_is(panel: Served, ids: dict[str, str]) -> None:
    """The tree, the badge, the pixel size or that none is known, the reason and what to do."""
    archive = panel.ask(f"/files/{ids['scans.zip']}").text
    assert "one.png" in archive
    assert "notes.txt" in archive
    child = panel.ask(f"/files/{ids['one.png']}").text
    assert f"/files/{ids['scans.zip']}" in child
    slide = panel.ask(f"/files/{ids['slide.svs']}").text
    assert "every level read back" in slide
    assert "µm/px" in slide
    assert "pixel size unknown" in panel.ask(f"/files/{ids['photo.jpg']}").text
    broken = panel.ask(f"/files/{ids['broken.jpg']}").text
    assert "Why it failed" in broken
    assert f"/reasons/{_reason(panel, ids)}" in broken
    # Reading only: nothing to press.
    assert "Try again" not in broken


def _reason(panel: Served, ids: dict[str, str]) -> str:
    return str(panel.ask(f"/api/v1/files/{ids['broken.jpg']}").json["error"]["reason"])


@pytest.mark.parametrize(
    ("query", "there", "not_there"),
    [
        ("status=error", {"broken.jpg"}, {"photo.jpg"}),
        ("status=deployed", {"photo.jpg", "bob.tif", "scans.zip"}, {"broken.jpg"}),
        ("status=ERROR_CONVERSION", {"broken.jpg"}, {"bob.tif"}),
        ("status=nonsense", set(), {"broken.jpg", "photo.jpg"}),
        ("user=BOB", {"bob.tif", "shared.jpg"}, {"photo.jpg"}),
        ("format=aperio-svs", {"slide.svs"}, {"photo.jpg"}),
        ("reason=damaged", {"broken.jpg"}, {"photo.jpg"}),
        ("name=SLI", {"slide.svs"}, {"photo.jpg"}),
        ("name=%25", set(), {"photo.jpg"}),
        ("project=trial+7", {"shared.jpg"}, {"bob.tif"}),
        ("since=2000-01-01&until=2001-01-01", set(), {"photo.jpg"}),
        ("since=2000-01-01", {"photo.jpg", "bob.tif"}, set()),
        ("status=deployed&user=ann&format=png", {"one.png"}, {"photo.jpg"}),
        ("page=2", set(), {"photo.jpg"}),
    ],
)
def test_a_list_is_its_address(
    panel: Served, ids: dict[str, str], query: str, there: set[str], not_there: set[str]
) -> None:
    """Each filter, by itself and together; the page and the JSON say the same."""
    text = panel.ask(f"/files?{query}").text
    shown = {name for name, id_ in ids.items() if f"/files/{id_}" in text}
    assert there <= shown
    assert not not_there & shown
    if "page" not in query:
        rows = panel.ask(f"/api/v1/files?{query}").json
        assert {row["name"] for row in rows} == shown


def test_a_list_is_sorted_both_ways(panel: Served) -> None:
    """By name up and down, and by time, newest first, if nothing is said."""
    up = [row["name"] for row in panel.ask("/api/v1/files?sort=name&order=up").json]
    assert up == sorted(up)
    down = [row["name"] for row in panel.ask("/api/v1/files?sort=name").json]
    assert down == up[::-1]
    newest = [row["id"] for row in panel.ask("/api/v1/files").json]
    assert newest == sorted(newest, reverse=True)
    assert [row["id"] for row in panel.ask("/api/v1/files?limit=2&offset=1").json] == newest[1:3]


def test_downloads_are_the_bytes_on_disk(panel: Served, made: Root, ids: dict[str, str]) -> None:
    """The original by its own name and with ranges, the pyramid, the manifest; a set as one zip."""
    document = made.by_name()["photo.jpg"]
    id_ = document["id"]
    original = panel.ask(f"/files/{id_}/download/original")
    assert hashlib.sha256(original.body).hexdigest() == document["sha256"]
    assert 'filename="photo.jpg"' in original.headers["content-disposition"]
    # Bytes of others are never a page of our own.
    assert original.headers["content-type"] == "application/octet-stream"
    part = panel.ask(f"/files/{id_}/download/original", Range="bytes=10-19")
    assert part.code == 206
    assert part.body == original.body[10:20]
    pyramid = panel.ask(f"/files/{id_}/download/pyramid")
    [row] = [row for row in document["files"] if row["role"] == "pyramid"]
    assert hashlib.sha256(pyramid.body).hexdigest() == row["sha256"]
    manifest = panel.ask(f"/files/{id_}/download/manifest").json
    assert manifest == json.loads((document["_path"] / "manifest.json").read_text())
    assert panel.ask(f"/files/{id_}/download/nonsense").code == 404
    assert panel.ask(f"/files/{ids['scans.zip']}/download/pyramid").code == 404
    evil = panel.ask(f"/files/{ids[EVIL.replace('/', '_')]}/download/original")
    assert re.search(r'filename="[^"<>]*"; filename\*=UTF-8', evil.headers["content-disposition"])


def test_several_files_come_as_one_zip(own: Root, ids: dict[str, str]) -> None:
    """Written while it is sent, and whole."""
    path = next(own.path.glob(f"storage/ann/{ids['photo.jpg']}"))
    document = json.loads((path / "manifest.json").read_text())
    extra = path / "derived" / "second.tiff"
    extra.write_bytes(b"x" * 3_000_000)
    document["files"].append(
        {"role": "pyramid", "path": "derived/second.tiff", "size_bytes": 3_000_000, "sha256": None, "status": "DEPLOYED"}
    )  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(document))
    panel = Served(own.path)
    try:
        found = panel.ask(f"/files/{ids['photo.jpg']}/download/pyramid")
    finally:
        panel.stop()
    with zipfile.ZipFile(io.BytesIO(found.body)) as archive:
        assert archive.testzip() is None
        assert archive.read("second.tiff") == b"x" * 3_000_000
        assert len(archive.namelist()) == 2


def test_thumbnails_are_kept_by_a_browser(panel: Served, ids: dict[str, str]) -> None:
    """With the hash as their tag, and never for anyone else's cache."""
    path = f"/files/{ids['photo.jpg']}/thumbnail"
    found = panel.ask(path)
    assert found.body[:3] == b"\xff\xd8\xff"
    assert found.headers["cache-control"].startswith("private")
    again = panel.ask(path, If_None_Match=found.headers["etag"])
    assert again.code == 304
    assert again.body == b""
    assert panel.ask(f"/files/{ids['broken.jpg']}/thumbnail").code == 404


def test_labels_are_shown_only_where_they_may_be(
    serve: Callable[..., Served], panel: Served, made: Root, ids: dict[str, str]
) -> None:
    """By default they are in no page and at no address."""
    roles = {row["role"] for row in made.by_name()["slide.svs"]["files"]}
    assert roles & {"label", "macro"} or roles
    with_labels = serve(more="labels = true")
    for role in ("label", "macro"):
        path = f"/files/{ids['slide.svs']}/associated/{role}"
        assert panel.ask(path).code == 404
        assert with_labels.ask(path).code == (200 if role in roles else 404)
        assert f"associated/{role}" not in panel.ask(f"/files/{ids['slide.svs']}").text
        shown = f"associated/{role}" in with_labels.ask(f"/files/{ids['slide.svs']}").text
        assert shown == (role in roles)
    for role in ("thumbnail", "source", "pyramid", "..", "manifest.json"):
        assert with_labels.ask(f"/files/{ids['slide.svs']}/associated/{role}").code == 404


def test_the_json_is_of_the_commands_shapes(panel: Served, ids: dict[str, str]) -> None:
    """`cytowatch schema` describes what the API answers, and OpenAPI has the same schemas."""
    document = panel.ask("/api/v1/openapi.json").json
    assert document["openapi"].startswith("3.1")
    asked = {
        "status": panel.ask("/api/v1/status").json,
        "list": panel.ask("/api/v1/files?limit=500").json,
        "show": panel.ask(f"/api/v1/files/{ids['photo.jpg']}").json,
    }
    names = {"status": "status_page", "list": "files", "show": "uploaded_file"}
    for name, found in asked.items():
        jsonschema.validate(found, schema_of(name))
        schema = {
            "$ref": f"#/components/schemas/{names[name]}",
            "components": document["components"],
        }
        jsonschema.Draft202012Validator(schema).validate(found)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for answer in operation["responses"].values():
                ref = answer["content"]["application/json"]["schema"]["$ref"]
                assert ref.rpartition("/")[2] in document["components"]["schemas"], (path, method)
    assert len(asked["list"]) == len(ids)
    assert panel.ask("/api/v1/projects").json == [{"name": "Trial 7", "files": 1}]
    assert {row["reason"] for row in panel.ask("/api/v1/reasons").json} >= {"damaged", "incomplete"}
    for query in ("limit=-1", "limit=x", "limit=501", "offset=1e3"):
        assert panel.ask(f"/api/v1/files?{query}").code == 400


def test_what_is_not_there_is_a_page_or_json(panel: Served) -> None:
    """404 in the form that the one who asks can read."""
    page = panel.ask("/files/20261123-141502-k3f9-CMU-1")
    assert page.code == 404
    assert "There is nothing here" in page.text
    assert panel.ask("/api/v1/files/20261123-141502-k3f9-CMU-1").json == {
        "error": "there is nothing here"
    }
    assert panel.ask("/nonsense").code == 404
    assert panel.ask("/files", "DELETE").code == 405


def test_health_and_metrics_are_for_this_machine(panel: Served) -> None:
    """Not through a proxy on it either."""
    assert panel.ask("/healthz").json["status"] == "ok"
    metrics = panel.ask("/metrics").text
    assert 'cytowatch_panel_requests_total{code="2xx",route="storage"}' in metrics
    assert "cytowatch_panel_build_info" in metrics
    for path in ("/healthz", "/metrics"):
        assert panel.ask(path, X_Forwarded_For="10.0.0.9").code == 404
        assert panel.ask(path, Forwarded="for=10.0.0.9").code == 404


def test_each_request_is_a_line_of_the_log(serve: Callable[..., Served]) -> None:
    """With who and how long, and without the query: a name that was searched for can be a patient's."""
    panel = serve()
    panel.ask("/files?name=Miller")
    line = panel.line("request", path="/files", code=200)
    assert line["seconds"] < 60
    assert "Miller" not in panel.log.read_text()


def test_it_needs_no_daemon_and_writes_nothing(own: Root, tmp_path: Path) -> None:
    """On a tree without an index, and beside it nothing changes but its own key."""
    for path in own.path.glob("state/index.sqlite3*"):
        path.unlink()

    def seen() -> set[str]:
        found = {str(path.relative_to(own.path)) for path in own.path.rglob("*")}
        return {path for path in found if path != "state/panel.key"}

    before = seen()
    panel = Served(own.path)
    try:
        assert "photo.jpg" in panel.ask("/files").text
        assert "No daemon runs" in panel.ask("/").text
    finally:
        assert panel.stop() == 0
    assert seen() == before


def test_below_a_path_of_a_proxy(serve: Callable[..., Served], ids: dict[str, str]) -> None:
    """Whether or not the proxy cuts the path off; every link leads back below it."""
    panel = serve(more='base_path = "/slides"')
    for prefix in ("/slides", ""):
        text = panel.ask(f"{prefix}/files").text
        assert f'href="/slides/files/{ids["photo.jpg"]}"' in text
        assert not re.search(r'(href|src|action)="/(?!slides)', text)
        assert panel.ask(f"{prefix}/static/panel.css").code == 200
        assert panel.ask(f"{prefix}/files/{ids['photo.jpg']}/thumbnail").code == 200
    assert panel.ask("/slides").code == 200
