"""How long the panel takes with a million uploaded files, and with 1,000 in progress.

A real panel process is asked over loopback; rows of the index are real, the directories behind most
of them are not (see `benchmarks.index`). `python -m benchmarks.panel [--rows N]`; prints a table.
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import json
import os
import sqlite3
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.index import START, document
from cytowatch.record import manifest
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.index.rows import PUT, values_of
from cytowatch.tree.spool import Spool
from tests.lab.panel import Served

IN_PROGRESS = 1000
ROUNDS = 21


def fill(root: Path, rows: int) -> Spool:
    """A tree whose index has `rows` in storage, and `IN_PROGRESS` that are being converted."""
    spool = Spool.create(root)
    index = Index(spool)
    index.reconcile()
    index.close()
    database = sqlite3.connect(spool.state / "index.sqlite3", isolation_level=None)
    database.execute("BEGIN")
    database.executemany(PUT, (values_of(*document(number)) for number in range(rows)))
    progress: dict[str, Any] = {}
    for number in range(rows, rows + IN_PROGRESS):
        found, _ = document(number)
        now = START + timedelta(seconds=number)
        busy = manifest.at_status(found, Status.CONVERTING, now=now)
        busy["id"] = busy["id"].replace("slide", "busy")
        place_in_progress(spool, busy)
        database.execute(PUT, values_of(busy, Status.CONVERTING))
        progress[busy["id"]] = {
            "status": "CONVERTING",
            "share": number % 100 / 100,
            "since": "2026-11-29T12:00:00.000Z",
        }
    database.execute("COMMIT")
    database.execute("ANALYZE")
    database.close()
    waiting = [
        {"user": f"user{n % 50:02}", "path": f"user{n % 50:02}/late {n}.svs", "why": "incomplete", "detail": "missing Data0004.dat",
         "size_bytes": n, "since": "2026-11-29T12:00:00.000Z"}
        for n in range(1000)
    ]  # fmt: skip
    (spool.state / "live.json").write_text(json.dumps({"progress": progress, "waiting": waiting}))
    return spool


def place_in_progress(spool: Spool, found: Any) -> None:
    path = spool.stage(Status.CONVERTING) / found["id"]
    path.mkdir(parents=True)
    (path / manifest.FILE_NAME).write_text(json.dumps(found))


def worked_ms(panel: Served) -> float:
    """How long the panel's process has worked until now, no matter what else the machine did."""
    assert panel.process
    tasks = Path(f"/proc/{panel.process.pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in tasks) / 1e6


def timed(panel: Served, path: str, user: str = "root") -> tuple[float, float]:
    """A page in milliseconds: what the process worked for it, and the median until it was there."""
    connection = http.client.HTTPConnection("127.0.0.1", panel.port)
    times = []
    for number in range(ROUNDS):
        if number == 1:
            # The first one loads templates and opens files.
            before = worked_ms(panel)
        began = time.perf_counter()
        connection.request("GET", path, headers={"X-Forwarded-User": user})
        found = connection.getresponse()
        found.read()
        assert found.status == 200, (path, found.status)
        times.append((time.perf_counter() - began) * 1000)
    connection.close()
    return (worked_ms(panel) - before) / (ROUNDS - 1), statistics.median(times[1:])


PAGES = (
    ("/", "root", "the first page, 1,000 in progress and 1,000 waiting"),
    ("/live/storage", "root", "its part that is asked again"),
    ("/files", "root", "a page of the list"),
    ("/files?page=100", "root", "page 100"),
    ("/files?page=2000", "root", "page 2,000"),
    ("/files?status=error", "root", "those in error"),
    ("/files?user=user07", "root", "one user's"),
    ("/files?sort=name&order=up", "root", "by name"),
    ("/files?since=2020-01-05&until=2020-01-05", "root", "of one day"),
    ("/files?name=slide+9", "root", "with a word in the name that many have"),
    ("/files?name=nothing+like+it", "root", "with a word that none has (every row is read)"),
    ("/files", "user07", "a page of the list, for one user"),
    ("/", "user07", "the first page, for one user"),
)


def main() -> None:
    """Fill a tree, ask, and print."""
    given = argparse.ArgumentParser()
    given.add_argument("--rows", type=int, default=1_000_000)
    rows = given.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="cytowatch-panel-") as folder:
        root = Path(folder) / "root"
        spool = fill(root, rows)
        # As a daemon holds it: the panel then takes the index as it is, and shows what is live.
        lock = os.open(spool.state / "lock", os.O_RDWR | os.O_CREAT, 0o640)
        fcntl.flock(lock, fcntl.LOCK_EX)
        panel = Served(root, more='auth = "proxy"\nadmins = ["root"]\n')
        try:
            print(
                f"{rows:,} uploaded files; work of the process for one answer, and the median of {ROUNDS - 1}, in ms\n"
            )
            before = panel.memory_kb()
            for path, user, said in PAGES:
                worked, median = timed(panel, path, user)
                print(f"| {said} | `{path}` | {worked:.1f} | {median:.1f} |")
            print(
                f"\nmemory: {before / 1024:.0f} MiB at first, {panel.memory_kb() / 1024:.0f} MiB after all"
            )
        finally:
            panel.stop()
            os.close(lock)


if __name__ == "__main__":
    main()
