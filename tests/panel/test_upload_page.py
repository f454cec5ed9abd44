"""The page *Add files* in a real Chromium: what it says of what cannot be added."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from cytowatch.panel.sessions import COOKIE, Sessions
from cytowatch.tree.spool import Spool
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.needs import CHROMIUM, unless

pytestmark = unless(None if CHROMIUM else "missing: chromium (Debian: apt install chromium)")

#: A folder as a browser hands it over: its files, of which one may fail.
DROP = """(names) => {
  const file = (name) => ({ isFile: true, name, fullPath: `/case/${name}`, file: (good, bad) =>
    name === "broken" ? bad(new DOMException("no", "NotReadableError")) : good(new File(["abc"], name)) });
  const folder = { isFile: false, name: "case", fullPath: "/case", createReader: () => {
    const left = [names.map(file), []];
    return { readEntries: (good) => good(left.shift()) };
  } };
  const event = new Event("drop", { bubbles: true, cancelable: true });
  event.dataTransfer = { items: [{ kind: "file", webkitGetAsEntry: () => folder, getAsFile: () => null }] };
  document.dispatchEvent(event);
}"""


@pytest.fixture
def panel(tree: Root) -> Iterator[Served]:
    """With a log-in, so that it can end."""
    served = Served(tree.path, more=f'auth = "share"\nupload_bytes_per_s = {4 << 20}\n')
    yield served
    served.stop()


@pytest.fixture
def page(tree: Root, panel: Served) -> Iterator[Page]:
    """The page, as Ann sees it."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(base_url=f"http://{panel.address}")
        cookie = Sessions(Spool.open(tree.path)).cookie_for("ann")
        context.add_cookies([{"name": COOKIE, "value": cookie, "url": f"http://{panel.address}"}])
        opened = context.new_page()
        opened.goto("/upload")
        yield opened
        browser.close()


def test_a_folder_that_cannot_be_read_whole_is_not_added(tree: Root, page: Page) -> None:
    """Part of it would arrive as if it were all; that is said, and stays on the page."""
    page.evaluate(DROP, ["a.svs", "broken", "c.svs"])
    expect(page.locator("#said")).to_have_text(
        "case cannot be read as a whole, so nothing of it is added."
    )
    expect(page.locator("#list > li")).to_have_count(0)
    page.evaluate(DROP, [])
    expect(page.locator("#said")).to_have_text("There is no file in it.")
    page.evaluate(DROP, ["a.svs", "Thumbs.db"])
    expect(page.locator("#said")).to_have_text("1 temporary file was left out.")
    tree.wait((tree.path / "inbox/ann/case/a.svs").exists)


def test_what_waits_says_what_to_do(tree: Root, panel: Served, page: Page, tmp_path: Path) -> None:
    """First that nobody works, then what is the matter with the file, in the words of the other pages."""
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    page.locator("#files").set_input_files(tmp_path / "a.jpg")
    said = page.locator("#list .said")
    expect(said).to_contain_text(
        "because no daemon runs. Tell your administrator.", timeout=HANGS_S * 1000
    )
    tree.start()
    expect(said).to_contain_text("Copy it again", timeout=HANGS_S * 1000)
    assert tree.stop() == 0


def test_a_log_in_that_ends_meanwhile_is_said(page: Page, panel: Served, tmp_path: Path) -> None:
    """An upload may take longer than twelve hours; it goes on after another log-in."""
    (tmp_path / "big.svs").write_bytes(os.urandom(48 << 20))
    page.locator("#files").set_input_files(tmp_path / "big.svs")
    expect(page.locator("#s-all")).to_contain_text("/s")
    page.context.clear_cookies()
    expect(page.locator("#list .said")).to_contain_text(
        "You are no longer logged in.", timeout=HANGS_S * 1000
    )
