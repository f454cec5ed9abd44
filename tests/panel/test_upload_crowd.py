"""Many uploads, and slow ones: each holds up only itself."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from cytowatch.config import Panel
from cytowatch.panel.uploads import body, publish
from cytowatch.panel.uploads.rules import Announced
from cytowatch.panel.uploads.store import owner_key
from tests.lab.inside import panel_inside
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.panel.tus import OFFSETS, add, create, said

PROXY = 'auth = "proxy"\nadmins = ["zoe"]\n'
MANY = 10_000


def asked(
    port: int, method: str, path: str, data: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str]]:
    """One request of ann: (its code, its headers)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANGS_S)
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    lines |= {
        "X-Forwarded-User": "ann",
        "Origin": f"http://127.0.0.1:{port}",
        "Tus-Resumable": "1.0.0",
    }
    connection.request(method, path, data, lines)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def unfinished(tree: Root, owner: str, count: int) -> None:
    """As many uploads of `owner` as a panel would have made, each with one byte of ten."""
    for number in range(count):
        home = tree.path / "inbox/.uploads" / f"{owner_key(owner)}-{number:032x}"
        for part in ("notes", "done", "tree"):
            (home / part).mkdir(parents=True)
        made = Announced(path=f"{number}.svs", size=10, user=owner)
        (home / "notes" / f"{number:016x}.json").write_text(json.dumps(asdict(made)))
        (home / "tree" / f"{number}.svs").write_bytes(b"x")


def test_ten_thousand_unfinished_ones(tree: Root) -> None:
    """They are refused to their owner in words, cost nobody else anything, and are listed page by page."""
    unfinished(tree, "ann", MANY)
    panel = Served(tree.path, more=PROXY)
    try:
        refused = create(panel, 3, filename="more.svs")
        assert refused.code == 429
        assert "unfinished uploads" in refused.json["error"]
        at = create(panel, 3, user="bob", filename="bob.svs").headers["location"]
        assert add(panel, at, 0, b"abc", user="bob").code == 204
        assert (tree.path / "inbox/bob/bob.svs").read_bytes() == b"abc"
        assert panel.as_user("zoe", "/").code == 200
        page = panel.as_user("zoe", "/api/v1/uploads?limit=500&offset=9900").json
        assert len(page) == 100
        assert panel.as_user("bob", "/api/v1/uploads").json == []
        # One that is cancelled makes room for none: there are still too many.
        first = page[0]["id"]
        [note] = (tree.path / "inbox/.uploads" / first / "notes").iterdir()
        token = f"{first}.{note.stem}"
        gone = panel.as_user("ann", f"/uploads/{token}", "DELETE", Tus_Resumable="1.0.0")
        assert gone.code == 204
        assert create(panel, 3, filename="more.svs").code == 429
    finally:
        panel.stop()


def test_a_sender_that_falls_silent(tree: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is let go after a while; what it sent is kept, and goes on from there."""
    monkeypatch.setattr(body, "_PATIENCE_S", 1.0)
    with panel_inside(tree.path, Panel(auth="proxy")) as (port, _):
        meta = said(filename="a.svs")
        _, made = asked(port, "POST", "/uploads", Upload_Length="6", Upload_Metadata=meta)
        at = made["location"]
        slow = http.client.HTTPConnection("127.0.0.1", port, timeout=HANGS_S)
        slow.putrequest("PATCH", at)
        for name, value in (
            ("X-Forwarded-User", "ann"), ("Origin", f"http://127.0.0.1:{port}"), ("Tus-Resumable", "1.0.0"),
            ("Upload-Offset", "0"), ("Content-Type", OFFSETS), ("Content-Length", "6"),
        ):  # fmt: skip
            slow.putheader(name, value)
        slow.endheaders(b"abc")
        answer = slow.getresponse()
        assert answer.status == 408
        assert b"go on from where they ended" in answer.read()
        slow.close()
        code, found = asked(port, "HEAD", at)
        assert (code, found["upload-offset"]) == (200, "3")
        more = {"Upload_Offset": "3", "Content_Type": OFFSETS}
        assert asked(port, "PATCH", at, b"def", **more)[0] == 204
    assert (tree.path / "inbox/ann/a.svs").read_bytes() == b"abcdef"


def test_pages_do_not_wait_for_hashes(tree: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty large uploads end at once and each is read from the disk again: pages and other uploads go on meanwhile."""
    go_on, hashing = threading.Event(), threading.Semaphore(0)
    real: Callable[[Path], str] = publish._sha256

    def held(path: Path) -> str:
        hashing.release()
        assert go_on.wait(HANGS_S)
        return real(path)

    monkeypatch.setattr(publish, "_sha256", held)
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    more = {"Upload_Offset": "0", "Content_Type": OFFSETS}
    with panel_inside(tree.path, Panel(auth="proxy")) as (port, _), ThreadPoolExecutor(60) as pool:
        try:

            def one(number: int) -> int:
                meta = said(filename=f"{number}.svs", sha256=abc)
                _, made = asked(port, "POST", "/uploads", Upload_Length="3", Upload_Metadata=meta)
                return asked(port, "PATCH", made["location"], b"abc", **more)[0]

            ends = [pool.submit(one, number) for number in range(60)]
            assert hashing.acquire(timeout=HANGS_S)
            for _ in range(50):
                assert asked(port, "GET", "/files")[0] == 200
            meta = said(filename="small.svs")
            _, made = asked(port, "POST", "/uploads", Upload_Length="3", Upload_Metadata=meta)
            assert asked(port, "PATCH", made["location"], b"abc", **more)[0] == 204
            assert (tree.path / "inbox/ann/small.svs").exists()
        finally:
            go_on.set()
        assert {one.result(HANGS_S) for one in ends} == {204}
    assert len(list((tree.path / "inbox/ann").iterdir())) == 61
