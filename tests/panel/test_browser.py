"""The panel in a real Chromium: what a person does, with a mouse, with keys only, in the dark, on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Error, Page, Route, expect, sync_playwright

from cytowatch.panel.sessions import COOKIE, Sessions
from cytowatch.tree.spool import Spool
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.lab.samba import PASSWORD, Samba, missing
from tests.needs import CHROMIUM, unless

pytestmark = unless(None if CHROMIUM else "missing: chromium (Debian: apt install chromium)")

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's own Chromium."""
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def panel(made: Root) -> Iterator[Served]:
    """On the tree that is only looked at."""
    served = Served(made.path, words=("--actions",))
    yield served
    served.stop()


class Watched:
    """Guards that a page says nothing is wrong: no script of a name runs, nothing is refused or lost."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        #: What was asked before a change, and agreed to.
        self.asked: list[str] = []
        self.agrees = False
        page.on("dialog", self._answer)
        page.on("pageerror", lambda one: self.wrong.append(str(one)))
        page.on(
            "console",
            lambda one: self.wrong.append(one.text) if one.type in ("error", "warning") else None,
        )

    def _answer(self, dialog: Dialog) -> None:
        (self.asked if self.agrees else self.wrong).append(dialog.message)
        dialog.accept() if self.agrees else dialog.dismiss()


def opened(browser: Browser, served: Served, **more: object) -> Watched:
    context = browser.new_context(base_url=f"http://{served.address}", **more)  # type: ignore[arg-type]
    return Watched(context.new_page())


def pages(ids: dict[str, str]) -> list[str]:
    return [
        "/", "/files", "/files?status=error", f"/files/{ids['photo.jpg']}", f"/files/{ids['broken.jpg']}",
        f"/files/{ids['scans.zip']}", "/projects", "/projects/Trial%207", "/reasons", "/reasons/damaged", "/upload",
        f"/files/{ids['photo.jpg']}/view",
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_those_who_see_or_move_otherwise(
    browser: Browser, panel: Served, ids: dict[str, str], scheme: str
) -> None:
    """axe finds nothing serious on any page (WCAG 2.2 AA), in light and in dark, on a desk and on a phone."""
    found: list[str] = []
    # Colours are the same at any width, and what is laid out otherwise on a phone is in light as well.
    for width in (1280, 360) if scheme == "light" else (1280,):
        watched = opened(
            browser, panel, color_scheme=scheme, viewport={"width": width, "height": 760}
        )
        for path in pages(ids):
            watched.page.goto(path)
            if path.endswith("/view"):
                # The picture itself is drawn later; its controls are there from the start.
                watched.page.wait_for_timeout(300)
            watched.page.evaluate(AXE)
            result = watched.page.evaluate(
                "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
            )
            found += [
                f"{path} {width} {one['id']}: {one['nodes'][0]['html'][:200]}"
                for one in result["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            wide = watched.page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not wide, f"{path} is wider than {width} px"
        assert watched.wrong == []
        watched.page.context.close()
    assert found == []


def test_dark_is_dark(browser: Browser, panel: Served) -> None:
    """By the system's wish; a slide lies on light glass in both."""
    ground = {}
    for scheme in ("light", "dark"):
        watched = opened(browser, panel, color_scheme=scheme)
        watched.page.goto("/")
        said = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        ground[scheme] = sum(map(int, re.findall(r"\d+", said)[:3]))
        glass = watched.page.evaluate(
            "getComputedStyle(document.querySelector('.glass')).backgroundColor"
        )
        assert sum(map(int, re.findall(r"\d+", glass)[:3])) > 700
        watched.page.context.close()
    assert ground["light"] > 650
    assert ground["dark"] < 120


def test_with_keys_only(browser: Browser, panel: Served, ids: dict[str, str]) -> None:
    """Skip link, search, j and k through rows, Enter, a filter: the mouse is never touched."""
    watched = opened(browser, panel)
    page = watched.page
    page.goto("/files?sort=name&order=up")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("j")
    first = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.textContent") == first
    page.keyboard.press("/")
    page.keyboard.type("slide")
    page.keyboard.press("Enter")
    page.wait_for_url("**/files?**name=slide**")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/files/{ids['slide.svs']}")
    # What has the focus is seen.
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert watched.wrong == []
    page.context.close()


def test_filters_are_the_address(browser: Browser, panel: Served, ids: dict[str, str]) -> None:
    """What is chosen stands in the address, stays after a reload, and can be sent to someone."""
    watched = opened(browser, panel)
    page = watched.page
    page.goto("/")
    page.get_by_role("link", name=re.compile("aborted")).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("broken.jpg")
    page.get_by_label("Status").select_option("deployed")
    page.get_by_label("User").fill("bob")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    address = page.url
    assert "status=deployed" in address
    assert "user=bob" in address
    page.get_by_role("link", name="Name", exact=True).click()
    expect(page.locator("tbody tr td.name")).to_have_text(["bob.tif", "shared.jpg"])
    page.reload()
    expect(page.get_by_label("User")).to_have_value("bob")
    page.goto(address)
    page.get_by_role("link", name="bob.tif").click()
    page.wait_for_url(f"**/files/{ids['bob.tif']}")
    expect(page.locator("h1")).to_have_text("bob.tif")
    assert watched.wrong == []
    page.context.close()


def test_a_download_has_its_name(browser: Browser, panel: Served, ids: dict[str, str]) -> None:
    """The original, as it was called when it was dropped."""
    watched = opened(browser, panel)
    watched.page.goto(f"/files/{ids['photo.jpg']}")
    with watched.page.expect_download() as told:
        watched.page.get_by_role("link", name="Original").click()
    assert told.value.suggested_filename == "photo.jpg"
    watched.page.context.close()


def test_without_a_script(browser: Browser, panel: Served, ids: dict[str, str]) -> None:
    """Every page reads, a filter filters: JavaScript only makes it livelier."""
    watched = opened(browser, panel, java_script_enabled=False)
    page = watched.page
    page.goto("/files")
    page.get_by_label("Name contains").fill("slide")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="slide.svs").click()
    expect(page.locator("h1")).to_have_text("slide.svs")
    expect(page.locator("body")).to_contain_text("every level read back")
    page.context.close()


def test_a_page_grows_by_itself(browser: Browser, own: Root, made: Root) -> None:
    """A drop appears, moves and is deployed on an open page; while text is selected nothing changes."""
    own.start()
    panel = Served(own.path, words=("--actions",))
    try:
        watched = opened(browser, panel)
        page = watched.page
        page.goto("/")
        count = page.locator("#g-deployed b")
        before = count.inner_text()
        page.evaluate(
            "() => { const range = document.createRange(); range.selectNodeContents(document.querySelector('h2'));"
            " getSelection().removeAllRanges(); getSelection().addRange(range); }"
        )
        source = next(made.path.glob("storage/bob/*shared*/source/*"))
        own.drop(source, "late.jpg", user="bob")
        own.wait(lambda: own.by_name().get("late.jpg", {}).get("status") == "CONVERTED")
        page.wait_for_timeout(2500)
        assert count.inner_text() == before
        page.evaluate("getSelection().removeAllRanges()")
        page.reload()
        expect(page.locator("body")).to_contain_text("late.jpg")
        own.drop(source, "later.jpg", user="bob")
        expect(page.locator("body")).to_contain_text("later.jpg", timeout=30_000)
        assert watched.wrong == []
        page.context.close()
    finally:
        panel.stop()


def test_what_an_admin_does(browser: Browser, own: Root, ids: dict[str, str]) -> None:
    """Try again, show in a project, take out, pause, let go on, hand back: each is done by the daemon."""
    own.start()
    panel = Served(own.path, more='title = "Lab"', words=("--actions",))
    try:
        watched = opened(browser, panel)
        page = watched.page
        page.goto(f"/files/{ids['photo.jpg']}")
        page.get_by_label("Show it in").fill("Kidney <b>")
        page.get_by_role("button", name="Add").click()
        # Such a name no folder can have on every share.
        expect(page.locator("body")).to_contain_text("cannot be the name of a project")
        page.go_back()
        page.get_by_label("Show it in").fill("Kidney")
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("status")).to_contain_text("in the project")
        assert (own.path / "projects" / "Kidney").is_dir()
        page.get_by_role("button", name="Take it out of Kidney").click()
        expect(page.get_by_role("status")).to_contain_text("no longer in the project")
        assert not (own.path / "projects" / "Kidney").exists()
        page.goto("/")
        watched.agrees = True
        page.get_by_role("button", name="Pause everyone").click()
        expect(page.locator("body")).to_contain_text("Everyone paused")
        assert (own.path / "state" / "paused.json").exists()
        page.get_by_role("button", name="Let everyone go on").click()
        expect(page.get_by_role("button", name="Pause everyone")).to_be_visible()
        page.goto(f"/files/{ids['broken.jpg']}")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("status")).to_contain_text("tried again")
        own.wait(lambda: own.by_name()["broken.jpg"]["status"].startswith("ERROR"))
        page.goto(f"/files/{ids['broken.jpg']}")
        page.get_by_role("button", name="Hand the original back").click()
        page.wait_for_url("**/?done=return")
        assert (own.path / "inbox" / "ann" / "_returned" / "broken.jpg").exists()
        page.context.close()
        assert len(watched.asked) == 2
        done = [line["action"] for line in panel.lines("action") if line["refused"] is None]
        assert done == ["link", "unlink", "pause", "resume", "retry", "return"]
        requested = [line for line in own.log.read_text().splitlines() if '"requested"' in line]
        assert len(requested) == 6
        assert all('"by": "panel"' in line for line in requested)
    finally:
        panel.stop()


@unless(missing())
def test_a_person_logs_in_and_out(browser: Browser, own: Root, tmp_path: Path) -> None:
    """With the password of the share, at a real smbd; a link that was sent is open after the log-in."""
    samba = Samba(tmp_path / "samba", own.path)
    more = f'auth = "share"\nsmb_server = "127.0.0.1:{samba.port}"\nadmins = ["{samba.user}"]\n'
    panel = Served(own.path, more=more)
    try:
        watched = opened(browser, panel)
        page = watched.page
        page.goto("/files?name=slide")
        page.wait_for_url("**/login?**")
        page.get_by_label("Name").fill(samba.user)
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("wrong")
        page.get_by_label("Name").fill(samba.user)
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/files?name=slide")
        expect(page.locator("tbody")).to_contain_text("slide.svs")
        expect(page.locator("header")).to_contain_text(samba.user)
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        page.goto("/files")
        page.wait_for_url("**/login?**")
        page.context.close()
    finally:
        panel.stop()
        samba.stop()


def hurried(page: Page) -> None:
    """Let the page ask again three times a second, not every quarter of a minute."""

    def answer(route: Route) -> None:
        try:
            came = route.fetch(max_redirects=0)
        except Error:
            route.abort()
            return
        body = re.sub(r'data-every="\d+"', 'data-every="0.3"', came.text())
        route.fulfill(response=came, body=body)

    page.route(re.compile(r"/$|/live/storage$"), answer)


def test_a_page_says_that_it_is_old(browser: Browser, own: Root) -> None:
    """The panel ends under an open page: it says so, and from when it is, until the panel is there again."""
    panel = Served(own.path, words=("--actions",))
    try:
        watched = opened(browser, panel)
        page = watched.page
        hurried(page)
        page.goto("/")
        count = page.locator("#g-deployed b").inner_text()
        panel.stop()
        notice = page.get_by_role("status")
        expect(notice).to_contain_text("The panel does not answer.", timeout=HANGS_S * 1000)
        expect(notice).to_contain_text(re.compile(r"as it was at \d\d:\d\d"))
        # What is known stays on the page.
        assert page.locator("#g-deployed b").inner_text() == count
        panel.start()
        expect(notice).to_have_count(0, timeout=HANGS_S * 1000)
        page.context.close()
    finally:
        panel.stop()


def test_a_log_in_that_ended_is_asked_for_again(browser: Browser, own: Root) -> None:
    """Under an open page, after its twelve hours: it leads to the log-in by itself, and does not stay as it was."""
    panel = Served(own.path, more='auth = "share"\n')
    try:
        watched = opened(browser, panel)
        page = watched.page
        cookie = Sessions(Spool.open(own.path)).cookie_for("ann")
        page.context.add_cookies(
            [{"name": COOKIE, "value": cookie, "url": f"http://{panel.address}"}]
        )
        hurried(page)
        page.goto("/")
        expect(page.locator("header")).to_contain_text("ann")
        page.context.clear_cookies()
        page.wait_for_url("**/login?next=%2F")
        page.context.close()
    finally:
        panel.stop()
