"""CZI whose planes are counted from anywhere, and what Zeiss' library would read wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pylibCZIrw import czi as library

from cytowatch.config import from_mapping
from cytowatch.errors import ConversionError
from cytowatch.pyramid.readers.czi import open_czi
from tests.builders import others, picture

GREY = np.ascontiguousarray(picture(300, 200)[:, :, 1:2])
OTHER = 255 - GREY
HIGH_AND_LOW = "zstd1:ExplicitLevel=3;PreProcess=HiLoByteUnpack"


def shown(path: Path, *pieces: tuple[np.ndarray, dict[str, Any]]) -> list[np.ndarray]:
    """The pixels of every scene of a CZI with these pieces."""
    with library.create_czi(str(path), exist_ok=True) as made:
        for pixels, where in pieces:
            made.write(pixels, **where)
        made.write_metadata("x")
    opened = open_czi(str(path), from_mapping({}))
    try:
        return [one.region.rows(0, one.region.height) for one in opened.scenes]
    finally:
        opened.close()


def test_the_first_plane_is_the_first_there_is(tmp_path: Path) -> None:
    """Whatever its number, which the library counts from zero."""
    [found] = shown(tmp_path / "c.czi", (GREY, {"plane": {"C": 3}}))
    assert np.array_equal(found, GREY)
    later = ((OTHER, {"plane": {"C": 0, "T": 3}}), (GREY, {"plane": {"C": 0, "T": 2}}))
    [found] = shown(tmp_path / "t.czi", *later)
    assert np.array_equal(found, GREY)


def test_a_scene_that_lacks_a_channel(tmp_path: Path) -> None:
    """Of each scene the first channel that it has; an empty one would be all black."""
    found = shown(
        tmp_path / "s.czi",
        (GREY, {"scene": 0, "plane": {"C": 0}}),
        (OTHER, {"scene": 0, "plane": {"C": 1}}),
        (OTHER, {"scene": 1, "plane": {"C": 1}, "location": (700, 0)}),
    )
    assert [np.array_equal(*both) for both in zip(found, (GREY, OTHER), strict=True)] == [True] * 2


def test_colours_that_the_library_reads_wrongly(tmp_path: Path) -> None:
    """They are refused, and no noise is shown; the same packing of grey is read rightly."""
    path = others.czi(tmp_path / "a.czi", dtype=np.uint16, compression=HIGH_AND_LOW)
    with pytest.raises(ConversionError, match="high and low bytes are packed apart") as caught:
        open_czi(str(path), from_mapping({}))
    assert caught.value.reason == "unsupported_samples"
    for options in ({"channels": 1}, {"compression": "zstd1:ExplicitLevel=3"}):
        again: dict[str, Any] = {"dtype": np.uint16, "compression": HIGH_AND_LOW, **options}
        opened = open_czi(str(others.czi(tmp_path / "b.czi", **again)), from_mapping({}))
        wanted = picture(700, 500).astype(np.uint16) * 257
        found = opened.scenes[0].region.rows(0, 500)
        opened.close()
        assert np.array_equal(found, wanted if found.shape[2] == 3 else wanted[:, :, :1])
