"""What the filter of system calls costs a decoder, and what it costs to wait until its process is gone.

`python -m benchmarks.walls [ROUNDS]` forks a process for each small file, as the zygote does, and for a few
large ones; each enters the sandbox, derives a pyramid and ends, with the filter and without, in turn. Prints the
ratio of the medians, in time and in processor time; a busy machine disturbs the second far less. Then decoder
processes of a real zygote convert the small file, and their end is waited for, or not.
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
from typing import cast

import numpy as np
from PIL import Image

from cytowatch.config import Config
from cytowatch.decoder import sandbox, seccomp
from cytowatch.decoder.process import Zygote
from cytowatch.inbox.claim import prepare_process
from cytowatch.record import manifest
from cytowatch.record.entries import Manifest
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


def ended(place: Path, zygote: Zygote, source: Path, *, waited_for: bool) -> tuple[float, float]:
    """(seconds of a small file's conversion with the end of its process, only those of the end)."""
    folder = place / "id"
    (folder / "source").mkdir(parents=True)
    (folder / "out.1").mkdir()
    shutil.copyfile(source, folder / "source" / "a.jpg")
    size_bytes = source.stat().st_size
    row = manifest.received(role="source", path="source/a.jpg", size_bytes=size_bytes)
    form = {"id": "jpeg", "name": "JPEG", "native": False, "evidence": "", "openslide_vendor": None}
    made = manifest.new(
        id=UploadedFileId("20261123-141502-k3f9-a"), user="ann", name="a.jpg", drop_path="ann/a.jpg",
        files=[row], now=datetime.now(UTC), software={},
    )  # fmt: skip
    found = cast("Manifest", {**made, "format": form})
    began = time.perf_counter()
    child = zygote.fork(folder, "out.1")
    child.run(Status.CONVERTING, found, out=folder / "out.1", progress=lambda _share: None)
    done = time.perf_counter()
    if waited_for:
        child.end()
    else:
        zygote.bury(child.pid)
    now = time.perf_counter()
    shutil.rmtree(folder)
    return now - began, now - done


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
        prepare_process()
        zygote = Zygote(Config(root="/"))
        zygote.start()
        ends: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for turn in range(rounds):
            waited_for = turn % 2 == 0
            ends[waited_for].append(
                ended(folder, zygote, folder / "source" / "small.jpg", waited_for=waited_for)
            )
        zygote.stop()
        for waited_for, words in ((True, "waited for"), (False, "not waited for")):
            whole, end = (statistics.median(one[n] for one in ends[waited_for]) for n in (0, 1))
            print(f"small.jpg: {whole * 1000:.1f} ms in all, its end {words}: {end * 1000:.2f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
