"""CZI whose planes are counted from anywhere, and what Zeiss' library would read wrongly."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pylibCZIrw import czi as library

from cytowatch.config import from_mapping
from cytowatch.pyramid.readers.czi import open_czi
from cytowatch.record.errors import ConversionError
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
    """With any number, which the library counts from zero."""
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


def test_what_a_scene_lacks_is_said(tmp_path: Path) -> None:
    """That another plane is shown of it, and that only others have a part of it."""
    path = tmp_path / "l.czi"
    with library.create_czi(str(path), exist_ok=True) as made:
        made.write(GREY, scene=0, plane={"C": 0, "Z": 0})
        made.write(GREY, scene=0, plane={"C": 0, "Z": 1}, location=(300, 0))
        made.write(OTHER, scene=1, plane={"C": 1, "Z": 0}, location=(700, 0))
        # It lies a little elsewhere, as tiles of a stage that drifts do.
        made.write(OTHER, scene=1, plane={"C": 1, "Z": 1}, location=(702, 1))
        made.write_metadata("x")
    opened = open_czi(str(path), from_mapping({}))
    opened.close()
    first, second = (" / ".join(one.done) for one in opened.scenes)
    assert first == "scene 1 is not covered by only its first plane: what only others have is black"
    assert second == "scene 2 has nothing in the first plane: the first that it has is the pyramid"


def test_scenes_whose_numbers_have_gaps(tmp_path: Path) -> None:
    """Scenes that were deleted leave numbers out."""
    found = shown(
        tmp_path / "g.czi", (GREY, {"scene": 0}), (OTHER, {"scene": 4, "location": (700, 0)})
    )
    assert [np.array_equal(*both) for both in zip(found, (GREY, OTHER), strict=True)] == [True] * 2


@pytest.mark.parametrize("compression", [HIGH_AND_LOW, "zstd1:ExplicitLevel=3"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_packed_with_zstd(tmp_path: Path, channels: int, compression: str) -> None:
    """Also those colours of which Zeiss' library makes noise."""
    path = others.czi(
        tmp_path / "a.czi", dtype=np.uint16, channels=channels, compression=compression
    )
    opened = open_czi(str(path), from_mapping({}))
    found = opened.scenes[0].region.rows(0, 500)
    opened.close()
    wanted = picture(700, 500).astype(np.uint16) * 257
    assert np.array_equal(found, wanted[:, :, :channels])


def colours(path: Path, compression: str) -> Path:
    """48-bit colours in four pieces that lie over each other."""
    image = np.random.default_rng(1).integers(0, 65536, (55, 73, 3), dtype=np.uint16)
    with library.create_czi(str(path), exist_ok=True, compression_options=compression) as made:
        for number, (x, y) in enumerate(((60, 45), (0, 0), (50, 5), (0, 30))):
            piece = np.ascontiguousarray(image[:, : 70 + number] + np.uint16(number))
            made.write(piece, location=(x - 20, y - 30))
        made.write_metadata("x")
    return path


def rows(path: Path) -> np.ndarray:
    """All of its one scene, in rows that do not fit the pieces."""
    opened = open_czi(str(path), from_mapping({}))
    region = opened.scenes[0].region
    height = region.height
    try:
        return np.concatenate([region.rows(y, min(height, y + 17)) for y in range(0, height, 17)])
    finally:
        opened.close()


def test_colours_in_pieces_that_the_library_reads_wrongly(tmp_path: Path) -> None:
    """They are put together as the library does with others: later ones above, what is not there black."""
    wanted = rows(colours(tmp_path / "a.czi", "uncompressed:"))
    assert (wanted.shape, (wanted == 0).all(axis=2).any()) == ((100, 130, 3), True)
    assert np.array_equal(rows(colours(tmp_path / "b.czi", HIGH_AND_LOW)), wanted)


def test_colours_of_which_a_piece_is_damaged(tmp_path: Path) -> None:
    """Nothing is made up for it."""
    path = colours(tmp_path / "d.czi", HIGH_AND_LOW)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x28\xb5\x2f\xfd")
    data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.raises(ConversionError) as caught:
        rows(path)
    assert caught.value.reason == "damaged"


def test_reduced_images_alone(tmp_path: Path) -> None:
    """A black picture is not made of them."""
    path = others.czi(tmp_path / "r.czi", width=60, height=50)
    data = bytearray(path.read_bytes())
    [directory] = struct.unpack_from("<q", data, 84)
    entry = data.index(b"DV", directory)
    # The last number of each dimension is how many pixels are stored.
    for name in (b"X", b"Y"):
        struct.pack_into("<i", data, data.index(name.ljust(4, b"\0"), entry) + 16, 25)
    path.write_bytes(bytes(data))
    with pytest.raises(ConversionError) as caught:
        open_czi(str(path), from_mapping({}))
    assert caught.value.reason == "no_pixels"
