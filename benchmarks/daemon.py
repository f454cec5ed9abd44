"""A daemon to be measured, in a tree of its own; and how the results are shown."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

QUIET_S = 1.0
_CONFIG = """
[inbox]
quiet_s = {quiet_s}
rescan_s = {rescan_s}
[storage]
reserve_bytes = 0
{more}
[metrics]
listen = ""
[log]
format = "json"
level = "{level}"
"""
_TICKS = os.sysconf("SC_CLK_TCK")


class Daemon:
    """A running daemon on a tree below `folder`; leaving it ends it. With `tree` it is that of another checkout."""

    def __init__(
        self,
        folder: Path,
        *,
        quiet_s: float = QUIET_S,
        rescan_s: float = 5.0,
        level: str = "warning",
        more: str = "",
        users: Sequence[str] = ("ann",),
        tree: Path | None = None,
    ) -> None:
        self.root = folder / "root"
        environment = {**os.environ, **({"PYTHONPATH": str(tree)} if tree else {})}
        subprocess.run(
            [sys.executable, "-m", "cytowatch", "init", str(self.root)],
            check=True, stdout=subprocess.DEVNULL, env=environment, cwd=tree,
        )  # fmt: skip
        for user in users:
            (self.root / "inbox" / user).mkdir()
        self.log = folder / "log"
        config = folder / "c.toml"
        config.write_text(
            _CONFIG.format(quiet_s=quiet_s, rescan_s=rescan_s, level=level, more=more)
        )
        words = ["run", "--root", str(self.root), "--config", str(config)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cytowatch", *words], stdout=log, stderr=log,
                env=environment, cwd=tree,
            )  # fmt: skip
        self.wait((self.root / "state" / "live.json").exists)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait(self, true: Callable[[], object], *, timeout_s: float = 600) -> float:
        """Until it is so; gives the seconds that it took."""
        began = time.perf_counter()
        while not true():
            if time.perf_counter() - began > timeout_s or self.process.poll() is not None:
                raise SystemExit(f"it did not come about: {self.log.read_text()[-2000:]}")
            time.sleep(0.005)
        return time.perf_counter() - began

    def stored(self, user: str = "ann") -> list[str]:
        """The ids in the storage of `user`."""
        try:
            return os.listdir(self.root / "storage" / user)
        except FileNotFoundError:
            return []

    def deployed(self, source: Path, name: str) -> float:
        """Seconds from the drop to storage beyond `QUIET_S`; dropped by a rename, the disk at rest."""
        ready = self.root / name
        shutil.copyfile(source, ready)
        os.sync()
        ready.rename(self.root / "inbox" / "ann" / name)
        before = len(self.stored())
        return self.wait(lambda: len(self.stored()) > before) - QUIET_S

    def cpu_s(self, *, children: bool = False) -> float:
        """The processor time of the daemon itself; with that of the decoders that have ended."""
        if not children:
            return _cpu_s(self.process.pid, slice(11, 13))
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        zygotes = sum(_cpu_s(int(pid), slice(11, 15)) for pid in task.read_text().split())
        return self.cpu_s() + zygotes

    def memory_mib(self, what: str = "VmHWM") -> float:
        """Its most resident memory up to now; with ``VmRSS`` what it holds now."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if what in line).split()[1]) / 1024


def _cpu_s(pid: int, columns: slice) -> float:
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in told[columns]) / _TICKS


def three(values: Sequence[float], digits: int = 2) -> str:
    """Median, least and most."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratio(values: Sequence[float], bare: Sequence[float]) -> float:
    """The median of the ratios, each of two that were measured one after the other."""
    return statistics.median(v / b for v, b in zip(values, bare, strict=True))
