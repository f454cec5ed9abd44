"""What the figures cost the daemon with 10,000 uploaded files in work and 10,000 drops waiting.

The daemon sets its gauges twice a second and is scraped every 15 s; this times just that, and says
which share of one core it is. `python -m benchmarks.metrics`
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cytowatch import formats
from cytowatch.lifecycle.counts import Ledger
from cytowatch.observe import logs
from cytowatch.observe.metrics import WAITING, Metrics
from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

COUNT = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)


def timed(do: Callable[[], object], rounds: int = 50) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        do()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        spool = Spool.create(Path(place) / "root")
        logs.configure("error", "json")
        index = Index(spool)
        index.reconcile()
        metrics = Metrics((one.id, end) for one in formats.FORMATS for end in one.ends)
        ledger = Ledger(metrics, logs.get(), index, status_for=timedelta(days=7))
        for number in range(COUNT):
            now = START + timedelta(seconds=number)
            made = manifest.new(
                id=f"{now:%Y%m%d-%H%M%S}-{number:04x}-s", user="ann", name="s", drop_path="ann/s",
                now=now, software={},
                files=[FileEntry(role="source", path="source/s", size_bytes=1, sha256=None, status="UPLOADED")],
            )  # fmt: skip
            before = Place(status=Status.UPLOADED, path=spool.root, manifest=made)
            after = manifest.at_status(made, Status.CONVERTING, now=now)
            ledger.entered(before, Place(status=Status.CONVERTING, path=spool.root, manifest=after), 0.0)  # fmt: skip
        counts = dict.fromkeys(WAITING, COUNT // len(WAITING))
        ages = dict.fromkeys(WAITING, 1.0)

        def tick() -> None:
            metrics.set_waiting(counts, ages, 1 << 40)
            ledger.set_ages(datetime.now(UTC))

        tick_s, scrape_s = timed(tick), timed(metrics.text)
        share = 2 * tick_s + scrape_s / 15
        print(f"{'gauges, set twice a second':<40} {tick_s * 1000:>8.2f} ms")
        print(f"{'one scrape, every 15 s':<40} {scrape_s * 1000:>8.2f} ms")
        print(f"{'of one core':<40} {share:>8.2%}")
        index.close()


if __name__ == "__main__":
    main()
