"""Draw docs/pictures/watch.svg: `cytowatch watch` beside a daemon that converts, waits and fails.

`python docs/pictures.py`; everything on it is from a run that it makes.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyvips
from rich.console import Console

from cytowatch.cli.lists import today
from cytowatch.cli.picture import draw
from cytowatch.cli.watch import Looks, frame
from cytowatch.tree.spool import Spool

HOUSE = Path(__file__).resolve().parents[1]
_CONFIG = """root = "{root}"
[inbox]
quiet_s = 0.5
[engine]
workers = 2
threads_per_worker = 1
[convert]
compression = "lossless"
[storage]
reserve_bytes = 0
[metrics]
listen = ""
"""


def _image(path: Path, size: int, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    pyvips.Image.new_from_array(noise).copy(interpretation="srgb").write_to_file(str(path))
    return path


def _drop(spool: Spool, folder: Path) -> None:
    for user in ("ann", "bob", "scanner-2"):
        (spool.inbox / user).mkdir()
    (spool.inbox / "bob" / "letter.pdf").write_bytes(b"%PDF-1.4 hello")
    small = _image(folder / "small.png", 300, 1)
    for number in range(6):
        (spool.inbox / "ann" / f"core-{number}.png").write_bytes(small.read_bytes())
    cut = _image(folder / "cut.jpg", 900, 2).read_bytes()
    (spool.inbox / "scanner-2" / "CMU-7.jpg").write_bytes(cut[: len(cut) // 2])
    for number, (user, size) in enumerate((("ann", 9000), ("scanner-2", 12000), ("bob", 7000))):
        large = _image(folder / f"section-{'ABC'[number]}.tif", size, 3 + number)
        large.rename(spool.inbox / user / large.name)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        spool = Spool.create(folder / "root")
        (folder / "config.toml").write_text(_CONFIG.format(root=spool.root))
        _drop(spool, folder)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "cytowatch", "run", "--config", str(folder / "config.toml")],
            stdout=subprocess.DEVNULL,
        )
        try:
            looks = Looks()
            end = time.monotonic() + 600
            while True:
                page = frame(spool, looks, time.monotonic())
                known = [row for row in page["in_work"] if row["left_s"]]
                if known and len(page["in_work"]) >= 2 and len(page["ended"]) >= 7:
                    break
                if len(page["ended"]) >= 10 or time.monotonic() > end:
                    raise SystemExit("it did not come to what the picture shows")
                time.sleep(0.3)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(draw(page, 80, 24, today()))
    picture = HOUSE / "docs" / "pictures" / "watch.svg"
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(console.export_svg(title="cytowatch watch"))
    print(picture)


if __name__ == "__main__":
    main()
