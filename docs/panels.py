"""Draw docs/pictures/dashboard.png: the dashboard's panels, from a real Prometheus and a real daemon.

`python -m docs.panels [SECONDS]`, with matplotlib and Debian's prometheus installed. No Grafana is
needed: each panel's own query is asked, and what comes back is drawn.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from docs.dashboard import HOUSE, PANELS, Panel
from tests import builders
from tests.lab.prometheus import Prometheus
from tests.lab.root import STAGES, Root
from tests.lab.told import free_port

_WINDOW = "20s"


def _asked(expr: str) -> str:
    return expr.replace("$instance", ".*").replace("$__rate_interval", _WINDOW)


def _load(root: Root, folder: Path, seconds: float) -> None:
    """Scanners at their work: bursts, pauses, some damaged, some that crash, some cut off."""
    source = random.Random(7)
    slide = builders.aperio_svs(folder / "a.svs", width=3000, height=2000).read_bytes()
    image = builders.png(folder / "b.png", width=1600, height=1200).read_bytes()
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        kind = source.choice(["svs"] * 4 + ["png"] * 6 + ["pdf", "crash", "slow", "cut"])
        match kind:
            case "svs":
                (inbox / f"{number}.svs").write_bytes(slide)
            case "png":
                (inbox / f"{number}.png").write_bytes(image)
            case "pdf":
                (inbox / f"{number}.pdf").write_bytes(b"%PDF-1.4 hello")
            case "crash":
                (inbox / f"segfault-CONVERTING-{number}.png").write_bytes(image)
            case "slow":
                (inbox / f"slow-CONVERTING-{number}.png").write_bytes(image)
            case "cut":
                (inbox / f"cut-{number}.svs").write_bytes(slide[:-9000])
        wave = 0.15 if (number // 40) % 2 else 0.6
        time.sleep(source.uniform(0, wave))


def _draw(axes: Any, panel: Panel, server: Prometheus, seconds: float) -> None:
    axes.set_title(panel.title, fontsize=9, loc="left", fontweight="bold")
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.25)
    if panel.kind == "stat":
        axes.axis("off")
        end = time.monotonic() + 20
        # On a busy machine a scrape may just have failed.
        while (value := server.value(_asked(panel.queries[0][0]))) != value:
            assert time.monotonic() < end, panel.title
            time.sleep(0.5)
        shown = f"{value:.1%}" if panel.unit == "percentunit" else f"{value:,.0f}"
        axes.text(0.5, 0.45, f"{shown} {panel.unit if panel.unit == 's' else ''}", fontsize=22,
                  ha="center", va="center", color="#2a7", transform=axes.transAxes)  # fmt: skip
        return
    lines: list[tuple[str, list[datetime], list[float]]] = []
    for expr, legend in panel.queries:
        for row in server.range(_asked(expr), seconds, 1):
            name = legend
            for label, value in row["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            points = [
                (datetime.fromtimestamp(at), float(v)) for at, v in row["values"] if v != "NaN"
            ]
            if points and (not panel.stacked or any(v for _, v in points)):
                lines.append((name, [at for at, _ in points], [v for _, v in points]))
    scale, unit = (1e6, "MB") if panel.unit in ("decbytes", "Bps") else (1.0, panel.unit)
    if panel.unit == "decbytes":
        scale, unit = 1e9, "GB"
    for name, at, values in lines:
        axes.plot(at, [value / scale for value in values], linewidth=1.1, label=name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("" if unit == "short" else unit.replace("Bps", "MB/s"), fontsize=7)
    axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M:%S"))
    axes.xaxis.set_major_locator(matplotlib.dates.AutoDateLocator(maxticks=5))
    if lines:
        axes.legend(fontsize=6, loc="upper left", ncols=2 if len(lines) > 4 else 1, framealpha=0.5)


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        root = Root(folder / "root")
        port = free_port()
        root.configure(listen=f"127.0.0.1:{port}", engine="max_attempts = 2")
        root.environment = dict(STAGES)
        root.create()
        root.start()
        server = Prometheus(folder / "prometheus", port, free_port())
        try:
            _load(root, folder, seconds)
            figure, grid = plt.subplots(-(-len(PANELS) // 4), 4, figsize=(18, 21))
            for axes in grid.flat:
                axes.axis("off")
            for axes, panel in zip(grid.flat, PANELS, strict=False):
                axes.axis("on")
                _draw(axes, panel, server, seconds)
        finally:
            server.stop()
            root.stop()
    figure.tight_layout()
    picture = HOUSE / "docs" / "pictures" / "dashboard.png"
    figure.savefig(picture, dpi=55)
    print(picture)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 90.0)
