"""What the index costs and saves with a million uploaded files in storage.

The rows are real, the directories of most of them are not: a million of those would say something
of the file system and little of cytowatch. `--directories N` of them are (100,000 by default), for
the start. Prints a table; `make bench-index`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.daemon import QUIET_S, Daemon
from benchmarks.run import svs
from cytowatch.record import manifest
from cytowatch.record.entries import ErrorEntry, FileEntry, Manifest
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

START = datetime(2020, 1, 1, tzinfo=UTC)
ERROR = ErrorEntry(reason="damaged", detail="d", stage="CONVERTING", retryable=False)


def document(number: int) -> tuple[Manifest, Status]:
    """One in a thousand in error, of 50 users."""
    now = START + timedelta(seconds=number)
    short = f"{number % 1679616:04x}"[-4:]
    user = f"user{number % 50:02}"
    made = manifest.new(
        id=f"{now:%Y%m%d-%H%M%S}-{short}-slide-{number}", user=user, name=f"slide {number}.svs",
        drop_path=f"{user}/slide {number}.svs", now=now, software={},
        files=[FileEntry(role="source", path="source/a.svs", size_bytes=number,
                         sha256=f"{number:064x}", status="UPLOADED")],
    )  # fmt: skip
    status = Status.ERROR_CONVERSION if number % 1000 == 0 else Status.DEPLOYED
    error = ERROR if status.is_error else None
    return manifest.at_status(made, status, now=now, error=error), status


def place(spool: Spool, found: Manifest, status: Status) -> None:
    folder = spool.stage(status) if status.is_error else spool.storage / found["user"]
    path = folder / found["id"]
    path.mkdir(parents=True)
    # Without the fsync of `manifest.write`: this is not what is measured.
    (path / manifest.FILE_NAME).write_text(json.dumps(found))


def timed(do: Any, rounds: int = 5) -> float:
    """The median of some runs, in milliseconds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        do()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def command(root: Path, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "cytowatch", *words, "--root", str(root)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def puts(index: Index, first: int, count: int) -> float:
    """Rows a second, each in a transaction of its own, as the engine writes them."""
    made = [document(first + number) for number in range(count)]
    began = time.perf_counter()
    for found, status in made:
        index.put(found, status)
    return count / (time.perf_counter() - began)


def fill(index: Index, first: int, until: int) -> None:
    """Rows of uploaded files whose directories are not there."""
    for number in range(first, until, 20_000):
        with index._transaction():
            for one in range(number, min(number + 20_000, until)):
                found, status = document(one)
                index._database.execute(_put(), _row(found, status))  # type: ignore[union-attr]


def uploads(daemon: Daemon, slide: Path, rounds: int = 3, count: int = 60) -> list[float]:
    """Milliseconds from the drop to storage for each of `count` slides of a batch, a round each."""
    aside = daemon.root / "aside"
    aside.mkdir(exist_ok=True)
    found = []
    # The first batch is for warming up.
    for _ in range(rounds + 1):
        before = len(daemon.stored())
        for number in range(before, before + count):
            shutil.copyfile(slide, aside / f"{number}.svs")
            with (aside / f"{number}.svs").open("ab") as file:
                file.write(b"%d" % number)
        os.sync()
        for path in aside.iterdir():
            path.rename(daemon.root / "inbox" / "ann" / path.name)
        took = daemon.wait(lambda until=before + count: len(daemon.stored()) >= until) - QUIET_S  # type: ignore[misc]
        found.append(took * 1000 / count)
    return found[1:]


def claimed_and_deployed(folder: Path, rows: int) -> dict[str, Any]:
    """The same uploads with next to nothing in the index, then with `rows`."""
    folder.mkdir()
    slide = svs(folder / "slide.svs")
    with Daemon(folder) as daemon:
        few = uploads(daemon, slide)
    index = Index(Spool.open(folder / "root"))
    fill(index, 0, rows)
    index.close()
    with Daemon(folder, users=()) as daemon:
        many = uploads(daemon, slide)
    index = Index(Spool.open(folder / "root"))
    # Without those that say they are in error, and whose directories the start looked for.
    kept = sum(index.counts().values())
    index.close()
    return {
        "claimed and deployed, ms each, with next to none": round(statistics.median(few), 1),
        "claimed and deployed, ms each, with them all": round(statistics.median(many), 1),
        "rows after that": kept,
        "claimed and deployed: ratio": round(statistics.median(many) / statistics.median(few), 2),
    }


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--rows", type=int, default=1_000_000)
    words.add_argument("--directories", type=int, default=100_000)
    asked = words.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cytowatch-index-"))
    try:
        spool = Spool.create(folder / "root")
        few = Index(spool)
        few.reconcile()
        rate_of_ten = puts(few, 10_000_000, 2000)
        few.close()
        shutil.rmtree(spool.root)
        spool = Spool.create(folder / "root")
        newest = asked.rows - asked.directories
        for number in range(newest, asked.rows):
            place(spool, *document(number))
        index = Index(spool)
        began = time.perf_counter()
        index.reconcile(from_scratch=True)
        build_s = time.perf_counter() - began
        start_ms = timed(index.reconcile)
        # The other rows, whose directories are not there.
        fill(index, 0, newest)
        index.close()
        words_of_list = ("list", "--status", "ERROR_CONVERSION", "--limit", "50")
        listed = timed(lambda: command(spool.root, *words_of_list))
        told = timed(lambda: command(spool.root, "status"))
        index = Index(spool)
        rate_of_many = puts(index, 10_000_000, 2000)
        question = lambda: index.select(where={"status": "ERROR_CONVERSION"}, limit=50)  # noqa: E731
        rows = {
            "rows": asked.rows,
            "directories": asked.directories,
            "size of the file, MB": round((spool.state / "index.sqlite3").stat().st_size / 1e6),
            "first build, s": round(build_s, 1),
            "start with nothing changed, ms": round(start_ms, 1),
            "list --status --limit 50, the whole process, ms": round(listed),
            "status, the whole process, ms": round(told),
            "list: only the query, a million rows, ms": round(timed(question), 2),
            "status: only the counts, ms": round(timed(index.counts), 3),
            "status: only the oldest, ms": round(timed(index.oldest), 3),
            "rows written a second, of ten": round(rate_of_ten),
            "rows written a second, of a million": round(rate_of_many),
            "ratio": round(rate_of_many / rate_of_ten, 2),
        }
        index.close()
        bare = timed(
            lambda: subprocess.run(
                [sys.executable, "-m", "cytowatch", "--version"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        )
        rows["cytowatch --version, ms"] = round(bare)
        rows |= claimed_and_deployed(folder / "uploads", asked.rows)
        for name, value in rows.items():
            print(f"{name:<50} {value:>12,}")
    finally:
        shutil.rmtree(folder)


def _put() -> str:
    from cytowatch.tree.index import index

    return index._PUT


def _row(found: Manifest, status: Status) -> tuple[Any, ...]:
    from cytowatch.tree.index import index

    return index._values(found, status)


if __name__ == "__main__":
    assert sqlite3.sqlite_version_info >= (3, 38)
    main()
