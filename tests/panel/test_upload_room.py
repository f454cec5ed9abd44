"""Room for uploads beside the daemon's own: neither counts on what the other one has promised."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import builders
from tests.lab.panel import Served
from tests.lab.root import Root
from tests.panel.tus import begun, create

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


def announced(tree: Root) -> int:
    found: int = json.loads((tree.path / "inbox/.uploads/.room.json").read_text())["bytes"]
    return found


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
    tree.wait(lambda: announced(tree) == 0)
    tree.wait(lambda: tree.by_name()["a.png"]["status"] == "CONVERTED")
    assert tree.stop() == 0


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
