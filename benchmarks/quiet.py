"""What is not conversion: resting, reacting, a huge native slide, a batch of somebody else.

`python -m benchmarks.quiet [GB [BATCH]]`: a slide of GB gigabytes (10), a batch of BATCH files (5,000).
Each is a daemon of its own. Prints a table, and JSON below it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.daemon import QUIET_S, Daemon, three
from benchmarks.run import svs

INBOXES = 1_000
STORED = 100_000
_REST_S = 60.0


def resting(folder: Path) -> dict[str, float]:
    """The share of one core that a daemon takes with nothing to do, beside a full storage."""
    users = [f"user{number:04}" for number in range(INBOXES)]
    with Daemon(folder, users=users, rescan_s=30.0, quiet_s=10.0) as daemon:
        kept = daemon.root / "storage" / "zoe"
        kept.mkdir()
        for number in range(STORED):
            (kept / f"20200101-000000-{number:05}-x").mkdir()
        # Past the second scan, which notes what is empty.
        time.sleep(35)
        before, began = daemon.cpu_s(), time.perf_counter()
        time.sleep(_REST_S)
        used = daemon.cpu_s() - before
        return {
            "percent_of_a_core": 100 * used / (time.perf_counter() - began),
            "mib": daemon.memory_mib("VmRSS"),
        }


def reacting(folder: Path, native: Path, rounds: int = 20) -> dict[str, Any]:
    """Milliseconds from the end of `quiet_s` until the drop has left its inbox."""
    late = []
    with Daemon(folder) as daemon:
        for number in range(rounds):
            ready = daemon.root / "ready.svs"
            shutil.copyfile(native, ready)
            os.sync()
            target = daemon.root / "inbox" / "ann" / f"{number}.svs"
            ready.rename(target)
            late.append(1000 * (daemon.wait(lambda t=target: not t.exists()) - QUIET_S))
    return {"milliseconds": late}


def huge(folder: Path, native: Path, gigabytes: float, when: str) -> dict[str, float]:
    """A native slide with that many bytes behind its last directory, none of them a hole."""
    with Daemon(folder, more=f'hash = "{when}"') as daemon:
        ready = daemon.root / "huge.svs"
        shutil.copyfile(native, ready)
        noise = os.urandom(64 << 20)
        with ready.open("ab") as file:
            for _ in range(int(gigabytes * 1e9 / len(noise))):
                file.write(noise)
        os.sync()
        began = time.perf_counter()
        with ready.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        hash_s = time.perf_counter() - began
        ready.rename(daemon.root / "inbox" / "ann" / "huge.svs")
        took = daemon.wait(daemon.stored) - QUIET_S
        [id_] = daemon.stored()
        path = daemon.root / "storage" / "ann" / id_ / "manifest.json"
        daemon.wait(lambda: json.loads(path.read_text())["sha256"] == digest)
        return {"gigabytes": gigabytes, "hash_s": hash_s, "deployed_s": took}


def fair(folder: Path, native: Path, batch: int) -> dict[str, float]:
    """How long another user's slide is on its way in the middle of a batch, and the batch's files."""
    with Daemon(folder, users=("ann", "bob")) as daemon:
        aside = daemon.root / "aside"
        aside.mkdir()
        for number in range(batch):
            shutil.copyfile(native, aside / f"{number}.svs")
        shutil.copyfile(native, daemon.root / "single.svs")
        os.sync()
        for path in aside.iterdir():
            path.rename(daemon.root / "inbox" / "ann" / path.name)
        daemon.wait(lambda: len(daemon.stored()) > 20)
        (daemon.root / "single.svs").rename(daemon.root / "inbox" / "bob" / "single.svs")
        took = daemon.wait(lambda: daemon.stored("bob"))
        left = batch - len(daemon.stored())
        [single] = (daemon.root / "storage" / "bob").iterdir()
        others = [daemon.root / "storage" / "ann" / id_ for id_ in daemon.stored()[:200]]
        daemon.process.kill()
        return {
            "batch": batch,
            "left_when_it_was_deployed": left,
            "single_s": took - QUIET_S,
            "single_waited_s": _waited_s(single),
            "a_file_of_the_batch_takes_s": statistics.median(_worked_s(path) for path in others),
        }


def _history(path: Path) -> list[datetime]:
    rows = json.loads((path / "manifest.json").read_text())["history"]
    return [datetime.fromisoformat(row["at"]) for row in rows]


def _waited_s(path: Path) -> float:
    """Between its claim and the begin of its first stage."""
    at = _history(path)
    return (at[1] - at[0]).total_seconds()


def _worked_s(path: Path) -> float:
    at = _history(path)
    return (at[-1] - at[1]).total_seconds()


def main(gigabytes: float, batch: int) -> None:
    found: dict[str, Any] = {}
    parts: dict[str, Callable[[Path, Path], object]] = {
        "resting": lambda folder, _: resting(folder),
        "reacting": reacting,
        "huge": lambda folder, native: huge(folder, native, gigabytes, "before"),
        "huge, hash after": lambda folder, native: huge(folder, native, gigabytes, "after"),
        "fair": lambda folder, native: fair(folder, native, batch),
    }
    for name, part in parts.items():
        with tempfile.TemporaryDirectory(dir=".") as place:
            folder = Path(place).absolute()
            found[name] = part(folder, svs(folder / "native.svs"))
            print(f"{name}: {found[name]}", file=sys.stderr)
    rest, react, fairly = found["resting"], found["reacting"]["milliseconds"], found["fair"]
    print(f"""
| what | figure |
|---|---|
| resting with {INBOXES:,} inboxes and {STORED:,} uploaded files in storage, rescan every 30 s | \
{rest["percent_of_a_core"]:.2f} % of a core, {rest["mib"]:.0f} MiB |
| from the end of `quiet_s` until the drop has left its inbox | {three(react, 0)} ms |""")
    for name in ("huge", "huge, hash after"):
        one = found[name]
        print(
            f"| a native slide of {one['gigabytes']:g} GB, {name.removeprefix('huge, ')} | "
            f"{one['deployed_s']:.2f} s; only its hash {one['hash_s']:.2f} s |"
        )
    print(
        f"| another user's slide in a batch of {fairly['batch']:,}, {fairly['left_when_it_was_deployed']:,} "
        f"of them still waiting | deployed after {fairly['single_s']:.2f} s, of which it waited "
        f"{fairly['single_waited_s']:.2f} s; a file of the batch takes "
        f"{fairly['a_file_of_the_batch_takes_s']:.2f} s |\n\n{json.dumps(found)}"
    )


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 10.0,
        int(sys.argv[2]) if len(sys.argv) > 2 else 5_000,
    )
