"""Which directory of a TIFF is the picture, of files whose lists lead nowhere."""

from __future__ import annotations

import struct
from pathlib import Path

from cytowatch.formats.structure.main import main_directory, main_page, within
from cytowatch.formats.structure.tiff import Tiff
from tests.builders import bare_tiff


def test_a_list_of_images_within_that_lies_beyond_the_end(tmp_path: Path) -> None:
    """Another check reports that; the page is the picture."""
    path = bare_tiff(tmp_path / "a.tif", b"x" * 64, width=8, height=8, tag_258=(8,), tag_330=(1, 1))
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 330, 4, 2)) + 8
    struct.pack_into("<I", data, at, len(data) + 1000)
    path.write_bytes(data)
    with path.open("rb") as file:
        tiff = Tiff(file.fileno(), len(data))
        assert tiff.broken
        assert (main_page(tiff), within(tiff)) == (0, None)
        assert main_directory(tiff).size == (8, 8)
