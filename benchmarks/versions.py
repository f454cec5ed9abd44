"""Two versions of cytowatch against each other, in turn and in one run. `python -m benchmarks.versions OLD NEW [ROUNDS [PART]]`

`OLD` and `NEW` are checkouts, which both run with the packages of this environment. Measured are 200 small JPEGs,
a TIFF, a JPEG and a PNG of 8,192 x 8,192 pixels, and 800 claims by themselves; with `PART` only what has it in its name.
Everything is written below ``TMPDIR``, so its filesystem decides what an fsync costs.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.daemon import QUIET_S, Daemon, ratio, three
from benchmarks.many import make
from benchmarks.run import flat

_SMALL = 200
_CLAIMS = 800
_SIDE = 8192
_SIDE_THAT_HOLDS = 16384
_TWO_WORKERS = "[engine]\nworkers = 2\nthreads_per_worker = 1"


def all_of(tree: Path, work: Path, files: list[Path]) -> tuple[float, float]:
    """Seconds from the end of the quiet time until all `files` are in storage; processor time of daemon and decoders."""
    with Daemon(work, tree=tree) as daemon:
        ready = daemon.root / "ready"
        ready.mkdir()
        for path in files:
            shutil.copy(path, ready)
        os.sync()
        before = daemon.cpu_s(children=True)
        for path in sorted(ready.iterdir()):
            path.rename(daemon.root / "inbox" / "ann" / path.name)
        seconds = daemon.wait(lambda: len(daemon.stored()) >= len(files)) - QUIET_S
        return seconds, daemon.cpu_s(children=True) - before


def claims(tree: Path, work: Path, files: list[Path], large: Path) -> tuple[float, float]:
    """The same until all of them have left the inbox, while nothing else happens.

    Each of two users has a large image in work, whose decoder stands still: so every thread is taken, and no
    user is without one, for whom a spare thread would convert what is claimed here.
    """
    with Daemon(work, tree=tree, users=("ann", "bob"), more=_TWO_WORKERS) as daemon:
        converting = daemon.root / "stages" / "converting"
        inbox, ready = daemon.root / "inbox", daemon.root / "ready"
        for user in ("ann", "bob"):
            shutil.copy(large, daemon.root / "large.jpg")
            (daemon.root / "large.jpg").rename(inbox / user / f"{user}.jpg")
        daemon.wait(lambda: len(os.listdir(converting)) == 2)
        # By then each of them is in its decoder.
        time.sleep(1.0)
        held = list(_leaves(daemon.process.pid))
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        try:
            ready.mkdir()
            for path in files:
                shutil.copy(path, ready)
            os.sync()
            before = daemon.cpu_s()
            for path in sorted(ready.iterdir()):
                path.rename(inbox / "ann" / path.name)
            seconds = daemon.wait(lambda: not os.listdir(inbox / "ann")) - QUIET_S
            used = daemon.cpu_s() - before
            if len(os.listdir(converting)) != 2 or daemon.stored():
                raise SystemExit("something was converted meanwhile: this round says nothing")
        finally:
            for pid in held:
                os.kill(pid, signal.SIGCONT)
        return seconds, used


def _leaves(pid: int) -> Iterator[int]:
    """The processes below `pid` that have none below them."""
    below = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    for child in below:
        inner = list(_leaves(child))
        yield from inner or [child]


def main(trees: dict[str, Path], rounds: int, part: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, many, large, holds = (folder / kind for kind in ("small", "many", "large", "holds"))
        for one in (small, many, large, holds):
            one.mkdir()
        make(small, _SMALL)
        make(many, _CLAIMS)
        pictures = flat(large, _SIDE)
        that_holds = flat(holds, _SIDE_THAT_HOLDS)["jpg"]
        for end in ("tif", "png"):
            (holds / f"flat.{end}").unlink()
        jobs: dict[str, Callable[[Path, Path], tuple[float, float]]] = {
            f"{_SMALL} small JPEGs": lambda tree, work: all_of(tree, work, list(small.iterdir())),
            **{
                f"a large {end}": lambda tree, work, path=path: all_of(tree, work, [path])  # type: ignore[misc]
                for end, path in pictures.items()
            },
            f"{_CLAIMS} claims": lambda tree, work: claims(
                tree, work, list(many.iterdir()), that_holds
            ),
        }
        for what, job in jobs.items():
            if part not in what:
                continue
            found: dict[str, list[tuple[float, float]]] = {which: [] for which in trees}
            for number in range(rounds):
                # The second of them finds a warm cache, or a disk that is still busy.
                for which in list(trees)[:: -1 if number % 2 else 1]:
                    work = folder / "work"
                    work.mkdir()
                    found[which].append(job(trees[which], work))
                    shutil.rmtree(work)
            times, used = ({k: [one[n] for one in v] for k, v in found.items()} for n in (0, 1))
            print(
                f"{what:16} old {three(times['old'])} s, new {three(times['new'])} s: "
                f"{ratio(times['new'], times['old']):.2f} of the time, "
                f"{ratio(used['new'], used['old']):.2f} of the processor time",
                flush=True,
            )


if __name__ == "__main__":
    main(
        {"old": Path(sys.argv[1]).absolute(), "new": Path(sys.argv[2]).absolute()},
        int(sys.argv[3]) if len(sys.argv) > 3 else 6,
        sys.argv[4] if len(sys.argv) > 4 else "",
    )
