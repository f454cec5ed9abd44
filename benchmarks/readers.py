"""A large CZI and a large tiled JPEG 2000: conversion against the reader's own bare decode.

Each runs in a process of its own, so that peak memory is its own; prints a table of ratios.
`python -m benchmarks.readers [SIDE]`, SIDE a multiple of 2048 (20,480 by default).
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cytowatch.config import from_mapping

CONFIG = from_mapping({})
FILES = {"zeiss-czi": "large.czi", "jp2": "large.jp2"}


def noise(side: int) -> np.ndarray:
    """A picture that does not compress away."""
    y, x = np.mgrid[0:side, 0:side]
    smooth = np.stack([(x * 255) // side, (y * 255) // side, ((x + y) * 127) // side], axis=-1)
    rng = np.random.default_rng(0)
    return (smooth + rng.integers(-8, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def make_czi(path: Path, side: int) -> None:
    """Tiles of 2,048 pixels, zstd."""
    from pylibCZIrw import czi

    tile = noise(2048)
    with czi.create_czi(str(path), compression_options="zstd1:ExplicitLevel=1") as made:
        for y in range(0, side, 2048):
            for x in range(0, side, 2048):
                made.write(tile, location=(x, y))
        made.write_metadata("large", scale_x=5e-7, scale_y=5e-7)


def make_jp2(path: Path, side: int) -> None:
    """Tiles of 1,024 pixels: one is encoded, and repeated under every number."""
    import imagecodecs

    one = imagecodecs.jpeg2k_encode(noise(1024), level=38, codecformat="j2k", resolutions=6)
    begin = one.index(b"\xff\x90")
    main, part = bytearray(one[:begin]), bytearray(one[begin:-2])
    struct.pack_into(">8I", main, 8, side, side, 0, 0, 1024, 1024, 0, 0)
    with path.open("wb") as file:
        file.write(main)
        for number in range((side // 1024) ** 2):
            struct.pack_into(">HI", part, 4, number, len(part))
            file.write(part)
        file.write(b"\xff\xd9")


def bare(format_id: str, path: str) -> None:
    """Read all rows on two threads, and throw them away."""
    from cytowatch.pyramid.readers import READERS

    opened = READERS[format_id](path, CONFIG)
    region = opened.scenes[0].region
    waiting: deque = deque()
    with ThreadPoolExecutor(2) as pool:
        for top in range(0, region.height, region.block_rows):
            bottom = min(region.height, top + region.block_rows)
            waiting.append(pool.submit(lambda t=top, b=bottom: region.rows(t, b).shape))
            if len(waiting) > 2:
                waiting.popleft().result()
    opened.close()


def converted(format_id: str, path: str) -> None:
    """Write the pyramid as the stage does."""
    from cytowatch.pyramid import source, writer
    from cytowatch.pyramid.readers import READERS
    from cytowatch.pyramid.virtual import as_image

    opened = READERS[format_id](path, CONFIG)
    [scene] = opened.scenes
    virtual, feed = as_image(scene)
    image, _ = source.normalised(virtual)
    target = f"{path}.tiff"
    writer.write_pyramid(image, target, CONFIG.convert, scene.mpp, lambda _: None)
    feed.close()
    opened.close()
    os.unlink(target)


def measured(what: str, format_id: str, path: Path) -> tuple[float, int]:
    """(seconds, peak MiB) of one of the two in a process of its own."""
    command = [sys.executable, __file__, what, format_id, str(path)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found["seconds"], found["peak_mib"]


def main(side: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        print(f"{side:,} x {side:,} pixels\n")
        print("| what | bare decode | converted | ratio | peak memory |\n|---|---|---|---|---|")
        for format_id, name in FILES.items():
            path = Path(folder) / name
            (make_czi if format_id == "zeiss-czi" else make_jp2)(path, side)
            alone, _ = measured("bare", format_id, path)
            seconds, peak = measured("converted", format_id, path)
            print(
                f"| {format_id} | {alone:.1f} s | {seconds:.1f} s | {seconds / alone:.2f} | {peak} MiB |"
            )
            path.unlink()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        began = time.perf_counter()
        {"bare": bare, "converted": converted}[sys.argv[1]](sys.argv[2], sys.argv[3])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps({"seconds": time.perf_counter() - began, "peak_mib": peak}))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_480)
