"""Uploaded files at a time against threads for each, by the size of the image: `python -m benchmarks.parallel [ROUNDS]`.

The same number of pixels as many small, some middling and a few large JPEGs, through a daemon; the choices are
interleaved. Prints a table of rates, and JSON below it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.daemon import QUIET_S, Daemon
from benchmarks.run import flat

#: (side in pixels, so many of them).
SIZES = ((512, 160), (2048, 20), (4096, 8), (16_384, 2))
CORES = len(os.sched_getaffinity(0))
#: (workers, threads_per_worker).
CHOICES: tuple[tuple[int | str, int | str], ...] = (
    ("auto", "auto"),
    (1, 1),
    (1, CORES),
    (CORES, 1),
    (CORES, CORES),
    (2 * CORES, 1),
)


def seconds(folder: Path, source: Path, count: int, choice: tuple[int | str, int | str]) -> float:
    """From the end of the quiet time until `count` copies of `source` are in storage."""
    workers, threads = (json.dumps(one) for one in choice)
    more = f"[engine]\nworkers = {workers}\nthreads_per_worker = {threads}"
    with Daemon(folder, more=more) as daemon:
        aside = daemon.root / "aside"
        aside.mkdir()
        for number in range(count):
            shutil.copyfile(source, aside / f"{number}.jpg")
        os.sync()
        for path in aside.iterdir():
            path.rename(daemon.root / "inbox" / "ann" / path.name)
        return daemon.wait(lambda: len(daemon.stored()) >= count) - QUIET_S


def main(rounds: int) -> None:
    found: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).absolute()
        for side, count in SIZES:
            source = flat(folder, side)["jpg"]
            for number in range(rounds):
                for choice in CHOICES:
                    work = folder / f"{side}-{number}-{choice[0]}-{choice[1]}"
                    work.mkdir()
                    took = seconds(work, source, count, choice)
                    rate = count * side * side / 1e6 / took
                    words = f"{choice[0]} x {choice[1]}"
                    found.setdefault(words, {}).setdefault(side, []).append(rate)
                    shutil.rmtree(work)
    print(f"megapixels a second, median of {rounds}, {CORES} cores\n")
    print(f"| workers x threads | {' | '.join(f'{n} of {s:,}²' for s, n in SIZES)} |")
    print("|---|" + "---|" * len(SIZES))
    for words, by_side in found.items():
        rates = (f"{statistics.median(by_side[side]):.1f}" for side, _ in SIZES)
        print(f"| {words} | {' | '.join(rates)} |")
    print(json.dumps({"cores": CORES, "megapixels_per_s": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
