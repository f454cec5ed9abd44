"""A large file from a real Chromium, while the network and the panel break: nobody presses anything."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.needs import CHROMIUM, unless
from tests.panel.wire import Wire

SIZE = 200_000_000


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """200 MB that no two parts of are alike."""
    path = tmp_path / "big.svs"
    with path.open("wb") as file:
        for _ in range(SIZE // 1_000_000):
            file.write(os.urandom(1_000_000))
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@unless(None if CHROMIUM else "missing: chromium (Debian: apt install chromium)")
def test_the_cable_pulled_and_the_panel_killed(tree: Root, big: Path) -> None:
    """200 MB: connections reset, the browser offline, the panel killed (-9), each in the middle; then one drop, hash equal."""
    served = Served(tree.path, words=("--actions",))
    wire = Wire(served.port, bytes_per_s=60_000_000)
    uploads = tree.path / "inbox/.uploads"
    dropped = tree.path / "inbox/ann/big.svs"
    offsets: list[int] = []

    def here() -> int:
        return sum(path.stat().st_size for path in uploads.glob("*/tree/big.svs"))

    def until(least: int) -> Callable[[], bool]:
        return lambda: here() >= least

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(base_url=f"http://{wire.address}")
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda one: wrong.append(str(one)))
        page.goto("/upload")
        page.fill("#user", "ann")
        page.set_input_files("#files", big)
        tree.wait(until(30_000_000))
        wire.cut()
        offsets.append(here())
        page.wait_for_timeout(2500)
        # It waits, and does not give up.
        expect(page.locator("#list .badge")).to_have_text("Uploading")
        assert here() - offsets[0] < 2 << 20
        wire.mend()
        tree.wait(until(90_000_000))
        assert served.process
        served.process.kill()
        served.process.wait(HANGS_S)
        offsets.append(here())
        page.wait_for_timeout(1500)
        served.start()
        tree.wait(until(140_000_000))
        context.set_offline(True)
        page.wait_for_timeout(1500)
        offsets.append(here())
        context.set_offline(False)
        tree.wait(dropped.exists)
        assert wrong == []
        browser.close()
    wire.close()
    # Each break came in the middle, and only what was on its way was sent again.
    assert wire.broken > 0
    assert wire.bytes < SIZE + 3 * (16 << 20)
    assert all(30_000_000 <= one < SIZE for one in offsets), offsets
    assert offsets == sorted(offsets)
    assert sha256(dropped) == sha256(big)
    assert [path.name for path in (tree.path / "inbox/ann").iterdir()] == ["big.svs"]
    assert len(list(uploads.glob("*-*"))) == 1
    served.line("request", method="POST", code=201)
    created = [
        line for line in served.lines("request") if line["method"] == "POST" and line["code"] == 201
    ]
    assert len(created) == 1
    served.stop()
    # One drop. Random bytes make an error of it, and every byte is kept.
    assert tree.run_until_idle() == 1
    [document] = tree.manifests().values()
    assert sha256(document["_path"] / document["files"][0]["path"]) == sha256(big)
