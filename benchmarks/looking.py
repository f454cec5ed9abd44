"""What it costs to look for bytes that never came while a slide is hashed: with and without, in one run.

`python benchmarks/looking.py [GIB]` makes a slide of JPEG tiles of that size, and a plain black and
white image, which holds a run of zeros in every row; both are read from the page cache.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from cytowatch.formats.completeness import arrival
from cytowatch.pyramid import verify

_ROUNDS = 7
_TILE = 512


def _slide(path: Path, size_bytes: int) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (_TILE, _TILE, 3)).astype(np.uint8)
    tile_bytes = 200_000
    across = max(1, int((size_bytes / tile_bytes) ** 0.5))
    tiles = (noise for _ in range(across * across))
    tifffile.imwrite(
        path, tiles, shape=(across * _TILE, across * _TILE, 3), dtype=np.uint8, bigtiff=True,
        tile=(_TILE, _TILE), compression="jpeg", photometric="rgb", metadata=None,
        description="Aperio Image Library v1\r\nAppMag = 20|MPP = 0.5",
    )  # fmt: skip


def _rows(path: Path, size_bytes: int) -> None:
    row = bytes(8000) + bytes(range(1, 255)) * 64
    path.write_bytes(b"P5 %d %d 255\n" % (len(row), size_bytes // len(row)))
    with path.open("ab") as file:
        for _ in range(size_bytes // len(row)):
            file.write(row)


def _timed(path: Path, *, look: bool) -> float:
    began = time.perf_counter()
    size = path.stat().st_size
    watch = arrival.of_native(str(path)) if look else None
    if watch is None:
        verify.sha256(str(path), lambda _: None, size_bytes=size)
    else:
        verify.sha256(str(path), lambda _: None, size_bytes=size, look=watch.feed)
        watch.verdict()
    return time.perf_counter() - began


def main() -> None:
    """Print the medians, and the ratio of each pair."""
    size_bytes = int(float(sys.argv[1] if len(sys.argv) > 1 else "0.5") * 2**30)
    with tempfile.TemporaryDirectory() as folder:
        for make in (_slide, _rows):
            path = Path(folder) / make.__name__
            make(path, size_bytes)
            _timed(path, look=False)
            pairs = [(_timed(path, look=False), _timed(path, look=True)) for _ in range(_ROUNDS)]
            without, with_ = (statistics.median(one) for one in zip(*pairs, strict=True))
            ratios = sorted(one[1] / one[0] for one in pairs)
            print(
                f"{make.__name__[1:]}: {path.stat().st_size / 2**20:.0f} MiB, "
                f"{without:.3f} s without, {with_:.3f} s with, ratio {ratios[len(ratios) // 2]:.3f} "
                f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
            )


if __name__ == "__main__":
    main()
