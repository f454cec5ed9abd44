"""The files of a CellSens VSI: what it announces of its stacks, and lists of tiles, with pixels or without."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from tests.builders import picture

__all__ = ["cellsens", "ets", "olympus_vsi", "stack", "vsi"]

_TILE = 512
#: How the tiles of a stack are packed: the numbers of the format.
RAW, JPEG, JPEG_2000 = 0, 2, 3


def _tag(
    number: int, kind: int, value: bytes | int, *, second: int | None = None, last: bool
) -> bytes:
    """One tag; a number stands in it, bytes behind it."""
    inline = isinstance(value, int)
    kind |= (0x40000000 if inline else 0) | (0x8000000 if second is not None else 0)
    body = (b"" if second is None else struct.pack("<i", second)) + (b"" if inline else value)
    following = 0 if last else 16 + len(body)
    size = value if inline else len(value)
    return struct.pack("<IiII", kind, number, following, size) + body


def _volume(*tags: tuple[int, int, bytes | int, int | None]) -> bytes:
    body = b""
    for number, (tag, kind, value, second) in enumerate(tags):
        # The next tag is placed from where the volume begins.
        one = _tag(tag, kind, value, second=second, last=True)
        following = 24 + len(body) + len(one) if number < len(tags) - 1 else 0
        body += one[:8] + struct.pack("<I", following) + one[12:]
    return struct.pack("<hhiqII", 24, 21321, 0, 24, len(tags), 0) + body


def vsi(
    stacks: Sequence[tuple[int, int, int]], *, axes: str = "", channels: Sequence[str] = ()
) -> bytes:
    """A TIFF whose tags announce a stack for each (width, height, type); 0 is an image, 1 an overview.

    Parameters
    ----------
    axes
        What the numbers of a tile behind its place mean: of ``Z``, ``T`` and ``C``, in their order.
    channels
        The names of the channels.
    """
    described = []
    for at, axis in enumerate(axes):
        meaning = {"Z": 1, "T": 2, "C": 4}[axis]
        names = channels if axis == "C" and channels else ("",)
        parameters = []
        for number, name in enumerate(names):
            text = (name + "\0").encode("utf-16-le")
            named = [(2419, 8192, text, None)] if name else []
            parameters.append((2008, 0x10000001, _volume((2023, 5, meaning, None), *named), number))
        described.append((2007, 0x10000000, _volume(*parameters), at))
    images = []
    for number, (width, height, kind) in enumerate(stacks):
        external = _volume(
            (2053, 259, struct.pack("<4i", 0, 0, width, height), None), (20005, 12, 1, None)
        )
        frame = _volume((2018, 0x10000001, external, None))
        properties = _volume((2074, 5, kind, None))
        image = _volume(
            *described, (2005, 0x10000001, properties, None), (2002, 0x10000000, frame, 0)
        )
        images.append((2001, 0x10000000, image, number))
    tags = _volume((2000, 0x10000000, _volume(*images), 0))
    at = 8 + len(tags) + len(tags) % 2
    entries = [
        (256, 4, 1),
        (257, 4, 1),
        (258, 3, 8),
        (262, 3, 1),
        (273, 4, at - 1),
        (277, 3, 1),
        (278, 4, 1),
        (279, 4, 1),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    return struct.pack("<2sHI", b"II", 42, at) + tags.ljust(at - 8, b"\0") + directory + bytes(4)


def ets(width: int, height: int) -> bytes:
    """A list of the tiles of an image of that size, each of a few bytes."""
    columns, rows = -(-width // _TILE), -(-height // _TILE)
    inner = b"ETS\0" + struct.pack("<9I", 6, 2, 3, 1, 2, 90, _TILE, _TILE, 1)
    places = [(column, row) for row in range(rows) for column in range(columns)]
    pixels = 64 + len(inner)
    tile = b"\xff\xd8tile\xff\xd9"
    where = pixels + len(places) * len(tile)
    head = struct.pack("<4s7IQI", b"SIS\0", 64, 3, 4, 64, 0, len(inner), 0, where, len(places))
    listed = b"".join(
        struct.pack("<I4IQII", 0, column, row, 0, 0, pixels + number * len(tile), len(tile), 0)
        for number, (column, row) in enumerate(places)
    )
    return head.ljust(64, b"\0") + inner + tile * len(places) + listed


def cellsens(
    stem: str, stacks: Sequence[tuple[int, int, int]], files: Sequence[tuple[int, int]]
) -> dict[str, bytes]:
    """`NAME.vsi` that announces `stacks`, and an .ets for each of `files`, by their paths."""
    return {
        f"{stem}.vsi": vsi(stacks),
        **{
            f"_{stem}_/stack{number}/frame_t.ets": ets(width, height)
            for number, (width, height) in enumerate(files, 1)
        },
    }


def stack(
    planes: Mapping[tuple[int, ...], np.ndarray], *, packing: int = JPEG_2000, tile: int = 256,
    without: Collection[tuple[int, ...]] = (),
) -> bytes:  # fmt: skip
    """An .ets of several planes, each by its numbers: of a focal plane, a time, a channel.

    Parameters
    ----------
    without
        The numbers of tiles that are left out: column, row and those of their plane.
    """
    tiles = []
    for numbers, pixels in planes.items():
        height, width = pixels.shape[:2]
        for y, x in np.ndindex(-(-height // tile), -(-width // tile)):
            part = pixels[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]
            whole = np.zeros((tile, tile, *pixels.shape[2:]), pixels.dtype)
            whole[: part.shape[0], : part.shape[1]] = part
            if (x, y, *numbers) not in without:
                tiles.append(((x, y, *numbers, 0), _tile_as(whole, packing)))
    first = next(iter(planes.values()))
    samples = first.shape[2] if first.ndim == 3 else 1
    kind = {1: 2, 2: 4}[first.dtype.itemsize]
    inner = b"ETS\0" + struct.pack("<9I", 6, kind, samples, 1, packing, 90, tile, tile, 1)
    # Whether its last number is a level stands behind the colour of its background.
    inner = (inner.ljust(152, b"\0") + struct.pack("<I", 1)).ljust(228, b"\0")
    listed, content, at = b"", b"", 64 + len(inner)
    for place, data in tiles:
        axes = len(place)
        where = at + len(content)
        listed += struct.pack(f"<I{axes}IQII", 0, *place, where, len(data), 0)
        content += data
    head = struct.pack(
        "<4s7IQI", b"SIS\0", 64, 3, axes, 64, 0, len(inner), 0, at + len(content), len(tiles)
    )
    return head.ljust(64, b"\0") + inner + content + listed


def _tile_as(pixels: np.ndarray, packing: int) -> bytes:
    if packing == JPEG_2000:
        return bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"))
    if packing == JPEG:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        return stream.getvalue()
    return pixels.tobytes()


def olympus_vsi(folder: Path, name: str = "A1", *, packing: int = JPEG, noise: int = 20) -> Path:
    """A whole slide of one stack that slideio reads: 1000 x 700 pixels of colour."""
    pixels = picture(1000, 700) // 2
    pixels += np.random.default_rng(1).integers(0, noise, pixels.shape).astype(np.uint8)
    files = {
        f"{name}.vsi": vsi([(1000, 700, 0)]),
        f"_{name}_/stack1/frame_t.ets": stack({(0,): pixels}, packing=packing),
    }
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder / f"{name}.vsi"
