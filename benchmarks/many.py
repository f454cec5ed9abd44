"""Many small files, against a bare loop on two processes without any promise. `python -m benchmarks.many [FILES [ROUNDS]]`

The bare loop hashes, converts, fsyncs and renames the same files. Then a large backlog: how soon it is
claimed, what the daemon holds in memory, and whether each file takes as long as in a small one.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.daemon import QUIET_S, Daemon
from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool


def make(folder: Path, count: int) -> None:
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


def loose(folder: Path, work: Path, count: int) -> float:
    """Seconds from the last file's quiet time on until all are in storage."""
    with Daemon(work) as daemon:
        aside = daemon.root / "aside"
        shutil.copytree(folder, aside)
        os.sync()
        for path in aside.iterdir():
            path.rename(daemon.root / "inbox" / "ann" / path.name)
        return daemon.wait(lambda: len(daemon.stored()) >= count) - QUIET_S


def zipped(folder: Path, work: Path, count: int) -> float:
    with Daemon(work) as daemon:
        with zipfile.ZipFile(daemon.root / "batch.zip", "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
        os.sync()
        (daemon.root / "batch.zip").rename(daemon.root / "inbox" / "ann" / "batch.zip")
        return daemon.wait(lambda: len(daemon.stored()) > count) - QUIET_S


def backlog(work: Path, count: int, *, look_s: float) -> dict[str, float]:
    """So many drops at once: the rate at which they are claimed in `look_s`, and the most memory."""
    with Daemon(work, more="[engine]\nworkers = 1") as daemon:
        inbox, aside = daemon.root / "inbox" / "ann", daemon.root / "aside"
        aside.mkdir()
        for number in range(count):
            (aside / f"{number}.txt").write_text(f"{number}")
        os.sync()
        for name in os.listdir(aside):
            (aside / name).rename(inbox / name)
        daemon.wait(lambda: len(os.listdir(inbox)) < count)
        before, began = len(os.listdir(inbox)), time.perf_counter()
        while time.perf_counter() - began < look_s and os.listdir(inbox):
            time.sleep(0.2)
        claimed, seconds = before - len(os.listdir(inbox)), time.perf_counter() - began
        found = {"drops": count, "claimed_per_s": claimed / seconds, "mib": daemon.memory_mib()}
        daemon.process.kill()
        return found


def drained(work: Path, count: int, *, look_s: float) -> dict[str, float]:
    """So many tiny JPEGs in ``stages/uploaded`` at the start: the rate at which they come to storage.

    They lie there without having been claimed, so that nothing else is done meanwhile; what grows with
    their number shows, for their pixels take next to nothing.
    """
    spool = Spool.create(work / "root")
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 80)).save(buffer, "JPEG")
    for number in range(count):
        data = buffer.getvalue() + b"%d" % number
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        found = manifest.new(
            id=f"{now:%Y%m%d-%H%M%S}-0000-{number}", user="ann", name=f"{number}.jpg",
            drop_path=f"ann/{number}.jpg", now=now, software={},
            files=[FileEntry(role="source", path="source/a.jpg", size_bytes=len(data),
                             sha256=None, status="UPLOADED")],
        )  # fmt: skip
        path = spool.stage(Status.UPLOADED) / found["id"]
        (path / "source").mkdir(parents=True)
        (path / "source" / "a.jpg").write_bytes(data)
        (path / manifest.FILE_NAME).write_text(json.dumps(found))
    os.sync()
    with Daemon(work) as daemon:
        daemon.wait(lambda: len(daemon.stored()) >= 50)
        before, cpu_s, began = len(daemon.stored()), daemon.cpu_s(), time.perf_counter()
        while time.perf_counter() - began < look_s and len(daemon.stored()) < count:
            time.sleep(0.1)
        ended, seconds = len(daemon.stored()) - before, time.perf_counter() - began
        cpu_ms = (daemon.cpu_s() - cpu_s) * 1000 / ended
        found_mib = daemon.memory_mib()
        daemon.process.kill()
    return {"waiting": count, "per_s": ended / seconds, "cpu_ms": cpu_ms, "mib": found_mib}


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
    found = []
    for drops in (1000, 20_000, 100_000):
        with tempfile.TemporaryDirectory(dir=".") as name:
            found.append(backlog(Path(name).absolute(), drops, look_s=30.0))
            print(
                "{drops:7,} drops: {claimed_per_s:5.0f} claimed a second, {mib:.0f} MiB".format(
                    **found[-1]
                )
            )
    rates = []
    for waiting in (1000, 100_000, 1000):
        with tempfile.TemporaryDirectory(dir=".") as name:
            rates.append(drained(Path(name).absolute(), waiting, look_s=30.0))
            print(
                "{waiting:7,} uploaded: {per_s:.1f} deployed a second, {cpu_ms:.1f} ms of the daemon "
                "each, {mib:.0f} MiB".format(**rates[-1])
            )
    print(json.dumps({"small": results, "backlog": found, "drained": rates}))


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 1000,
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
    )
