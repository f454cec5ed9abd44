"""Take docs/pictures/viewer-*.png: a fluorescence image of 16 bits and a slide of three scenes in the viewer.

`python docs/viewer_pictures.py` makes both slides, lets a daemon deploy them, and opens each in a real Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyvips
import tifffile
from panel_pictures import ADDRESS, PICTURES, ask, running, wait_for_the_panel
from playwright.sync_api import Page, sync_playwright
from pylibCZIrw import czi

from cytowatch.cli.demo import _tissue


def nuclei(path: Path, *, width: int = 3000, height: int = 2250) -> None:
    """Nuclei as a camera of 16 bits sees them: faint, with a few bright ones, most of the range unused."""
    random = np.random.default_rng(7)
    shown = random.normal(180, 12, (height, width))
    ys, xs = np.mgrid[-24:25, -24:25]
    for _ in range(2600):
        x, y = random.integers(30, width - 30), random.integers(30, height - 30)
        # They lie in the tissue, which is a band.
        if abs(y - height / 2 - 500 * np.sin(x / 480)) > 620:
            continue
        wide, high, turn = random.uniform(8, 14), random.uniform(6, 10), random.uniform(0, np.pi)
        along = xs * np.cos(turn) + ys * np.sin(turn)
        across = -xs * np.sin(turn) + ys * np.cos(turn)
        form = np.exp(-(((along / wide) ** 2 + (across / high) ** 2) ** 2))
        light = random.choice([1400, 1900, 2600, 9000], p=[0.45, 0.35, 0.17, 0.03])
        shown[y - 24 : y + 25, x - 24 : x + 25] += light * form
    shown += random.normal(0, 1, shown.shape) * np.sqrt(np.abs(shown))
    tifffile.imwrite(
        path, np.clip(shown, 0, 65535).astype(np.uint16), resolution=(30_770, 30_770),
        resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip


def scenes(path: Path) -> None:
    """Three sections on one slide, as a CZI of three scenes."""
    with czi.create_czi(str(path)) as made:
        for number, (width, height) in enumerate(((2400, 1900), (2000, 2100), (2600, 1700))):
            section = _tissue(width, height, 11 + number).numpy()
            made.write(
                np.ascontiguousarray(section[:, :, ::-1]), location=(number * 3000, 0), scene=number
            )
        made.write_metadata("three sections", scale_x=0.5e-6, scale_y=0.5e-6)


def settle(page: Page) -> None:
    """Until every tile of the view is drawn."""
    page.wait_for_selector("#viewer[aria-busy=false]", timeout=60_000)
    page.wait_for_timeout(500)
    page.wait_for_selector("#viewer[aria-busy=false]", timeout=60_000)


def take(page: Page, name: str) -> None:
    """One picture, of no more colours than it needs."""
    path = PICTURES / f"viewer-{name}.png"
    page.screenshot(path=path)
    image = pyvips.Image.new_from_file(str(path)).copy_memory()
    image.pngsave(str(path), palette=True, Q=90, compression=9)


def main() -> None:
    """Make the slides, deploy them, open each."""
    with tempfile.TemporaryDirectory(prefix="cytowatch-pictures-") as folder:
        root = Path(folder) / "root"
        cytowatch = [sys.executable, "-m", "cytowatch"]
        subprocess.run([*cytowatch, "init", str(root)], check=True, stdout=subprocess.DEVNULL)
        inbox = root / "inbox" / "ann"
        inbox.mkdir()
        nuclei(inbox / "nuclei-DAPI.tif")
        scenes(inbox / "three-sections.czi")
        subprocess.run(
            [*cytowatch, "run", "--root", str(root), "--until-idle"], check=True, stdout=subprocess.DEVNULL
        )  # fmt: skip
        with running(Path(folder) / "panel.log", "panel", "--root", str(root), "--listen", ADDRESS):
            wait_for_the_panel()
            ids = {row["name"]: row["id"] for row in ask("/api/v1/files")}
            with sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page(
                    base_url=f"http://{ADDRESS}", viewport={"width": 1280, "height": 800}
                )
                page.goto(f"/files/{ids['nuclei-DAPI.tif']}/view#x=1500&y=1100&zoom=0.9")
                settle(page)
                page.keyboard.press("w")
                page.wait_for_function(
                    "document.querySelector('#window output').textContent !== ''"
                )
                settle(page)
                take(page, "16-bit")
                page.goto("about:blank")
                page.goto(f"/files/{ids['three-sections.czi']}/view#scene=1")
                settle(page)
                take(page, "scenes")
                browser.close()


if __name__ == "__main__":
    main()
