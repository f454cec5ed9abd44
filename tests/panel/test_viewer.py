"""The viewer in a real Chromium: the right pixels, the right scale, and a link that shows the same field."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import builders
from tests.builders import others, vendors
from tests.lab.panel import Served
from tests.lab.root import Root
from tests.needs import CHROMIUM, unless
from tests.panel.test_browser import Watched

pytestmark = unless(None if CHROMIUM else "missing: chromium (Debian: apt install chromium)")

#: A field of the screen without anything over the slide: x, y, width, height.
CLEAR = (300, 140, 480, 300)
WIDE = builders.picture(1000, 800)[:, :, 0].astype(np.uint16) * 40 + 300


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's own Chromium."""
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A known picture as SVS (levels step by four, tiles as they lie) and as NDPI (decoded), and more."""
    folder = tmp_path_factory.mktemp("viewer")
    root = Root(folder / "root")
    root.create()
    builders.aperio_svs(folder / "slide.svs", width=2000, height=1500)
    vendors.ndpi(folder / "slide.ndpi", width=2048, height=1536)
    vendors.philips_tiff(folder / "philips.tiff")
    builders.jpeg(folder / "photo.jpg", width=900, height=700)
    others.czi(folder / "scenes.czi", scenes=2)
    tifffile.imwrite(folder / "wide.tif", WIDE)
    with tifffile.TiffWriter(folder / "rgb.tif") as tiff:
        for step in (1, 2):
            tiff.write(
                np.ascontiguousarray(builders.picture(1200, 900)[::step, ::step]), tile=(256, 256),
                compression="jpeg", compressionargs={"level": 92, "outcolorspace": "rgb"},
                photometric="rgb", metadata=None, subfiletype=step - 1,
            )  # fmt: skip
    for name in (
        "rgb.tif",
        "slide.svs",
        "slide.ndpi",
        "philips.tiff",
        "photo.jpg",
        "scenes.czi",
        "wide.tif",
    ):
        root.drop(folder / name)
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    return root


@pytest.fixture(scope="module")
def found(slides: Root) -> dict[str, dict[str, Any]]:
    return slides.by_name()


@pytest.fixture(scope="module")
def panel(slides: Root) -> Iterator[Served]:
    served = Served(slides.path)
    yield served
    served.stop()


@pytest.fixture
def watched(browser: Browser, panel: Served) -> Iterator[Watched]:
    """A page of 1080 x 746 pixels; nothing may be wrong with it at the end."""
    context = browser.new_context(
        base_url=f"http://{panel.address}", viewport={"width": 1080, "height": 746},
        reduced_motion="reduce",
    )  # fmt: skip
    page = Watched(context.new_page())
    asked: list[str] = []
    page.page.on("request", lambda one: asked.append(one.url))
    yield page
    context.close()
    assert page.wrong == []
    assert {urlsplit(one).netloc for one in asked} == {panel.address}


def show(page: Page, document: dict[str, Any], fragment: str = "") -> None:
    page.goto("about:blank")
    page.goto(f"/files/{document['id']}/view{fragment}")
    settle(page)


def settle(page: Page) -> None:
    """Until every tile of the view is drawn."""
    page.wait_for_selector("#viewer[aria-busy=false]", timeout=30_000)
    page.wait_for_timeout(350)
    page.wait_for_selector("#viewer[aria-busy=false]", timeout=30_000)


def screen(page: Page, clip: tuple[int, int, int, int] = CLEAR) -> np.ndarray:
    x, y, width, height = clip
    data = page.screenshot(clip={"x": x, "y": y, "width": width, "height": height})
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def field(page: Page) -> dict[str, float]:
    """What the fragment of the address says."""
    said = parse_qs(urlsplit(page.url).fragment)
    return {name: float(values[0]) for name, values in said.items()}


def right(document: dict[str, Any], page: Page, said: dict[str, float]) -> np.ndarray:
    """What must be seen in `CLEAR`, as OpenSlide reads it from the largest level."""
    box = page.locator("#viewer").bounding_box()
    assert box
    x = said["x"] + (CLEAR[0] - box["x"] - box["width"] / 2) / said["zoom"]
    y = said["y"] + (CLEAR[1] - box["y"] - box["height"] / 2) / said["zoom"]
    width, height = CLEAR[2] / said["zoom"], CLEAR[3] / said["zoom"]
    with openslide.OpenSlide(document["_path"] / document["images"][0]["file"]) as slide:
        whole = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
    # A half pixel at each side has no neighbour to be mixed with.
    cut = whole.transform(
        (CLEAR[2], CLEAR[3]), Image.Transform.EXTENT, (x, y, x + width, y + height),
        Image.Resampling.BILINEAR,
    )  # fmt: skip
    return np.asarray(cut).astype(int)


@pytest.mark.parametrize("name", ["slide.svs", "slide.ndpi"])
def test_a_known_picture_at_three_zooms(
    watched: Watched, found: dict[str, dict[str, Any]], name: str
) -> None:
    """At 20x pixel for pixel; reduced to 8x from the smaller level, and enlarged to 40x."""
    page, document = watched.page, found[name]
    for zoom, most in ((1, 1.0), (0.4, 2.5), (2, 2.0)):
        said = {"x": 900.0, "y": 700.0, "zoom": zoom}
        show(page, document, f"#x={said['x']}&y={said['y']}&zoom={zoom}")
        seen, wanted = screen(page), right(document, page, said)
        off = np.abs(seen - wanted)
        assert off.mean() < most, (zoom, off.mean())
        # The same a few pixels beside would be another picture.
        assert np.abs(seen[:, 8:] - wanted[:, :-8]).mean() > 1.5 * off.mean() + 0.5
        power = 20 * zoom
        expect(page.locator("#power b")).to_have_text(f"{power:g}×")


def test_pixel_for_pixel_nothing_is_changed(
    watched: Watched, found: dict[str, dict[str, Any]]
) -> None:
    """Tiles that are not decoded by the panel come to the screen as OpenSlide reads them.

    Their samples are RGB: for YCbCr a browser has a formula of its own, some steps off libjpeg's.
    """
    page, document = watched.page, found["rgb.tif"]
    said = {"x": 600.0, "y": 500.0, "zoom": 1.0}
    show(page, document, "#x=600&y=500&zoom=1")
    assert np.abs(screen(page) - right(document, page, said)).max() == 0


def test_the_scale_bar_is_as_long_as_it_says(
    watched: Watched, found: dict[str, dict[str, Any]]
) -> None:
    """At each zoom its pixels times the size of a pixel are its length; without a size it says so."""
    page, document = watched.page, found["slide.svs"]
    mpp = document["images"][0]["mpp_x"]
    lengths = set()
    for zoom in (0.3, 1, 3):
        show(page, document, f"#x=900&y=700&zoom={zoom}")
        bar = page.locator("#bar").bounding_box()
        assert bar
        text = page.locator("#length").inner_text()
        number, unit = re.fullmatch(r"([\d.]+) (nm|µm|mm)", text).groups()  # type: ignore[union-attr]
        um = float(number) * {"nm": 0.001, "µm": 1, "mm": 1000}[unit]
        assert field(page)["zoom"] == zoom
        assert bar["width"] * mpp / zoom == pytest.approx(um, rel=0.01)
        assert 40 < bar["width"] <= 180
        assert f"{number[0]}" in "125"
        lengths.add(text)
    assert len(lengths) == 3
    assert "µm/px" in page.locator("#power").inner_text()
    show(page, found["photo.jpg"])
    expect(page.locator("#scale")).to_have_text("No scale: this slide states no pixel size")
    expect(page.locator("#bar")).to_be_hidden()
    # Nor is a magnification made up.
    expect(page.locator("#power")).to_have_text(re.compile(r"^\d+ %$"))
    assert page.locator("[data-step]").all_inner_texts() == ["25 %", "50 %", "100 %"]


def test_a_link_shows_the_same_field(watched: Watched, found: dict[str, dict[str, Any]]) -> None:
    """Position, zoom and turn are in the address; opened again, the screen is the same."""
    page, document = watched.page, found["slide.svs"]
    show(page, document)
    whole = field(page)
    assert (whole["x"], whole["y"]) == (1000, 750)
    page.keyboard.press("3")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "r"):
        page.keyboard.press(key)
    settle(page)
    said, seen, address = field(page), screen(page), page.url
    assert said["turn"] == 90
    assert said["zoom"] == pytest.approx(1, rel=0.01)
    # Turned to the right, what is right on the screen is up in the slide.
    assert (said["x"], said["y"]) != (whole["x"], whole["y"])
    page.goto("about:blank")
    page.goto(address)
    settle(page)
    assert np.abs(screen(page) - seen).mean() < 0.5
    assert page.url == address
    # By hand in the address bar, too; what is not a field shows the whole slide.
    page.evaluate("location.hash = '#x=500&y=400&zoom=2'")
    settle(page)
    now = field(page)
    assert (now["x"], now["y"], now["zoom"]) == (500, 400, 2)
    for odd in (
        "#x=NaN&y=1&zoom=1",
        "#x=1&y=1&zoom=-1",
        "#zoom=1e999",
        "#%00<script>",
        "#scene=99",
        "#turn=inf",
    ):
        show(page, document, odd)
        assert field(page) == whole


def test_turned_it_is_the_same_picture_turned(
    watched: Watched, found: dict[str, dict[str, Any]]
) -> None:
    """By ninety degrees, pixel for pixel."""
    page, document = watched.page, found["slide.svs"]
    side = (340, 200, 300, 300)
    box = page.viewport_size
    assert box
    show(page, document, "#x=900&y=700&zoom=1")
    stage = page.locator("#viewer").bounding_box()
    assert stage
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    side = (int(middle[0] - 150), int(middle[1] - 150), 300, 300)
    straight = screen(page, side)
    show(page, document, "#x=900&y=700&zoom=1&turn=90")
    turned = screen(page, side)
    assert np.abs(np.rot90(straight, -1) - turned).mean() < 1.5


def test_scenes_are_a_strip(watched: Watched, found: dict[str, dict[str, Any]]) -> None:
    """Each has its thumbnail; the address names the one that is open; brackets go through them."""
    page, document = watched.page, found["scenes.czi"]
    show(page, document)
    scenes = page.locator("#scenes button")
    assert scenes.count() == 2
    expect(scenes.nth(0)).to_have_attribute("aria-current", "true")
    assert page.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
    top = (500, 56, 100, 20)
    first = screen(page, top)
    scenes.nth(1).click()
    settle(page)
    assert field(page)["scene"] == 1
    assert np.abs(screen(page, top) - first).mean() > 20
    page.keyboard.press("[")
    settle(page)
    assert field(page)["scene"] == 0
    assert np.abs(screen(page, top) - first).mean() < 1
    show(page, document, "#scene=1")
    expect(page.locator("#scenes button").nth(1)).to_have_attribute("aria-current", "true")
    # One scene needs no strip.
    show(page, found["slide.svs"])
    expect(page.locator("#scenes")).to_be_hidden()


def test_sixteen_bits_are_windowed_by_hand(
    watched: Watched, found: dict[str, dict[str, Any]]
) -> None:
    """Sliders for black and white, in the address as well; one press takes them back."""
    page, document = watched.page, found["wide.tif"]
    show(page, document, "#x=500&y=400&zoom=1")
    before = screen(page)
    page.keyboard.press("w")
    expect(page.locator("#window")).to_be_visible()
    page.wait_for_function("document.querySelector('#window output').textContent !== ''")
    page.locator("#window input[name=high]").fill("4000")
    page.wait_for_timeout(400)
    settle(page)
    said = field(page)
    assert said["high"] == 4000
    brighter = screen(page)
    assert brighter.mean() > before.mean() + 20
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    settle(page)
    assert np.abs(screen(page) - brighter).mean() < 1
    page.keyboard.press("w")
    page.locator("#window button").click()
    page.wait_for_timeout(400)
    settle(page)
    assert "high" not in field(page)
    assert np.abs(screen(page) - before).mean() < 1
    # Of eight bits there is nothing to be windowed.
    show(page, found["slide.svs"])
    expect(page.locator("[data-do=window]")).to_be_hidden()


def test_labels_are_nowhere_unless_that_is_wished(
    browser: Browser, slides: Root, watched: Watched, found: dict[str, dict[str, Any]]
) -> None:
    """Neither a button nor a picture; with `labels = true` a key shows them."""
    page, document = watched.page, found["philips.tiff"]
    show(page, document)
    expect(page.locator("[data-do=label]")).to_be_hidden()
    page.keyboard.press("l")
    assert page.locator("#label img").count() == 0
    served = Served(slides.path, more="labels = true")
    try:
        context = browser.new_context(base_url=f"http://{served.address}")
        shown = Watched(context.new_page())
        show(shown.page, document)
        shown.page.keyboard.press("l")
        expect(shown.page.locator("#label img")).to_have_count(2)
        shown.page.wait_for_function(
            "[...document.querySelectorAll('#label img')].every(one => one.naturalWidth > 0)"
        )
        expect(shown.page.locator("#label")).to_be_visible()
        context.close()
        assert shown.wrong == []
    finally:
        served.stop()


def test_with_keys_only(watched: Watched, found: dict[str, dict[str, Any]]) -> None:
    """Every button is reached by Tab and says what it does; the keys are listed."""
    page, document = watched.page, found["slide.svs"]
    show(page, document)
    names = []
    for _ in range(16):
        page.keyboard.press("Tab")
        names.append(page.evaluate(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
        ))  # fmt: skip
    for name in ("Fit", "5×", "20×", "Zoom in", "Turn left", "Map", "Full screen", "Keys"):
        assert name in names
    for key, power in (("2", "5×"), ("3", "20×"), ("4", "40×")):
        page.keyboard.press(key)
        expect(page.locator("#power b")).to_have_text(power)
    zoom = field(page)
    page.keyboard.press("-")
    settle(page)
    assert field(page)["zoom"] < 2
    assert zoom
    page.keyboard.press("m")
    expect(page.locator("#map")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("0")
    settle(page)
    assert field(page)["x"] == 1000
    page.keyboard.press("b")
    page.wait_for_url(f"**/files/{document['id']}")


def test_on_a_phone_it_fits(
    browser: Browser, panel: Served, found: dict[str, dict[str, Any]]
) -> None:
    """At 360 pixels nothing is wider than the screen, and nothing lies over something else."""
    context = browser.new_context(
        base_url=f"http://{panel.address}", viewport={"width": 360, "height": 640}, has_touch=True
    )
    shown = Watched(context.new_page())
    for name in ("slide.svs", "scenes.czi", "wide.tif"):
        show(shown.page, found[name])
        assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        boxes = {
            one: shown.page.locator(f"#{one}").bounding_box() for one in ("scale", "power", "map")
        }
        places = [one for one in boxes.values() if one]
        assert len(places) == 3
        for index, one in enumerate(places):
            for other in places[index + 1 :]:
                apart = (
                    one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
                    or one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
                )  # fmt: skip
                assert apart, (name, boxes)
    context.close()
    assert shown.wrong == []


def test_without_a_script_or_a_slide_it_says_so(
    browser: Browser, panel: Served, found: dict[str, dict[str, Any]]
) -> None:
    """What the viewer needs, or that the slide is gone; never an empty room."""
    context = browser.new_context(base_url=f"http://{panel.address}", java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/files/{found['slide.svs']['id']}/view")
    expect(page.get_by_text("The viewer needs JavaScript")).to_be_visible()
    context.close()
    context = browser.new_context(base_url=f"http://{panel.address}")
    page = context.new_page()
    page.route("**/info.json", lambda route: route.fulfill(status=404))
    page.goto(f"/files/{found['slide.svs']['id']}/view")
    expect(page.get_by_role("alert")).to_have_text(re.compile("no longer here"))
    page.unroute("**/info.json")
    page.route("**/info.json", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_have_text(re.compile("does not answer"))
    context.close()
