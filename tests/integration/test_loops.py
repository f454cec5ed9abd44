"""A TIFF whose list of directories leads back into itself is read once round, by every reader that goes through it."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile

from tests import builders
from tests.builders import others

_OPEN = """
import sys
from cytowatch.config import Config
from cytowatch.pyramid.readers import ome, svs
opened = {"ome": ome.open_ome, "svs": svs.open_svs}[sys.argv[1]](sys.argv[2], Config())
print(len(opened.scenes), opened.scenes[0].region.width)
"""


def looped(path: Path, to: int) -> Path:
    """The same file, whose last directory is followed by its directory number `to`."""
    with tifffile.TiffFile(path) as tiff:
        offsets = [page.offset for page in tiff.pages]
        big, order = tiff.is_bigtiff, tiff.byteorder
    with path.open("r+b") as file:
        file.seek(offsets[-1])
        count_code, entry_bytes, offset_code = ("Q", 20, "Q") if big else ("H", 12, "I")
        size = struct.calcsize(f"{order}{count_code}")
        [count] = struct.unpack(f"{order}{count_code}", file.read(size))
        file.seek(offsets[-1] + size + count * entry_bytes)
        file.write(struct.pack(f"{order}{offset_code}", offsets[to]))
    return path


@pytest.mark.parametrize("to", [0, -1])
@pytest.mark.parametrize(
    ("reader", "make"), [("ome", others.ome_flat), ("ome", others.ome_pyramid), ("svs", builders.aperio_svs)]
)  # fmt: skip
def test_it_is_read_once_round(
    reader: str, make: Callable[[Path], Path], to: int, tmp_path: Path
) -> None:
    """In a process of its own, because what tifffile does for ever can be ended only from outside."""
    path = make(tmp_path / f"a.{'svs' if reader == 'svs' else 'ome.tif'}")
    command = [sys.executable, "-c", _OPEN, reader, str(path)]
    right = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    looped(path, to)
    assert (
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
        == right
    )
