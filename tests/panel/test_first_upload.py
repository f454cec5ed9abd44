"""docs/how-to/first-upload.md, done in a real Chromium by someone who logs in with the password of the share.

With `UPLOAD_SHOTS=docs/pictures` the pictures of the page are taken on the way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests import builders
from tests.builders import vendors
from tests.lab.panel import Served
from tests.lab.root import Root
from tests.lab.samba import PASSWORD, Samba, missing
from tests.needs import CHROMIUM, unless

pytestmark = unless(None if CHROMIUM else "missing: chromium (Debian: apt install chromium)")

PAGE = Path(__file__).parents[2] / "docs/how-to/first-upload.md"


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of Debian's own Chromium."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1000, "height": 640})
        browser.close()


def dragged(page: Page, *paths: Path) -> None:
    """Files and folders, dragged out of a file manager onto the page and let go there."""
    box = page.locator("#drop").bounding_box()
    assert box
    wire = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        at: dict[str, Any] = {"x": box["x"] + 20, "y": box["y"] + 20, "data": data}
        wire.send("Input.dispatchDragEvent", {"type": kind, **at})


def slowed(page: Page, bytes_per_s: int) -> None:
    wire = page.context.new_cdp_session(page)
    wire.send("Network.enable")
    wire.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_s},
    )


def shot(page: Page, name: str) -> None:
    if folder := os.environ.get("UPLOAD_SHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


@unless(missing())
def test_first_upload(tree: Root, page: Page, tmp_path: Path) -> None:
    """Every word that the page tells a person to look for is there; one slide is deployed, one fails with its reason."""
    samba = Samba(tmp_path / "samba", tree.path)
    more = f'auth = "share"\nsmb_server = "127.0.0.1:{samba.port}"\ntitle = "Slides"\n'
    panel = Served(tree.path, more=more)
    tree.start()
    seen: list[str] = []

    def look() -> None:
        seen.append(page.locator("body").inner_text())

    folder = tmp_path / "case 7"
    folder.mkdir()
    vendors.mirax_mrxs(folder)
    photo = builders.jpeg(tmp_path / "kidney 3.jpg")
    damaged = bytearray(photo.read_bytes())
    del damaged[len(damaged) // 3 : -2]
    (tmp_path / "cut off.jpg").write_bytes(damaged)
    big = tmp_path / "liver 12.svs"
    # It is cancelled long before its end, on a machine of any speed.
    big.write_bytes(os.urandom(200 << 20))
    try:
        page.goto(f"http://{panel.address}/")
        look()
        page.get_by_label("Name").fill(samba.user)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Add files").first.click()
        look()
        page.get_by_label("Project (optional)").fill("Kidney")
        slowed(page, 1 << 20)
        dragged(page, big, folder)
        rows = page.locator("#list > li")
        expect(rows).to_have_count(2)
        expect(rows.first.locator(".badge")).to_have_text("Uploading")
        page.wait_for_timeout(1500)
        look()
        shot(page, "upload-moving")
        page.get_by_role("button", name="Pause").click()
        expect(rows.first.locator(".badge")).to_have_text("Paused")
        [growing] = (tree.path / "inbox/.uploads").glob("*/tree/liver 12.svs")
        page.wait_for_timeout(1500)
        held = growing.stat().st_size
        page.wait_for_timeout(1500)
        assert growing.stat().st_size == held
        look()
        page.get_by_role("button", name="Resume").click()
        tree.wait(lambda: growing.stat().st_size > held)
        rows.first.get_by_role("button", name="Cancel").click()
        expect(rows.first.locator(".badge")).to_have_text("Cancelled")
        # Nothing of it stays, though its client was in the middle of a request.
        tree.wait(lambda: not growing.exists())
        slowed(page, -1)
        dragged(page, photo, tmp_path / "cut off.jpg")
        expect(rows).to_have_count(4)
        badges = page.locator("#list .badge")
        expect(badges.nth(1)).to_have_text("Deployed", timeout=90_000)
        expect(badges.nth(2)).to_have_text(re.compile("Converted|Deployed"), timeout=90_000)
        expect(badges.nth(3)).to_have_text(re.compile("Error"), timeout=90_000)
        expect(rows.nth(3).locator(".said")).not_to_have_text("")
        look()
        shot(page, "upload-failed")
        reason = rows.nth(3).locator(".said").inner_text()
        rows.nth(3).locator("a.name").click()
        expect(page.locator("h1")).to_have_text("cut off.jpg")
        assert reason.split(".")[0] in page.locator("body").inner_text()
        look()
    finally:
        panel.stop()
        samba.stop()
    names = {one["name"]: one["status"] for one in tree.manifests().values()}
    assert names["CMU-1.mrxs"] == "DEPLOYED"
    assert names["kidney 3.jpg"] == "CONVERTED"
    assert "liver 12.svs" not in names
    assert tree.stop() == 0
    # What the page calls by its name is called so.
    text = re.sub(r"!?\[[^]]*\]\([^)]*\)", "", PAGE.read_text())
    words = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text)) - {"Failed"}
    assert len(words) > 10
    shown = "\n".join(seen).lower()
    assert [word for word in sorted(words) if word.lower() not in shown] == []
