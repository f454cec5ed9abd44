"""Many small files, against a bare loop on two processes without any promise. Usage: many.py [FILES] [ROUNDS]

The bare loop hashes, converts, fsyncs and renames the same files. Then a large backlog: how soon it is
claimed, and what the daemon holds in memory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

CONFIG = """
[inbox]
quiet_s = {quiet}
rescan_s = 5.0
[storage]
reserve_bytes = 0
[metrics]
listen = ""
[log]
format = "json"
level = "{level}"
"""


def make(folder: Path, count: int) -> None:
    from PIL import Image

    dice = np.random.default_rng(1)
    base = Image.fromarray(dice.integers(0, 255, (64, 64, 3), np.uint8)).resize((512, 512))
    for number in range(count):
        base.rotate(number % 360).save(folder / f"{number:05}.jpg", quality=90)


def bare_one(arguments: tuple[str, str]) -> None:
    import hashlib

    import pyvips

    source, out = arguments
    data = Path(source).read_bytes()
    hashlib.sha256(data).hexdigest()
    image = pyvips.Image.new_from_file(source, access="sequential")
    image.tiffsave(
        f"{out}.tmp", tile=True, tile_width=256, tile_height=256, pyramid=True, compression="jpeg",
        Q=90,
    )  # fmt: skip
    with open(f"{out}.tmp", "rb") as file:
        os.fsync(file.fileno())
    os.rename(f"{out}.tmp", out)


def bare(folder: Path, out: Path) -> float:
    out.mkdir()
    work = [(str(path), str(out / f"{path.stem}.tif")) for path in sorted(folder.iterdir())]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(bare_one, work[:2])
        began = time.perf_counter()
        pool.map(bare_one, work, chunksize=8)
        return time.perf_counter() - began


class Daemon:
    def __init__(self, folder: Path, *, quiet: float = 1.0, level: str = "warning") -> None:
        self.root = folder / "root"
        subprocess.run(
            [sys.executable, "-m", "cytowatch", "init", str(self.root)], check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (self.root / "inbox" / "ann").mkdir()
        (folder / "c.toml").write_text(CONFIG.format(quiet=quiet, level=level))
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cytowatch", "run", "--root", str(self.root), "--config",
                 str(folder / "c.toml")],
                stdout=log, stderr=log,
            )  # fmt: skip
        while not (self.root / "state" / "live.json").exists():
            time.sleep(0.05)

    def storage(self) -> int:
        try:
            return len(os.listdir(self.root / "storage" / "ann"))
        except FileNotFoundError:
            return 0

    def memory_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if "VmHWM" in line).split()[1]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)


def loose(folder: Path, work: Path, count: int) -> float:
    """Seconds from the last file's quiet time on until all are in storage."""
    daemon = Daemon(work)
    try:
        aside = daemon.root / "aside"
        shutil.copytree(folder, aside)
        os.sync()
        for path in aside.iterdir():
            path.rename(daemon.root / "inbox" / "ann" / path.name)
        began = time.perf_counter() + 1.0
        while daemon.storage() < count:
            time.sleep(0.02)
        return time.perf_counter() - began
    finally:
        daemon.stop()


def zipped(folder: Path, work: Path, count: int) -> float:
    daemon = Daemon(work)
    try:
        with zipfile.ZipFile(daemon.root / "batch.zip", "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
        os.sync()
        (daemon.root / "batch.zip").rename(daemon.root / "inbox" / "ann" / "batch.zip")
        began = time.perf_counter() + 1.0
        while daemon.storage() < count + 1:
            time.sleep(0.02)
        return time.perf_counter() - began
    finally:
        daemon.stop()


def backlog(work: Path, count: int) -> dict[str, float]:
    """So many files at once: when the last one has left the inbox, and the most memory."""
    daemon = Daemon(work)
    try:
        (daemon.root / "state" / "paused.json").write_text('{"everyone": false, "users": []}')
        inbox = daemon.root / "inbox" / "ann"
        aside = daemon.root / "aside"
        aside.mkdir()
        for number in range(count):
            (aside / f"{number}.txt").write_text(f"{number}")
        os.sync()
        aside.rename(inbox / "batch")
        began = time.perf_counter()
        while os.listdir(inbox):
            time.sleep(0.2)
            if time.perf_counter() - began > 600:
                break
        return {"seconds": time.perf_counter() - began, "memory_mib": daemon.memory_mib()}
    finally:
        daemon.stop()


def main(count: int, rounds: int) -> None:
    results: dict[str, list[float]] = {"bare": [], "loose": [], "zipped": []}
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).absolute()
        made = folder / "made"
        made.mkdir()
        make(made, count)
        for number in range(rounds):
            work = folder / f"w{number}"
            for what in ("l", "z"):
                (work / what).mkdir(parents=True)
            results["bare"].append(bare(made, work / "bare"))
            results["loose"].append(loose(made, work / "l", count))
            results["zipped"].append(zipped(made, work / "z", count))
            shutil.rmtree(work)
    for what, seconds in results.items():
        ratio = statistics.median(b / s for b, s in zip(results["bare"], seconds, strict=True))
        rate = count / statistics.median(seconds)
        print(
            f"{what:8} {statistics.median(seconds):7.2f} s  {rate:7.1f} files/s  {ratio:.2f} of bare"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 1000,
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
    )
