"""Tiles of the panel, without and with decoding: `python -m benchmarks.panel_tiles [SECONDS]`.

A real panel process on a tree that a real daemon made; the client is a process of its own, so the two share the
machine's cores. Prints requests a second, times of an answer and memory, and JSON below them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pyvips
import tifffile

from benchmarks.daemon import Daemon
from tests.builders import picture, vendors

SIDE = 6144
#: (what, name of the drop, so many at a time, goal).
CASES: tuple[tuple[str, str, int, str], ...] = (
    ("as they lie, one at a time", "flat.jpg", 1, "p50 under 3 ms"),
    ("as they lie", "flat.jpg", 8, "2,000 a second, p50 under 3 ms"),
    ("as they lie", "flat.jpg", 32, "2,000 a second"),
    ("decoded: NDPI", "slide0.ndpi", 8, "p95 under 150 ms"),
    ("decoded: 16 bits", "wide.tif", 8, "p95 under 150 ms"),
    ("decoded: four slides in turn", "*", 8, "p95 under 150 ms"),
)


def _tissue(side: int) -> pyvips.Image:
    """Something like tissue: smooth, and nowhere flat."""
    small = pyvips.Image.gaussnoise(side // 8, side // 8, mean=170, sigma=40, seed=1).gaussblur(2)
    bands = small.bandjoin([small * 0.8, small * 0.9]).cast("uchar").resize(8, kernel="linear")
    return bands.copy(interpretation="srgb")


def _drops(folder: Path) -> None:
    _tissue(SIDE).jpegsave(str(folder / "flat.jpg"), Q=90)
    for number in range(4):
        vendors.ndpi(folder / f"slide{number}.ndpi", width=SIDE - 256 * number, height=SIDE // 2)
    wide = picture(SIDE, SIDE)[:, :, 0].astype(np.uint16) * 200
    tifffile.imwrite(folder / "wide.tif", wide)


def _tree(folder: Path) -> dict[str, str]:
    """A tree with one of each; gives the ids by name."""
    drops = folder / "drops"
    drops.mkdir()
    _drops(drops)
    with Daemon(folder) as daemon:
        for path in sorted(drops.iterdir()):
            path.rename(daemon.root / "inbox" / "ann" / path.name)
        daemon.wait(lambda: len(daemon.stored()) >= 6)
    found = {}
    for path in (folder / "root" / "storage").glob("*/*/manifest.json"):
        document = json.loads(path.read_text())
        found[document["name"]] = document["id"]
    return found


@contextmanager
def _panel(folder: Path) -> Iterator[tuple[int, int]]:
    """A panel on the tree: (its port, its process)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["panel", "--root", str(folder / "root"), "--listen", f"127.0.0.1:{port}"]
    with (folder / "panel.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cytowatch", *words], stdout=log, stderr=log
        )
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def _addresses(port: int, id_: str) -> list[str]:
    """All tiles of the two largest levels."""
    told = json.load(urlopen(f"http://127.0.0.1:{port}/tiles/{id_}/info.json"))
    [image] = told["images"]
    return [
        f"{image['tiles']}/{number}/{column}_{row}.jpg"
        for number, level in enumerate(image["levels"][:2])
        for row in range(-(-level["height"] // level["tile_height"]))
        for column in range(-(-level["width"] // level["tile_width"]))
    ]


class _Client(asyncio.Protocol):
    """One connection: asks again as soon as it is answered, and notes how long that took."""

    def __init__(self, requests: Sequence[bytes], times: list[float]) -> None:
        self._requests, self._times = requests, times
        self._left = -1
        self._head = b""
        self._asked = 0.0
        self.stop = False
        self.bytes = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(random.choice(self._requests))

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                raise SystemExit(self._head[:200].decode())
            at = head.index(b"content-length:") + 15
            self._left = int(head[at : head.find(b"\r", at)]) - (len(self._head) - end - 4)
            self._head = b""
        else:
            self._left -= len(data)
        if self._left == 0:
            self._left = -1
            self._times.append(time.perf_counter() - self._asked)
            if self.stop:
                self._transport.close()
            else:
                self._ask()


async def _measure(port: int, paths: Sequence[str], parallel: int, seconds: float) -> list[float]:
    requests = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() for path in paths]
    times: list[float] = []
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(requests, times), "127.0.0.1", port))[1]
        for _ in range(parallel)
    ]
    # The first ones open files and start decoders.
    await asyncio.sleep(1)
    times.clear()
    await asyncio.sleep(seconds)
    found = list(times)
    for one in clients:
        one.stop = True
    await asyncio.sleep(0.5)
    return found


def _memory_mb(pid: int) -> tuple[float, float, int]:
    """(of the panel, of zygote and decoders together, how many decoders): resident, shared pages in part."""

    def pss(number: int) -> float:
        text = Path(f"/proc/{number}/smaps_rollup").read_text()
        return int(text.partition("Pss:")[2].split()[0]) / 1024

    def children(number: int) -> list[int]:
        found = []
        for task in Path(f"/proc/{number}/task").iterdir():
            found += [int(one) for one in (task / "children").read_text().split()]
        return found

    zygotes = children(pid)
    decoders = [one for zygote in zygotes for one in children(zygote)]
    return pss(pid), sum(pss(one) for one in [*zygotes, *decoders]), len(decoders)


def main(seconds: float) -> None:
    rows, document = [], []
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).absolute()
        ids = _tree(folder)
        for what, drop, parallel, goal in CASES:
            with _panel(folder) as (port, pid):
                chosen = [one for one in ids if one.startswith("slide")] if drop == "*" else [drop]
                paths = [path for one in chosen for path in _addresses(port, ids[one])]
                times = sorted(asyncio.run(_measure(port, paths, parallel, seconds)))
                own, others, decoders = _memory_mb(pid)
            rate = len(times) / seconds
            p50, p95 = 1000 * statistics.median(times), 1000 * times[int(len(times) * 0.95)]
            rows.append([
                what, str(parallel), f"{rate:,.0f}", f"{p50:.1f} ms", f"{p95:.1f} ms", f"{own:.0f} MiB",
                f"{others:.0f} MiB ({decoders})" if others else "", goal,
            ])  # fmt: skip
            document.append({
                "what": what, "parallel": parallel, "a_second": rate, "p50_ms": p50, "p95_ms": p95,
                "panel_mib": own, "decoders_mib": others, "decoders": decoders,
            })  # fmt: skip
    heads = ["tiles", "at a time", "a second", "p50", "p95", "panel", "decoders", "goal"]
    for row in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(row)} |")
    print(
        json.dumps(
            {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg(), "cases": document}
        )
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
