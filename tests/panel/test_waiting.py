"""What waits for another server, or is looked up again and again, holds up no page."""

from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import pytest

from cytowatch.admin import requests
from cytowatch.config import Panel
from cytowatch.panel import tokens
from cytowatch.tree import find
from cytowatch.tree.spool import Spool
from tests.lab.inside import panel_inside
from tests.lab.root import HANGS_S, Root


def asked(port: int, method: str, path: str, **headers: str) -> int:
    """The code of one request of ann."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANGS_S)
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    said |= {"X-Forwarded-User": "ann", "Origin": f"http://127.0.0.1:{port}"}
    connection.request(method, path, headers=said)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_pages_do_not_wait_for_a_daemon_that_does_not_answer(
    made: Root, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty times *try again* at once, and the daemon is busy: pages are served meanwhile."""
    go_on, waits = threading.Event(), threading.Semaphore(0)

    def silent(*_: Any, **__: Any) -> dict[str, str]:
        waits.release()
        assert go_on.wait(HANGS_S)
        return {"said": "done"}

    monkeypatch.setattr(requests, "by_daemon", silent)
    monkeypatch.setattr(find, "daemon_pid", lambda _: 1)
    path = f"/api/v1/files/{ids['broken.jpg']}/retry"
    with (
        panel_inside(made.path, Panel(auth="proxy")) as (port, _),
        ThreadPoolExecutor(60) as pool,
    ):
        try:
            ends = [pool.submit(asked, port, "POST", path) for _ in range(60)]
            for _ in range(4):
                assert waits.acquire(timeout=HANGS_S)
            for _ in range(50):
                assert asked(port, "GET", "/files") == 200
        finally:
            go_on.set()
        assert {one.result(HANGS_S) for one in ends} == {200}


def test_tokens_are_read_again_only_when_they_changed(tree: Root) -> None:
    """However often somebody guesses; and one that was revoked opens nothing from the next request on."""
    read = mock.Mock(wraps=tokens.listed)
    with (
        mock.patch.object(tokens, "listed", read),
        panel_inside(tree.path, Panel(auth="share")) as (port, _),
    ):
        spool = Spool.open(tree.path)
        secret = tokens.add(spool, "one", "ann", days=None, now=datetime.now(UTC))
        assert asked(port, "GET", "/api/v1/files", Authorization=f"Bearer {secret}") == 200
        before = read.call_count
        for number in range(100):
            guess = f"Bearer cyt_{number}"
            assert asked(port, "GET", "/api/v1/files", Authorization=guess) == 401
        # Its first use was noted, so the file is another one.
        assert read.call_count <= before + 1
        tokens.revoke(spool, "one")
        assert asked(port, "GET", "/api/v1/files", Authorization=f"Bearer {secret}") == 401
        assert json.loads((tree.path / "state/tokens.json").read_text()) == {"tokens": []}
