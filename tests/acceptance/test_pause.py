"""Paused and resumed, whole or one user; the index made again; beside a daemon and without one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cytowatch.record.status import Status
from tests import builders
from tests.lab.root import HANGS_S, STAGES, Root, command
from tests.lab.told import free_port, health, json_lines, metric


def statuses(root: Root) -> dict[str, str]:
    return {one["name"]: one["status"] for one in root.manifests().values()}


def test_everyone_is_paused(root: Root, tmp_path: Path) -> None:
    """Drops wait and say why, over a restart; it is not a fault; resumed, they are taken."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}")
    slide = builders.aperio_svs(tmp_path / "a.svs")
    root.start()
    assert command(root, "pause").returncode == 0
    root.drop(slide)
    root.wait(lambda: [one for one in root.waiting() if one["why"] == "paused"])
    root.wait(lambda: metric(port, "cytowatch_paused") == 1)
    root.wait(lambda: metric(port, 'cytowatch_inbox_waiting_files{why="paused"}') == 1)
    assert health(port) == {}
    note = "a.svs - WAITING, paused.txt"
    root.wait(lambda: [one.name for one in root.path.glob("status/ann/*")] == [note])
    assert "paused" in (root.path / "status" / "ann" / note).read_text()
    assert "paused   everyone" in command(root, "status").stdout
    assert root.stop() == 0
    assert root.run_until_idle() == 0
    assert root.manifests() == {}
    root.start()
    root.wait(lambda: [one for one in root.waiting() if one["why"] == "paused"])
    refused = command(root, "resume", "--user", "ann")
    assert (refused.returncode, "everyone is paused" in refused.stderr) == (2, True)
    assert command(root, "resume").returncode == 0
    root.wait(lambda: statuses(root) == {"a.svs": "DEPLOYED"})
    assert root.stop() == 0
    root.assert_clean()


def test_one_user_is_paused(root: Root, tmp_path: Path) -> None:
    """Neither claimed nor begun, what is in work is finished; all others go on."""
    slide = builders.aperio_svs(tmp_path / "a.svs")
    builders.png(tmp_path / "b.png")
    root.configure(engine="workers = 1")
    root.environment = dict(STAGES)
    root.drop(tmp_path / "b.png", "slow-CONVERTING.png")
    root.start()
    root.wait(lambda: list(root.path.glob("stages/converting/*")))
    live = root.path / "state" / "live.json"
    with root.standing_still():
        root.drop(slide, "queued.svs")
        root.wait(lambda: list(root.path.glob("stages/uploaded/*")))
        told = command(root, "pause", "--user", "ANN")
        assert "paused: ANN" in told.stdout
        # It says so when it has taken the pause over.
        root.wait(lambda: json.loads(live.read_text())["paused"]["users"] == ["ANN"])
    root.drop(slide, "dropped.svs")
    root.drop(slide, "other.svs", user="bob")
    root.wait(
        lambda: (
            statuses(root)
            == {
                "slow-CONVERTING.png": "CONVERTED",
                "queued.svs": "UPLOADED",
                "other.svs": "DEPLOYED",
            }
        )
    )
    assert root.stop() == 0
    # Nothing that could still be done: it ends instead of waiting for an admin.
    assert root.run_until_idle() == 0
    assert statuses(root)["queued.svs"] == "UPLOADED"
    told = command(root, "resume", "--user", "ann")
    assert "nobody is paused" in told.stdout
    assert root.run_until_idle() == 0
    assert statuses(root)["queued.svs"] == statuses(root)["dropped.svs"] == "DEPLOYED"
    root.assert_clean()


@pytest.mark.parametrize("running", [False, True])
def test_the_index_is_made_anew(root: Root, tmp_path: Path, running: bool) -> None:
    """Only from the tree, with the same answers; damaged under a daemon it is mended by itself."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}")
    slide = builders.aperio_svs(tmp_path / "a.svs")
    for number in range(3):
        root.drop(slide, f"{number}.svs")
    root.drop(builders.jpeg(tmp_path / "c.jpg"))
    assert root.run_until_idle() == 0
    before = json.loads(command(root, "list", "--json").stdout)
    assert len(before) == 4
    path = root.path / "state" / "index.sqlite3"
    if running:
        root.start()
        path.write_bytes(b"nonsense" * 1000)
        root.drop(slide, "3.svs")
        root.wait(lambda: statuses(root).get("3.svs") == "DEPLOYED")
        root.wait(lambda: [one for one in json_lines(root.log) if one["event"] == "index_fault"])
        root.wait(lambda: health(port) == {})
        root.wait(lambda: metric(port, 'cytowatch_files{status="DEPLOYED"}') == 4)
    else:
        path.write_bytes(b"nonsense" * 1000)
    done = command(root, "reindex")
    assert done.returncode == 0, done.stderr
    wanted = 5 if running else 4
    root.process = root.process if running else None
    end = time.monotonic() + HANGS_S
    while len(json.loads(command(root, "list", "--json").stdout)) != wanted:
        assert time.monotonic() < end
    page = json.loads(command(root, "status", "--json").stdout)
    assert page["files"][Status.CONVERTED.name] == 1
    listed = json.loads(command(root, "list", "--json").stdout)
    assert [one for one in listed if one["name"] != "3.svs"] == before
    if running:
        assert root.stop() == 0
    root.assert_clean()
