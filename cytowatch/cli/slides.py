"""The slides of the demonstration: made here, and dropped in pieces as a scanner would."""

from __future__ import annotations

import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import tifffile

from cytowatch.tree.spool import Spool

__all__ = ["drop_all", "slides_in", "tissue", "write_svs"]

_LARGE = (20_480, 15_360)
_PIECES = 24


def tissue(width: int, height: int, seed: int) -> Any:
    """Something like an H&E section: pink tissue on white, with purple nuclei."""
    random = np.random.default_rng(seed)
    shape = (height // 16 + 2, width // 16 + 2)
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    wave = np.sin(columns / 61 + seed) + np.cos(rows / 47) + np.sin((rows + columns) / 83)
    radius = np.hypot(rows / shape[0] - 0.5, columns / shape[1] - 0.5)
    tissue = np.clip((wave * 0.12 + 0.42 - radius) * 9, 0, 1)[..., None]
    nuclei = (random.random(shape) > 0.93)[..., None] * tissue
    fibres = random.normal(0, 5, (*shape, 1)) * tissue
    white, pink, purple = (np.array(c) for c in ((243, 242, 244), (226, 158, 190), (92, 60, 132)))
    colours = white * (1 - tissue) + pink * tissue + fibres
    colours = colours * (1 - nuclei) + purple * nuclei
    small = pyvips.Image.new_from_array(np.clip(colours, 0, 255).astype(np.uint8))
    return small.resize(16, kernel="linear").crop(0, 0, width, height).copy(interpretation="srgb")


def slides_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, whose scanner drops it), the large one first."""
    large = folder / "section-A.tif"
    tissue(*_LARGE, 1).copy(xres=4000, yres=4000).tiffsave(str(large), compression="none")
    yield large, "ann"
    svs = folder / "biopsy-7.svs"
    write_svs(svs, tissue(6000, 4500, 2).numpy())
    yield svs, "bob"
    jpeg = folder / "gross photo.jpg"
    tissue(2400, 1800, 3).jpegsave(str(jpeg), Q=92)
    yield jpeg, "ann"
    batch = folder / "batch-3.zip"
    with zipfile.ZipFile(batch, "w") as archive:
        for name, size, seed in (("core-1.png", 1600, 4), ("core-2.jpg", 2000, 5)):
            path = folder / name
            tissue(size, size, seed).write_to_file(str(path))
            archive.write(path, f"batch-3/{name}")
        pyramid = folder / "core-3.tif"
        tissue(3000, 2500, 6).copy(xres=2000, yres=2000).tiffsave(
            str(pyramid), tile=True, pyramid=True, compression="jpeg", Q=90
        )
        archive.write(pyramid, "batch-3/core-3.tif")
        archive.writestr("batch-3/notes.txt", "cores of one block\n")
    yield batch, "bob"
    damaged = folder / "damaged.jpg"
    data = bytearray(jpeg.read_bytes())
    # Whole by its markers, so that it is taken; what lies between them is not what was written.
    del data[len(data) // 3 : -2]
    damaged.write_bytes(data)
    yield damaged, "bob"


def write_svs(path: Path, pixels: Any) -> None:
    """Write `pixels` as an SVS of an Aperio scanner, with its levels."""
    height, width = pixels.shape[:2]
    about = f"Aperio Image Library v11.2.1\r\n{width}x{height}|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as tiff:
        for index, step in enumerate((1, 16, 4)):
            tiles = {"rowsperstrip": 16} if index == 1 else {"tile": (256, 256)}
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                description=about,
                metadata=None,
                software="",
                **tiles,
            )


def drop_all(spool: Spool, slides: list[tuple[Path, str]], done: threading.Event) -> None:
    """Write each file as a scanner does: under its own name, in pieces, with pauses."""

    def one(path: Path, user: str) -> None:
        pieces = _PIECES if path.stat().st_size > 1_000_000 else 3
        step = -(-path.stat().st_size // pieces)
        with path.open("rb") as source, (spool.inbox / user / path.name).open("wb") as target:
            while piece := source.read(step):
                target.write(piece)
                target.flush()
                time.sleep(0.08)

    threads = [threading.Thread(target=one, args=slide, daemon=True) for slide in slides]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join()
    done.set()
