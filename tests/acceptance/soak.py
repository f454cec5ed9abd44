"""Mixed drops over SMB while the daemon is killed every few seconds: nothing lost, nothing doubled.

`python -m tests.acceptance.soak [SECONDS]` (600 by default) prints figures; one minute of it is a
test.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

from cytowatch import invariants
from cytowatch.spool import Spool
from tests import builders
from tests.acceptance.conftest import Root
from tests.acceptance.samba import Samba
from tests.builders import vendors


class Scanner(threading.Thread):
    """Writes slides to the share, each under a name of its own, as fast as the share takes them."""

    def __init__(self, which: int, share: Samba, pool: dict[str, bytes], until: float) -> None:
        super().__init__()
        self.which, self.share, self.pool, self.until = which, share, pool, until
        #: What was dropped whole: the name of the slide, and the hash of its head.
        self.dropped: dict[str, str] = {}
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
            time.sleep(source.uniform(0.0, 0.6))

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


def soak(folder: Path, seconds: float, seed: int = 0) -> dict[str, object]:
    """Run it; the figures, with a list of everything that is wrong."""
    source = random.Random(seed)
    root = Root(folder / "root")
    root.configure(inbox="folder_quiet_s = 2.0", engine="max_attempts = 3")
    subprocess.run(root.command("init", str(root.path)), check=True, stdout=subprocess.DEVNULL)
    (root.path / "inbox" / "root").mkdir()
    share = Samba(folder / "samba", root.path)
    kills = 0
    try:
        scanners = [
            Scanner(which, share, pool(folder / f"pool-{which}"), time.monotonic() + seconds)
            for which in range(3)
        ]
        for scanner in scanners:
            scanner.start()
        while any(scanner.is_alive() for scanner in scanners):
            root.start()
            time.sleep(source.uniform(0.3, 5.0))
            root.kill()
            kills += 1
        for scanner in scanners:
            scanner.join()
        failures = [repr(scanner.failure) for scanner in scanners if scanner.failure]
        code = root.run_until_idle(600)
    finally:
        share.stop()
    dropped: dict[str, str] = {}
    for scanner in scanners:
        dropped |= scanner.dropped
    return {
        "seconds": seconds, "kills": kills, "slides": len(dropped), "exit_code": code,
        "wrong": [*failures, *wrong(root, dropped)],
    }  # fmt: skip


def wrong(root: Root, dropped: dict[str, str]) -> list[str]:
    """Everything that was lost, doubled, left half-done or changed."""
    told = list(invariants.broken(Spool.open(root.path), at_rest=True))
    found: dict[str, list[dict]] = {}
    for document in root.manifests().values():
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
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        figures = soak(Path(place), float(sys.argv[1]) if len(sys.argv) > 1 else 600.0)
    print(json.dumps(figures, indent=1))
    sys.exit(1 if figures["wrong"] else 0)
