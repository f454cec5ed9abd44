"""Bad and odd files, mutated, through a real daemon: ``python -m tests.fuzz.daemon [SECONDS] [SEED]``."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.mutate import mutations
from tests.lab.root import Root

__all__ = ["SAMPLES", "storm"]

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
_AT_A_TIME = 300


def _all(samples: Path, seed: int) -> list[tuple[Path, str, bytes]]:
    found = [
        (path, what, data)
        for kind in ("bad", "tricky")
        for path in sorted((samples / kind).rglob("*"))
        if path.is_file()
        for what, data in mutations(path.read_bytes(), seed)
        if data
    ]
    random.Random(seed).shuffle(found)
    return found


def storm(root: Root, sources: list[tuple[Path, str, bytes]], seconds: float) -> Counter[str]:
    """Drop as many as there is time for; gives the final statuses and reasons, counted.

    Everything that must hold is asserted: one process, nothing left behind, every byte kept.
    """
    root.configure(
        inbox="incomplete_after_s = 1.0",
        engine="stage_timeout_s = 60.0",
        more="[sandbox]\nmemory_bytes = 1_500_000_000\n[limits]\nmax_pixels = 100_000_000",
    )
    beside = set(root.path.parent.iterdir()) | {root.log}
    root.start()
    assert root.process
    pid = root.process.pid
    dropped: Counter[str] = Counter()
    end = time.monotonic() + seconds
    inbox = root.path / "inbox" / "fuzz"
    inbox.mkdir()
    while sources and time.monotonic() < end:
        batch, sources = sources[:_AT_A_TIME], sources[_AT_A_TIME:]
        for number, (path, what, data) in enumerate(batch):
            (inbox / f"{number:03}-{what}-{path.name}").write_bytes(data)
            dropped[hashlib.sha256(data).hexdigest()] += 1
        root.wait(lambda: not any(inbox.iterdir()), 300)
        # Only those that are in work are looked for: storage grows with every batch.
        root.wait(lambda: not _in_work(root), 300)
    assert (root.process.pid, root.process.poll()) == (pid, None)
    root.wait(lambda: root.children_of_processes() == [])
    assert root.stop() == 0
    assert set(root.path.parent.iterdir()) == beside
    assert set(os.listdir(root.path)) <= {
        "FORMAT", "inbox", "stages", "storage", "projects", "status", "state",
    }  # fmt: skip
    told: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for one in root.manifests().values():
        if one["parent_id"] is None:
            [source] = [row for row in one["files"] if row["role"] == "source"]
            kept[hashlib.sha256((one["_path"] / source["path"]).read_bytes()).hexdigest()] += 1
        if one["error"] and one["error"]["reason"] == "unexpected":
            print(f"unexpected: {one['name']}: {one['error']['detail']}")
        told[one["status"] + (f" {one['error']['reason']}" if one["error"] else "")] += 1
    assert kept == dropped
    root.assert_clean()
    return told


def _in_work(root: Root) -> bool:
    return any(
        any((root.path / "stages" / stage).iterdir())
        for stage in ("uploaded", "detecting-format", "extracting-data", "converting", "deploying")
    )


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1e9
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    folder = Path(tempfile.mkdtemp(prefix="cytowatch-fuzz-"))
    root = Root(folder / "root")
    from cytowatch.tree.spool import Spool

    Spool.create(root.path)
    told = storm(root, _all(SAMPLES, seed), seconds)
    for what, count in told.most_common():
        print(f"{count:>8,}  {what}")
    print(f"{told.total():>8,}  in all, seed {seed}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
