"""What the filter of system calls costs a decoder, and what it costs to wait until its process is gone.

`python -m benchmarks.walls [ROUNDS]` forks a process for each small file, as the zygote does, and for a few
large ones; each enters the sandbox, derives a pyramid and ends, with the filter and without, in turn. Prints the
ratio of the medians, in time and in processor time; a busy machine disturbs the second far less. Then decoder
processes of a real zygote take the same files through all stages, and their end is waited for, or not.
With `chrt -r 10` before it, it runs as on a machine that does nothing else.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from cytowatch.config import Config
from cytowatch.decoder import sandbox, seccomp
from cytowatch.decoder.forks import Zygote
from cytowatch.decoder.process import Decoder
from cytowatch.inbox.claim import prepare_process
from cytowatch.record import manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status


def derive(folder: Path, name: str, *, calls: bool) -> tuple[float, float]:
    """(seconds from the fork until the process is gone, seconds of processors that it took)."""
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(folder)
            seccomp.can = lambda: calls  # type: ignore[assignment]
            sandbox.enter(Config(root="/"), "out", parent=os.getppid())
            import pyvips

            image = pyvips.Image.new_from_file(f"source/{name}", access="sequential")
            image.tiffsave(
                "out/a.tif", tile=True, tile_width=256, tile_height=256, pyramid=True,
                compression="jpeg", Q=90,
            )  # fmt: skip
            status = 0
        except BaseException as error:  # noqa: BLE001 - said by the one who forked us
            os.write(2, f"{error}\n".encode())
        finally:
            os._exit(status)
    _, status, used = os.wait4(child, 0)
    assert status == 0, status
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


class WaitedFor(Decoder):
    """As the daemon has it; notes the seconds of each wait."""

    waits: ClassVar[list[float]] = []

    def _halt(self) -> None:
        began = time.perf_counter()
        super()._halt()
        self.waits.append(time.perf_counter() - began)


class NotWaitedFor(Decoder):
    """A decoder process whose end nobody waits for: what it made is taken as it is."""

    def _halt(self) -> None:
        self._still = True

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._doomed.close()
        self._reaper.bury(self.pid)


def taken_through(
    place: Path, zygote: Zygote, source: Path, kind: type[Decoder]
) -> tuple[float, float]:
    """(seconds of all three stages of a file until it could be published, and until that is written down)."""
    folder = place / "id"
    (folder / "source").mkdir(parents=True)
    (folder / "out.1").mkdir()
    shutil.copyfile(source, folder / "source" / "a.jpg")
    row = manifest.received(role="source", path="source/a.jpg", size_bytes=source.stat().st_size)
    found: Any = manifest.new(
        id=UploadedFileId("20261123-141502-k3f9-a"), user="ann", name="a.jpg", drop_path="ann/a.jpg",
        files=[row], now=datetime.now(UTC), software={},
    )  # fmt: skip
    began = time.perf_counter()
    channel, pid, started = zygote.process(folder, "out.1")
    with kind(zygote, channel, pid, started, Config(root="/")) as child:
        status = Status.DETECTING_FORMAT
        while not status.is_final:
            outcome = child.run(status, found, out=folder / "out.1", progress=lambda _share: None)
            found |= outcome.changes
            if status is Status.CONVERTING:
                (folder / "out.1").rename(folder / "derived")
            status = outcome.status
        done = time.perf_counter()
        manifest.write(folder, found)
    now = time.perf_counter()
    shutil.rmtree(folder)
    # What an end that nobody waited for still takes is not the next one's.
    time.sleep(0.1)
    return done - began, now - began


def measure_ends(folder: Path, names: dict[str, int]) -> None:
    prepare_process()
    zygote = Zygote(Config(root="/"))
    zygote.start()
    for name, times in names.items():
        WaitedFor.waits.clear()
        took: dict[type[Decoder], list[tuple[float, float]]] = {WaitedFor: [], NotWaitedFor: []}
        for turn in range(2 * times):
            kind = (WaitedFor, NotWaitedFor)[turn % 2]
            took[kind].append(taken_through(folder, zygote, folder / "source" / name, kind))
        for number, what in enumerate(
            ("until it can be published", "until its manifest is written and its process is gone")
        ):
            with_, without = (statistics.median(one[number] for one in took[kind]) for kind in took)
            print(
                f"{name}: {what} {with_ * 1000:.2f} ms where its end is waited for, "
                f"{without * 1000:.2f} where not, ratio {with_ / without:.3f}"
            )
        waits = sorted(WaitedFor.waits)
        print(
            f"{name}: the wait until it can be published by itself: {statistics.median(waits) * 1000:.2f} ms, "
            f"{waits[0] * 1000:.2f} to {waits[-1] * 1000:.2f}"
        )
    zygote.stop()


def main(rounds: int) -> None:
    import pyvips

    assert pyvips
    seccomp.prepare()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("source", "out"):
            (folder / name).mkdir()
        dice = np.random.default_rng(1)
        for name, side, times in (
            ("small.jpg", 512, rounds),
            ("large.jpg", 6_000, max(5, rounds // 30)),
        ):
            base = Image.fromarray(dice.integers(0, 255, (64, 64, 3), np.uint8))
            base.resize((side, side)).save(folder / "source" / name, quality=90)
            took: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
            for turn in range(2 * times):
                took[turn % 2 == 0].append(derive(folder, name, calls=turn % 2 == 0))
            for number, what in enumerate(("time", "processor time")):
                with_, without = (
                    statistics.median(one[number] for one in took[calls]) for calls in (True, False)
                )
                print(
                    f"{name}: {what} {with_ * 1000:.1f} ms with the filter, {without * 1000:.1f} without, "
                    f"ratio {with_ / without:.3f}"
                )
        measure_ends(folder, {"small.jpg": rounds, "large.jpg": max(5, rounds // 30)})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
