"""Room for uploads beside the daemon's own: neither counts on what the other one has promised."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytowatch.tree import announced
from tests import builders
from tests.lab.panel import Served
from tests.lab.root import Root
from tests.panel.tus import add, begun, create

PROXY = 'auth = "proxy"\n'
GB = 1 << 30


@pytest.fixture
def panel(tree: Root) -> Iterator[Served]:
    """A panel on it, where a proxy states the user."""
    served = Served(tree.path, more=PROXY)
    yield served
    served.stop()


def free_bytes(tree: Root) -> int:
    found = os.statvfs(tree.path)
    return found.f_bavail * found.f_frsize


def held_up(tree: Root) -> list[str]:
    found = json.loads((tree.path / "state/live.json").read_text())["held_up"].values()
    return [one["detail"] for one in found]


def test_a_stage_waits_for_room_that_was_promised_to_an_upload(
    tree: Root, panel: Served, tmp_path: Path
) -> None:
    """The reserve by itself would leave it enough; it goes on by itself once the upload is cancelled."""
    free = free_bytes(tree)
    tree.configure(storage=f"reserve_bytes = {free * 7 // 10}")
    at = begun(panel, free * 6 // 10, filename="a.svs")
    tree.start()
    tree.drop(builders.png(tmp_path / "a.png"))
    tree.wait(lambda: (tree.path / "state/live.json").exists() and held_up(tree))
    [said] = held_up(tree)
    assert "for uploads" in said
    assert panel.as_user("ann", at, "DELETE", Tus_Resumable="1.0.0").code == 204
    tree.wait(lambda: announced.read(tree.path / "inbox") == 0)
    tree.wait(lambda: tree.by_name()["a.png"]["status"] == "CONVERTED")
    assert tree.stop() == 0


def test_two_panels_promise_room_together(tree: Root, panel: Served, tmp_path: Path) -> None:
    """A stage waits for the sum; one that was killed (-9) holds up nobody for ever, and goes on when it is started again."""
    other = Served(tree.path, more=PROXY)
    free = free_bytes(tree)
    fifth = free // 5
    try:
        tree.configure(storage=f"reserve_bytes = {free * 7 // 10}")
        begun(panel, fifth, filename="a.svs")
        at = begun(other, fifth, filename="b.svs")
        assert announced.read(tree.path / "inbox") == 2 * fifth
        # Neither promises what the other one has promised.
        for one in (panel, other):
            assert create(one, free * 7 // 10, filename="c.svs").code == 507
        tree.start()
        tree.drop(builders.png(tmp_path / "a.png"))
        tree.wait(lambda: (tree.path / "state/live.json").exists() and held_up(tree))
        assert "for uploads" in held_up(tree)[0]
        assert other.process
        other.process.kill()
        other.process.wait()
        # So long passes until nobody believes it any more.
        long_ago = time.time() - 6 * announced.AGAIN_S
        os.utime(announced.path_of(tree.path / "inbox", 1), (long_ago, long_ago))
        tree.wait(lambda: tree.by_name()["a.png"]["status"] == "CONVERTED")
        assert announced.read(tree.path / "inbox") == fifth
        other.start()
        assert add(other, at, 0, b"abc").code == 204
        tree.wait(lambda: announced.read(tree.path / "inbox") == 2 * fifth - 3)
        assert tree.stop() == 0
    finally:
        other.stop()


def test_an_upload_is_refused_for_what_a_stage_was_promised(
    tree: Root, panel: Served, tmp_path: Path
) -> None:
    """A conversion of some GiB is in work: an upload that needs that room is refused, and taken once no daemon runs."""
    tree.environment["CYTOWATCH_TEST_STAGES"] = "tests.lab.stages"
    tree.start()
    tree.drop(builders.png(tmp_path / "ask-CONVERTING.png"))

    def reserved() -> int:
        live = tree.path / "state/live.json"
        found: int = json.loads(live.read_text())["reserved"]["bytes"] if live.exists() else 0
        return found

    tree.wait(lambda: reserved() > 7 * GB)
    size = free_bytes(tree) - reserved() // 2
    answer = create(panel, size, filename="a.svs")
    assert answer.code == 507
    assert "in work" in answer.json["error"]
    assert tree.stop() == 0
    # What a daemon said that runs no longer is nothing.
    assert create(panel, size, filename="a.svs").code == 201
