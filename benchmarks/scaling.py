"""The model of docs/scaling.md, checked by simulation: from ten scanners to ten thousand.

`python -m benchmarks.scaling`. Arithmetic says how busy each part of one tree is; a simulation of a
working day, in which slides come at random and the daemon's own `FairQueue` says whose is next, says
how long they wait. Trees know nothing of each other, so one of them stands for all.
"""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cytowatch.engine.fair import FairQueue
from cytowatch.record.names import UploadedFileId

DAY_S = 8 * 3600.0
BEGAN = datetime(2026, 11, 23, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What one tree has, and what comes to it; the figures are those of docs/performance.md."""

    scanners: int
    slides_an_hour: float = 30.0
    slide_gb: float = 1.5
    #: Of how many a pyramid must be derived, and the seconds of one core that each then takes.
    converted: float = 0.2
    convert_core_s: float = 120.0
    cores: int = 16
    #: What the disk reads once for the hash, in gigabytes a second.
    disk_gb_s: float = 0.7
    #: Claiming, moving on and telling: one after the other, because it is one daemon.
    daemon_s: float = 0.03

    @property
    def slides_a_s(self) -> float:
        return self.scanners * self.slides_an_hour / 3600

    def busy(self) -> dict[str, float]:
        """By arithmetic: which share of its time each part is busy."""
        return {
            "daemon": self.slides_a_s * self.daemon_s,
            "disk": self.slides_a_s * self.slide_gb / self.disk_gb_s,
            "cores": self.slides_a_s * self.converted * self.convert_core_s / self.cores,
        }


def simulate(site: Site, seed: int = 1) -> tuple[dict[str, float], list[float]]:
    """(share of its time that each part was busy, seconds from drop to storage of each slide)."""
    dice = random.Random(seed)
    slides: list[tuple[float, int, float, bool]] = []
    for scanner in range(site.scanners):
        at = dice.expovariate(site.slides_an_hour / 3600)
        while at < DAY_S:
            size_gb = dice.lognormvariate(0, 0.5) * site.slide_gb / 1.133
            slides.append((at, scanner, size_gb, dice.random() < site.converted))
            at += dice.expovariate(site.slides_an_hour / 3600)
    slides.sort()
    free_at = {"daemon": 0.0, "disk": 0.0}
    busy = dict.fromkeys(("daemon", "disk", "cores"), 0.0)
    ready: list[tuple[float, int]] = []
    took: dict[int, float] = {}
    for number, (at, _, size_gb, convert) in enumerate(slides):
        when = at
        for part, seconds in (("daemon", site.daemon_s), ("disk", size_gb / site.disk_gb_s)):
            when = max(when, free_at[part]) + seconds
            free_at[part] = when
            busy[part] += seconds
        if convert:
            heapq.heappush(ready, (when, number))
        else:
            took[number] = when - at
    # The cores: anyone who is ready waits in the queue of the daemon, by user.
    queue, free, ends = FairQueue(), site.cores, list[tuple[float, int]]()
    while ready or ends:
        if ends and (not ready or ends[0][0] <= ready[0][0]):
            now, number = heapq.heappop(ends)
            free += 1
            took[number] = now - slides[number][0]
        else:
            now, number = heapq.heappop(ready)
            stamp = f"{BEGAN + timedelta(seconds=int(slides[number][0])):%Y%m%d-%H%M%S}"
            id_ = UploadedFileId(f"{stamp}-{number:04}-x")
            queue.put(str(slides[number][1]), id_, int(slides[number][2] * 1e9))
        while free and len(queue):
            _, id_ = queue.take()
            number = int(id_.split("-")[2])
            seconds = site.convert_core_s * slides[number][2] / site.slide_gb
            busy["cores"] += seconds / site.cores
            heapq.heappush(ends, (now + seconds, number))
            free -= 1
    return {part: seconds / DAY_S for part, seconds in busy.items()}, list(took.values())


def main() -> None:
    print("| scanners | trees | busiest part | busy, by arithmetic | simulated | half of the slides "
          "in storage after | 99 of 100 after |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for scanners, trees in ((10, 1), (50, 1), (80, 1), (100, 1), (100, 2), (1000, 20), (10_000, 200)):  # fmt: skip
        site = Site(scanners=scanners // trees)
        by_part = site.busy()
        worst = max(by_part, key=lambda part: by_part[part])
        simulated, seconds = simulate(site)
        cuts = statistics.quantiles(seconds, n=100)
        print(
            f"| {scanners:,} | {trees} | {worst} | {by_part[worst]:.0%} | {simulated[worst]:.0%} "
            f"| {cuts[49]:,.0f} s | {cuts[98]:,.0f} s |"
        )


if __name__ == "__main__":
    main()
