"""Take docs/pictures/panel-*.png: every page of the panel in a real Chromium, beside a daemon at work.

`python docs/panel_pictures.py` makes the demonstration, drops more, and takes each page in light, some
in the dark and on a phone.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pyvips
from playwright.sync_api import sync_playwright

from cytowatch.cli.demo import _tissue

HOUSE = Path(__file__).resolve().parents[1]
ADDRESS = "127.0.0.1:9783"
PICTURES = HOUSE / "docs" / "pictures"


@contextmanager
def running(log: Path, *words: str) -> Iterator[None]:
    """A command of cytowatch, while pictures are taken."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "cytowatch", *words], stdout=out, stderr=out
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ask(path: str) -> Any:
    """What the panel says, as JSON."""
    with urlopen(f"http://{ADDRESS}{path}") as answer:
        return json.loads(answer.read())


def wait_for_the_panel() -> None:
    """Return once it answers, which on a busy machine takes a while."""
    end = time.monotonic() + 120
    while True:
        try:
            ask("/api/v1/status")
        except URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def link(id_: str, project: str) -> None:
    """Show a slide in a project, as a person does in the panel."""
    body = json.dumps({"project": project}).encode()
    said = {"Content-Type": "application/json", "Origin": f"http://{ADDRESS}"}
    urlopen(Request(f"http://{ADDRESS}/api/v1/files/{id_}/link", body, said)).read()


def drop_more(root: Path) -> None:
    """Something that takes its time, something that lacks a part, something that is still written."""
    _tissue(16_000, 12_000, 8).copy(xres=4000, yres=4000).tiffsave(
        str(root.parent / "resection-12.tif"), compression="none"
    )
    inbox = root / "inbox"
    shutil.copy(root.parent / "resection-12.tif", inbox / "ann" / "resection-12.tif")
    slide = next(root.glob("storage/bob/*biopsy-7*/source/*")).read_bytes()
    (inbox / "bob" / "biopsy-8.svs").write_bytes(slide[:-40_000])


def main() -> None:
    """Make the tree, serve it, take every page."""
    with tempfile.TemporaryDirectory(prefix="cytowatch-pictures-") as folder:
        home = Path(folder) / "demo"
        subprocess.run(
            [sys.executable, "-m", "cytowatch", "demo", str(home)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        root = home / "root"
        with (
            running(home / "daemon.log", "run", "--config", str(home / "demo.toml")),
            running(
                home / "panel.log", "panel", "--root", str(root), "--listen", ADDRESS, "--actions"
            ),
        ):
            wait_for_the_panel()
            deployed = [row["id"] for row in ask("/api/v1/files?status=deployed") if row["images"]]
            for id_ in deployed[:5]:
                link(id_, "Kidney 2026")
            for id_ in deployed[3:6]:
                link(id_, "Trial 7")
            drop_more(root)
            take(root)


def take(root: Path) -> None:
    """Every page, when something is on its way."""
    rows = {row["name"]: row["id"] for row in ask("/api/v1/files?limit=100")}
    pages = {
        "files": "/files",
        "details": f"/files/{rows['section-A.tif']}",
        "failed": f"/files/{rows['damaged.jpg']}",
        "archive": f"/files/{rows['batch-3.zip']}",
        "projects": "/projects",
        "project": "/projects/Kidney%202026",
        "reason": "/reasons/damaged",
        "viewer": f"/files/{rows['section-A.tif']}/view",
    }
    end = time.monotonic() + 180
    while not any(at["share"] > 0.15 for at in ask("/api/v1/status")["in_work"].values()):
        if time.monotonic() > end:
            raise SystemExit("nothing came to be in progress")
        time.sleep(0.05)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for scheme, width, height, ending in (
            ("light", 1280, 800, ""), ("dark", 1280, 800, "-dark"), ("light", 360, 740, "-phone"),
        ):  # fmt: skip
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            shown = context.new_page()
            wanted = (
                {"storage": "/", **pages}
                if not ending
                else {"storage": "/", "details": pages["details"]}
            )
            for name, path in wanted.items():
                shown.goto(f"http://{ADDRESS}{path}")
                shown.wait_for_load_state("networkidle" if name != "storage" else "load")
                shown.wait_for_timeout(400)
                shown.screenshot(path=PICTURES / f"panel-{name}{ending}.png")
        browser.close()
    # A picture of a page needs no more than 256 colours.
    for path in PICTURES.glob("panel-*.png"):
        image = pyvips.Image.new_from_file(str(path)).copy_memory()
        image.pngsave(str(path), palette=True, Q=90, compression=9)


if __name__ == "__main__":
    main()
