"""Mixed drops over SMB while the daemon is killed every few seconds: nothing lost, nothing doubled.

`python -m tests.acceptance.soak [SECONDS [PAUSE]]` (600 by default) prints figures; one minute of it is a test.
With `--poison`, one thing of every kind in `poison.py` is dropped every ten seconds as well, and for the
last third of the time nobody kills the daemon, so that its memory and descriptors can be measured.
`--calm` does the same without the poison: compare the waiting times. With either, the scanners drop what two
cores can carry, because the waits of a backlog say nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

from cytowatch.admin import invariants
from cytowatch.tree import find
from cytowatch.tree.spool import Spool
from tests import builders
from tests.acceptance import poison
from tests.builders import vendors
from tests.lab.root import Root
from tests.lab.samba import Samba


class Scanner(threading.Thread):
    """Writes slides to the share, each under a name of its own, as fast as the share takes them."""

    def __init__(
        self, which: int, share: Samba, pool: dict[str, bytes], until: float, *, pause_s: float
    ) -> None:
        super().__init__()
        self.pause_s = pause_s
        self.which, self.share, self.pool, self.until = which, share, pool, until
        #: What was dropped whole: the name of the slide, and the hash of its head.
        self.dropped: dict[str, str] = {}
        #: When it was (s since the epoch).
        self.dropped_at: dict[str, float] = {}
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - told by the one who waits for it
            self.failure = error
        self.share.leave()

    def _run(self) -> None:
        import smbclient

        source = random.Random(self.which)
        number = 0
        while time.monotonic() < self.until:
            number += 1
            kind = source.choice(["svs", "svs", "png", "zip", "mrxs", "case"])
            stem = f"s{self.which}-{number}"
            if kind == "mrxs":
                smbclient.mkdir(self.share.path(stem), **self.share.session)
                parts = [name for name in self.pool if name.startswith("mrxs/")]
                source.shuffle(parts)
                for part in parts:
                    self._put(f"{stem}/{part.removeprefix('mrxs/')}", self.pool[part], source)
                self._put(f"{stem}.mrxs", self.pool["mrxs"], source)
                self._note(f"{stem}.mrxs", "mrxs")
            elif kind == "case":
                folder = f"case-{stem}"
                smbclient.mkdir(self.share.path(folder), **self.share.session)
                for one in range(2):
                    self._put(f"{folder}/{stem}-{one}.svs", self.pool["svs"], source)
                    self._note(f"{stem}-{one}.svs", "svs")
            else:
                self._put(f"{stem}.{kind}", self.pool[kind], source)
                self._note(f"{stem}.{kind}", kind)
            time.sleep(source.uniform(0.0, self.pause_s))

    def _put(self, name: str, data: bytes, source: random.Random) -> None:
        with self.share.open(name) as file:
            half = source.randrange(len(data))
            file.write(data[:half])
            if source.random() < 0.3:
                file.flush()
                time.sleep(source.uniform(0.0, 0.5))
            file.write(data[half:])

    def _note(self, name: str, kind: str) -> None:
        self.dropped[name] = hashlib.sha256(self.pool[kind]).hexdigest()
        self.dropped_at[name] = time.time()


def pool(folder: Path) -> dict[str, bytes]:
    """One of each kind."""
    folder.mkdir()
    made = vendors.mirax_mrxs(folder / "m", "S")
    found = {f"mrxs/{path.name}": path.read_bytes() for path in (folder / "m" / "S").iterdir()}
    found["mrxs"] = made.read_bytes()
    found["svs"] = builders.aperio_svs(folder / "a.svs", width=600, height=400).read_bytes()
    found["png"] = builders.png(folder / "b.png").read_bytes()
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        for number in range(3):
            archive.write(builders.jpeg(folder / f"{number}.jpg"), f"{number}.jpg")
    found["zip"] = (folder / "c.zip").read_bytes()
    return found


def soak(
    folder: Path,
    seconds: float,
    seed: int = 0,
    *,
    poisoned: bool | None = None,
    pause_s: float = 8.0,
) -> dict[str, object]:
    """Run it; the figures, with a list of everything that is wrong.

    Parameters
    ----------
    poisoned
        None: kills all the time. Else kills are rarer and end after two thirds, and whether there is poison.
    pause_s
        The longest pause of a scanner between two drops, where it says whether there is poison.
    """
    source = random.Random(seed)
    root = Root(folder / "root")
    attempts = "max_attempts = 3" if poisoned is None else "max_attempts = 2\nno_progress_s = 3.0"
    # A note takes memory until it is removed: here for four minutes, so that as many go as come.
    days = "status_days = 7" if poisoned is None else "status_days = 0.003"
    root.configure(inbox="folder_quiet_s = 2.0", engine=attempts, feedback=days)
    if poisoned is not None:
        root.environment = dict(poison.ENVIRONMENT)
        root.prefix = poison.PREFIX if os.geteuid() == 0 else []
    root.create()
    (root.path / "inbox" / "root").mkdir()
    share = Samba(folder / "samba", root.path)
    began, until = time.monotonic(), time.monotonic() + seconds
    lives: list[list[tuple[int, int]]] = []
    rounds = 0
    try:
        scanners = [
            Scanner(
                which,
                share,
                pool(folder / f"pool-{which}"),
                until,
                pause_s=0.6 if poisoned is None else pause_s,
            )
            for which in range(3)
        ]
        for scanner in scanners:
            scanner.start()
        while any(scanner.is_alive() for scanner in scanners):
            root.start()
            lives.append([])
            left_s = source.uniform(0.3, 5.0) if poisoned is None else source.uniform(5.0, 30.0)
            last = poisoned is not None and time.monotonic() - began > seconds * 2 / 3
            end = until + 1 if last else time.monotonic() + left_s
            while time.monotonic() < end:
                time.sleep(min(1.0, max(0.0, end - time.monotonic())))
                assert root.process
                assert root.process.poll() is None, root.log.read_text()[-3000:]
                if int(time.monotonic() - began) >= 10 * rounds and poisoned is not None:
                    rounds += 1
                    lives[-1].append(_burden(root.process.pid))
                    _tell(began, len(lives), *lives[-1][-1])
                    if poisoned:
                        poison.drop_all(root, rounds)
            root.kill()
        for scanner in scanners:
            scanner.join()
        failures = [repr(scanner.failure) for scanner in scanners if scanner.failure]
        # What is poisoned waits for as long as it may: it is taken away before the daemon is to be idle.
        for number in range(rounds + 1) if poisoned else ():
            poison.forget(root, number)
        try:
            code: int | None = root.run_until_idle(900)
        except subprocess.TimeoutExpired:
            code = None
            root.kill()
    finally:
        share.stop()
    dropped: dict[str, str] = {}
    dropped_at: dict[str, float] = {}
    for scanner in scanners:
        dropped |= scanner.dropped
        dropped_at |= scanner.dropped_at
    waits = waited(root, dropped_at)
    return {
        "seconds": seconds, "kills": len(lives), "slides": len(dropped), "exit_code": code,
        "rounds_of_poison": rounds if poisoned else 0,
        "most_resident_kib": max((kib for life in lives for kib, _ in life), default=0),
        "waited_s": middle_and_p95(waits),
        "waited_s_by_status": waited_by_status(root, dropped_at),
        "burden_of_lives": [grown(life) for life in lives if len(life) >= 6],
        "burden_of_the_longest_life": max(lives, key=len),
        "wrong": [*failures, *([] if code in (0, 1) else [f"at the end: {code}"]), *wrong(root, dropped)],
    }  # fmt: skip


def grown(life: list[tuple[int, int]]) -> dict[str, float]:
    """How one life of the daemon went on after its first third: KiB and descriptors gained per hour.

    The slope is the straight line with the least squares through what was measured every ten seconds.
    """
    settled = life[len(life) // 3 :]
    hours = [number * 10 / 3600 for number in range(len(settled))]

    def slope(values: list[int]) -> float:
        middle = sum(hours) / len(hours)
        spread = sum((hour - middle) ** 2 for hour in hours)
        return round(sum((h - middle) * v for h, v in zip(hours, values, strict=True)) / spread, 1)

    return {
        "samples": len(life), "kib_first": life[0][0], "kib_at_a_third": settled[0][0], "kib_last": life[-1][0],
        "kib_per_hour": slope([kib for kib, _ in settled]),
        "fds_most": max(fds for _, fds in life), "fds_per_hour": slope([fds for _, fds in settled]),
    }  # fmt: skip


def _tell(began: float, life: int, kib: int, descriptors: int) -> None:
    """A line for who watches it."""
    told = f"{time.monotonic() - began:.0f} s, life {life}: {kib} KiB, {descriptors} descriptors"
    print(told, file=sys.stderr, flush=True)


def _burden(pid: int) -> tuple[int, int]:
    """(resident KiB, open descriptors) of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]), len(list(Path(f"/proc/{pid}/fd").iterdir()))


def waited(root: Root, dropped_at: dict[str, float]) -> list[float]:
    """From the last byte until it was in storage, in seconds, for each slide, shortest first."""
    found = []
    for document in _manifests(root):
        at = dropped_at.get(document["name"])
        if at is not None and document["user"] == "root":
            ended = datetime.fromisoformat(document["history"][-1]["at"]).timestamp()
            found.append(round(ended - at, 2))
    return sorted(found) or [0.0]


def waited_by_status(root: Root, dropped_at: dict[str, float]) -> dict[str, dict[str, float]]:
    """Where the time went: until it was claimed, and then in each status until the next one."""
    found: dict[str, list[float]] = {}
    for document in _manifests(root):
        at = dropped_at.get(document["name"])
        if at is None:
            continue
        before = "INBOX"
        for entry in document["history"]:
            entered = datetime.fromisoformat(entry["at"]).timestamp()
            found.setdefault(before, []).append(round(entered - at, 2))
            before, at = entry["status"], entered
    return {status: middle_and_p95(sorted(waits)) for status, waits in found.items()}


def middle_and_p95(waits: list[float]) -> dict[str, float]:
    """Of what is in order."""
    return {"median": waits[len(waits) // 2], "p95": waits[len(waits) * 95 // 100]}


def _manifests(root: Root) -> list[dict[str, Any]]:
    """Every uploaded file of the scanners' user; those of the poison may have no manifest at all."""
    found = []
    for entry in find.entries(Spool.open(root.path)):
        if entry.manifest["user"] == "root":
            found.append({**entry.manifest, "status": entry.status.name, "_path": entry.path})
    return found


def wrong(root: Root, dropped: dict[str, str]) -> list[str]:
    """Everything that was lost, doubled, left half-done or changed."""
    broken = invariants.broken(Spool.open(root.path), at_rest=True)
    told = [one for one in broken if "poison" not in one and poison.USER not in one]
    found: dict[str, list[dict[str, Any]]] = {}
    for document in _manifests(root):
        found.setdefault(document["name"], []).append(document)
    for name, digest in dropped.items():
        match found.get(name, []):
            case [one] if one["status"] in ("DEPLOYED", "CONVERTED", "EXTRACTED"):
                data = (one["_path"] / one["files"][0]["path"]).read_bytes()
                if hashlib.sha256(data).hexdigest() != digest:
                    told.append(f"{name} has other bytes")
            case [one]:
                told.append(f"{name} is {one['status']}: {one['error']}")
            case several:
                told.append(f"{name} is there {len(several)} times")
    left = [str(path) for path in (root.path / "inbox" / "root").rglob("*")]
    return [*told, *(f"{path} is left in the inbox" for path in left)]


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        figures = soak(
            Path(place),
            float(words[0]) if words else 600.0,
            poisoned={"--poison": True, "--calm": False}.get(sys.argv[-1]),
            pause_s=float(words[1]) if len(words) > 1 else 8.0,
        )
    print(json.dumps(figures, indent=1))
    sys.exit(1 if figures["wrong"] else 0)
