"""What cytowatch adds to the bare work, as ratios within one run. Usage: run.py [ROUNDS]"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyvips

from cytowatch import tree
from cytowatch.spool import Spool

SIDE = 16_384
QUIET_S = 1.0
CONFIG = f"""
[inbox]
quiet_s = {QUIET_S}
rescan_s = 5.0
[storage]
reserve_bytes = 0
[metrics]
listen = ""
[log]
format = "json"
"""
BARE = """
import pyvips, sys, time
began = time.perf_counter()
image = pyvips.Image.new_from_file(sys.argv[1], access="sequential")
image.tiffsave(sys.argv[2], tile=True, tile_width=256, tile_height=256, pyramid=True,
               compression="jpeg", Q=90, depth="onetile")
print(time.perf_counter() - began)
"""


class Daemon:
    """A running daemon; drops are timed from the end of their write."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool.create(folder / "root")
        (self.spool.inbox / "ann").mkdir()
        (folder / "c.toml").write_text(CONFIG)
        words = ["run", "--root", str(self.spool.root), "--config", str(folder / "c.toml")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cytowatch", *words], stdout=log, stderr=log
            )
        while not (self.spool.state / "live.json").exists():
            time.sleep(0.05)

    def seconds(self, source: Path, name: str) -> float:
        """From the drop (a rename, so that writing is not timed) to storage, settling included."""
        ready = self.spool.root / name
        shutil.copyfile(source, ready)
        os.sync()
        began = time.perf_counter()
        os.rename(ready, self.spool.inbox / "ann" / name)
        while not any((self.spool.storage / "ann").glob(f"*{Path(name).stem}")):
            if time.perf_counter() - began > 300 or self.process.poll() is not None:
                raise SystemExit(
                    f"{name} was not deployed: {[e.status for e in tree.entries(self.spool)]}"
                )
            time.sleep(0.005)
        return time.perf_counter() - began

    def memory_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if "VmRSS" in line).split()[1]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def flat(path: Path) -> Path:
    """A flat RGB TIFF of SIDE x SIDE pixels, something like tissue."""
    small = pyvips.Image.gaussnoise(SIDE // 8, SIDE // 8, mean=170, sigma=40, seed=1).gaussblur(2)
    bands = small.bandjoin([small * 0.8, small * 0.9]).cast("uchar").resize(8, kernel="linear")
    bands.copy(interpretation="srgb").tiffsave(str(path), compression="none")
    return path


def svs(path: Path) -> Path:
    """A native slide of 6000 x 4500 pixels."""
    from cytowatch.cli.demo import _tissue, _write_svs

    _write_svs(path, _tissue(6000, 4500, 2).numpy())
    return path


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).absolute()
        planar, native = flat(folder / "planar.tif"), svs(folder / "native.svs")
        daemon = Daemon(folder)
        try:
            results = _measure(daemon, folder, planar, native, rounds)
        finally:
            daemon.stop()
    print(json.dumps(results, indent=1))


def _measure(
    daemon: Daemon, folder: Path, planar: Path, native: Path, rounds: int
) -> dict[str, object]:
    bare, ours, slides, memory = [], [], [], []
    daemon.seconds(native, "warm.svs")
    for number in range(rounds):
        out = subprocess.run(
            [sys.executable, "-c", BARE, str(planar), str(folder / "bare.tif")],
            capture_output=True, check=True,
        )  # fmt: skip
        bare.append(float(out.stdout))
        ours.append(daemon.seconds(planar, f"p{number}.tif") - QUIET_S)
        slides.append(daemon.seconds(native, f"n{number}.svs"))
        memory.append(daemon.memory_mib())
        for path in (daemon.spool.storage / "ann").glob(f"*-p{number}"):
            shutil.rmtree(path)
    ratio = statistics.median(o / b for o, b in zip(ours, bare, strict=True))
    print(f"flat TIFF of {SIDE} x {SIDE}, drop to deployed without settling, against bare libvips")
    print(f"  bare {_three(bare)} s, cytowatch {_three(ours)} s, median ratio {ratio:.2f}")
    late = [seconds - QUIET_S for seconds in slides]
    print(f"native slide of {native.stat().st_size / 1e6:.1f} MB, beyond quiet_s: {_three(late)} s")
    print(f"memory of the daemon after each round: {', '.join(f'{m:.0f}' for m in memory)} MiB")
    return {"bare_s": bare, "ours_s": ours, "ratio": ratio, "native_s": late, "daemon_mib": memory}


def _three(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
