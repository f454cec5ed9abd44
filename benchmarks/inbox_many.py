"""What one user drops in masses: how the steps grow, how long another user waits, what it takes of memory.

`python -m benchmarks.inbox_many [FILES]`: FILES empty files (150,000), and 3,000 folders beside 20,000 empty
files, are in one inbox, while another user drops one file after the other. Prints two tables, and JSON below.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.daemon import QUIET_S, Daemon
from cytowatch.formats import Probe
from cytowatch.formats.sets import groups

_WATCHED_S = 45.0
_EVERY_S = 1.0


def _cellsens(n: int) -> Iterator[str]:
    """Folders that look like those of a VSI, beside files that are none."""
    yield from (f"_d{number}_/stack1/x" for number in range(n // 8))
    yield from (f"f{number}" for number in range(n))


def _mirax(n: int) -> Iterator[str]:
    yield from (f"d{number}/Data0000.dat" for number in range(n // 8))
    yield from (f"f{number}" for number in range(n))


def _sidecars(n: int) -> Iterator[str]:
    for number in range(n // 3):
        yield from (f"s{number}.mrxs", f"s{number}/Slidedat.ini", f"s{number}.xml")


SHAPES: dict[str, Callable[[int], Iterator[str]]] = {
    "files and _d_/stack1": _cellsens,
    "files and MRXS folders": _mirax,
    "sidecars of sets": _sidecars,
}


def growth(n: int) -> dict[str, list[float]]:
    """Seconds in which n, 2n and 4n files are put together, by their shape."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    nothing = Probe(descriptor)
    took: dict[str, list[float]] = {}
    for shape, paths in SHAPES.items():
        for times in (1, 2, 4):
            sizes = dict.fromkeys(paths(times * n), 0)
            began = time.perf_counter()
            groups.groups(sizes, lambda _path, function: function(nothing))
            took.setdefault(shape, []).append(time.perf_counter() - began)
    os.close(descriptor)
    return took


def _fill(folder: Path, files: int, folders: int) -> None:
    folder.mkdir()
    for number in range(folders):
        (folder / f"_d{number}_" / "stack1").mkdir(parents=True)
        (folder / f"_d{number}_" / "stack1" / "x").touch()
    for number in range(files):
        os.close(os.open(folder / f"f{number:06}", os.O_WRONLY | os.O_CREAT, 0o644))


def waits(folder: Path, files: int, folders: int) -> dict[str, float]:
    """How long another user's drops wait beyond `QUIET_S` while those of one are looked at."""
    with Daemon(folder, users=("bob",)) as daemon:
        _fill(daemon.root / "ready", files, folders)
        (daemon.root / "ready").rename(daemon.root / "inbox" / "ann")
        waiting: dict[Path, float] = {}
        late: list[float] = []
        began = time.perf_counter()
        number = 0
        while time.perf_counter() - began < _WATCHED_S or waiting:
            now = time.perf_counter()
            if now - began > number * _EVERY_S and now - began < _WATCHED_S:
                one = daemon.root / "inbox" / "bob" / f"{number}.txt"
                one.write_text("not an image")
                waiting[one] = now
                number += 1
            for path in [path for path in waiting if not path.exists()]:
                late.append(now - waiting.pop(path) - QUIET_S)
            if now - began > 600:
                late += [now - since - QUIET_S for since in waiting.values()]
                break
            time.sleep(0.005)
        late.sort()
        return {
            "median_s": late[len(late) // 2],
            "worst_s": late[-1],
            "mib": daemon.memory_mib(),
        }


def main(files: int) -> None:
    grown = growth(5_000)
    print("| files of one user put together | n = 5,000 | 2n | 4n | 4n against 2n |")
    print("|---|---|---|---|---|")
    for shape, (one, two, four) in grown.items():
        print(f"| {shape} | {one:.2f} s | {two:.2f} s | {four:.2f} s | {four / two:.1f} |")
    print()
    print("| in one user's inbox | another's drop waits: median | worst | the daemon's memory |")
    print("|---|---|---|---|")
    measured = {}
    for count, folders in ((20_000, 3_000), (files, 0)):
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_TMP")) as folder:
            found = waits(Path(folder), count, folders)
        measured[f"{count} files, {folders} folders"] = found
        print(
            f"| {count:,} empty files, {folders:,} `_d_/stack1` | {found['median_s']:.2f} s | "
            f"{found['worst_s']:.2f} s | {found['mib']:.0f} MiB |",
            flush=True,
        )
    print(json.dumps({"growth": grown, "waits": measured}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150_000)
