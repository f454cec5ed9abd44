"""What the filter of system calls costs a decoder: the same work with it and without, in turn.

`python -m benchmarks.walls [ROUNDS]` forks a process for each small file, as the zygote does, and for a few
large ones; each enters the sandbox, derives a pyramid and ends. Prints the ratio of the medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cytowatch.config import Config
from cytowatch.decoder import sandbox, seccomp


def derive(folder: Path, name: str, *, calls: bool) -> float:
    """Seconds from the fork until the process is gone."""
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
    status = os.waitpid(child, 0)[1]
    assert status == 0, status
    return time.perf_counter() - began


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
            took: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(2 * times):
                took[turn % 2 == 0].append(derive(folder, name, calls=turn % 2 == 0))
            with_, without = (statistics.median(took[calls]) for calls in (True, False))
            print(
                f"{name}: {with_ * 1000:.1f} ms with the filter, {without * 1000:.1f} without, ratio {with_ / without:.3f}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
