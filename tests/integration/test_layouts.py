"""Every layout of a TIFF's samples: what libvips reads must be what tifffile reads, and what was written."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from cytowatch.config import from_mapping
from cytowatch.pyramid import complaints, source
from cytowatch.pyramid.meaning import is_odd
from cytowatch.pyramid.readers.pages import open_page
from cytowatch.pyramid.samples import held
from cytowatch.pyramid.virtual import as_image
from cytowatch.record.errors import ConversionError
from tests.builders import picture

CONFIG = from_mapping({})
WIDTH, HEIGHT, TILE, ROWS = 70, 50, 32, 19
COLOURS = picture(WIDTH, HEIGHT)
ALPHA = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
SAMPLES = np.dstack([COLOURS, ALPHA, 255 - COLOURS[:, :, 1], COLOURS[::-1, :, 0]])
#: How many samples are colours, by the photometric interpretation.
KINDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}
EXTRA: dict[int, list[tuple[int, ...]]] = {
    0: [()], 1: [(), (0,), (1,), (2,)], 2: [(), (2, 0), (0, 2)], 3: [()],
}  # fmt: skip
BITS = (1, 2, 4, 8, 12, 16, 32)
#: Tags whose values are of 16 bits.
SHORT = frozenset({258, 259, 262, 277, 284, 320, 338, 530})
PALETTE = np.random.default_rng(3).integers(0, 65536, (3, 256), dtype=np.uint16)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the directory says of the samples."""

    photometric: int
    stored: int
    planar: int
    bits: int
    extra: tuple[int, ...]
    tiled: bool = False
    packed: bool = False
    order: str = "<"


def _layouts(photometric: int) -> Iterator[Layout]:
    for more, planar, bits in itertools.product(EXTRA, (1, 2), BITS):
        stored = KINDS[photometric] + more
        if stored > SAMPLES.shape[2] or (photometric == 3 and bits > 8):
            continue
        for number, extra in enumerate(EXTRA[more]):
            # Each layout once, and between them all of the ways to store one.
            way = (bits + planar + number + stored) % 4
            yield Layout(
                photometric=photometric, stored=stored, planar=planar, bits=bits, extra=extra,
                tiled=bool(way & 1), packed=bool(way & 2), order="<>"[number % 2],
            )  # fmt: skip


def _values(layout: Layout) -> np.ndarray:
    pixels = SAMPLES[:, :, : layout.stored]
    full = (1 << layout.bits) - 1
    if layout.bits < 8:
        return pixels.astype(np.uint64) >> np.uint64(8 - layout.bits)
    return np.rint(pixels * (full / 255)).astype(np.uint64)


def _packed(values: np.ndarray, layout: Layout) -> bytes:
    if layout.bits in (8, 16, 32):
        return values.astype(f"{layout.order}u{layout.bits // 8}").tobytes()
    shifts = np.arange(layout.bits, dtype=np.uint64)[::-1]
    ones = ((values[:, :, np.newaxis] >> shifts) & np.uint64(1)).astype(np.uint8)
    return np.packbits(ones.reshape(len(values), -1), axis=1).tobytes()


def _segments(values: np.ndarray, layout: Layout) -> Iterator[bytes]:
    planes = [values] if layout.planar == 1 else np.split(values, layout.stored, axis=2)
    for plane in planes:
        if not layout.tiled:
            for y in range(0, HEIGHT, ROWS):
                rows = plane[y : y + ROWS]
                yield _packed(rows.reshape(len(rows), -1), layout)
            continue
        for y, x in itertools.product(range(0, HEIGHT, TILE), range(0, WIDTH, TILE)):
            part = plane[y : y + TILE, x : x + TILE]
            tile = np.zeros((TILE, TILE, plane.shape[2]), np.uint64)
            tile[: part.shape[0], : part.shape[1]] = part
            yield _packed(tile.reshape(TILE, -1), layout)


def _write(path: Path, layout: Layout) -> None:
    """By hand: no library writes all of them."""
    segments = [zlib.compress(one) if layout.packed else one for one in _segments(_values(layout), layout)]  # fmt: skip
    tags: dict[int, tuple[int, ...]] = {
        256: (WIDTH,), 257: (HEIGHT,), 258: (layout.bits,) * layout.stored,
        259: (8 if layout.packed else 1,), 262: (layout.photometric,), 277: (layout.stored,),
        284: (layout.planar,),
    }  # fmt: skip
    tags |= {322: (TILE,), 323: (TILE,)} if layout.tiled else {278: (ROWS,)}
    tags |= {338: layout.extra} if layout.extra else {}
    tags |= {530: (1, 1)} if layout.photometric == 6 else {}
    if layout.photometric == 3:
        tags[320] = tuple(int(one) for one in PALETTE[:, : 1 << layout.bits].ravel())
    at = 8 + sum(map(len, segments)) + sum(map(len, segments)) % 2
    offsets = np.cumsum([8, *map(len, segments[:-1])])
    tags[324 if layout.tiled else 273] = tuple(map(int, offsets))
    tags[325 if layout.tiled else 279] = tuple(map(len, segments))
    entries, beyond = b"", b""
    for number, values in sorted(tags.items()):
        kind, code = (3, "H") if number in SHORT else (4, "I")
        data = struct.pack(f"{layout.order}{len(values)}{code}", *values)
        if len(data) > 4:
            where = at + 6 + 12 * len(tags) + len(beyond)
            beyond, data = beyond + data, struct.pack(f"{layout.order}I", where)
        entries += struct.pack(f"{layout.order}HHI", number, kind, len(values)) + data.ljust(4, b"\0")  # fmt: skip
    mark = b"II" if layout.order == "<" else b"MM"
    head = struct.pack(f"{layout.order}2sHI", mark, 42, at) + b"".join(segments)
    directory = struct.pack(f"{layout.order}H", len(tags)) + entries + bytes(4) + beyond
    path.write_bytes(head.ljust(at, b"\0") + directory)


def _by_libvips(path: Path) -> np.ndarray | None:
    """What it shows; None where it refuses, or has a word to say: then another reader is asked."""
    try:
        with complaints.raised():
            return _eight_bits(source.normalised(source.open_strict(str(path), CONFIG))[0])
    except pyvips.Error:
        return None


def _by_tifffile(path: Path) -> np.ndarray | None:
    try:
        opened = open_page(str(path), CONFIG)
    except ConversionError as error:
        assert error.reason == "unsupported_samples", (path.name, error)
        return None
    scene = held(opened.scenes[0], lambda _: None)
    image, virtual = as_image(scene)
    try:
        return _eight_bits(source.normalised(image, scene.done)[0])
    finally:
        virtual.close()
        opened.close()


def _eight_bits(image: pyvips.Image) -> np.ndarray:
    pixels = image.numpy()
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
    return pixels.astype(float) / (257 if pixels.dtype == np.uint16 else 1)


@pytest.mark.parametrize("photometric", KINDS)
def test_the_readers_agree_or_libvips_is_not_asked(tmp_path: Path, photometric: int) -> None:
    """Over photometric x samples x planes x bits x extra samples, in strips and tiles."""
    compared, wrong = 0, []
    for number, layout in enumerate(_layouts(photometric)):
        path = tmp_path / f"{number}.tif"
        _write(path, layout)
        second = _by_tifffile(path)
        first = None if is_odd(str(path)) else _by_libvips(path)
        if first is None or second is None:
            continue
        compared += 1
        if first.shape != second.shape or np.abs(first - second).mean() > 1.5:
            wrong.append(layout)
    assert wrong == []
    assert compared or photometric in (6, 8, 9)


def _truth(layout: Layout) -> np.ndarray:
    """Grey, RGB or a palette over white, reckoned from what was written."""
    values, full = _values(layout), (1 << layout.bits) - 1
    shares = values[:, :, : KINDS[layout.photometric]] / full
    if layout.photometric == 3:
        shares = np.moveaxis(PALETTE[:, : 1 << layout.bits][:, values[:, :, 0].astype(int)], 0, -1) / 65535  # fmt: skip
    place = next((KINDS[layout.photometric] + n for n, kind in enumerate(layout.extra) if kind == 2), None)  # fmt: skip
    if layout.photometric == 0:
        shares = 1 - shares
    opacity = 1.0 if place is None else values[:, :, place : place + 1] / full
    return 255 * (shares * opacity + 1 - opacity)


@pytest.mark.parametrize("photometric", [0, 1, 2, 3])
def test_what_is_shown_is_what_was_written(tmp_path: Path, photometric: int) -> None:
    """By whichever reader is asked, of all layouts whose alpha was not multiplied into the colours."""
    seen = 0
    for number, layout in enumerate(_layouts(photometric)):
        # Without a word of what further samples are, RGB is what other programs show.
        if 1 in layout.extra or len(layout.extra) != layout.stored - KINDS[photometric]:
            continue
        # Values of 32 bits are scaled to the range that they have.
        if layout.bits == 32:
            continue
        path = tmp_path / f"{number}.tif"
        _write(path, layout)
        shown = None if is_odd(str(path)) else _by_libvips(path)
        shown = _by_tifffile(path) if shown is None else shown
        assert shown is not None, layout
        far = np.abs(shown - _truth(layout)).mean()
        assert far < 1.5, (layout, far)
        seen += 1
    assert seen >= 30


INKS = np.asarray(Image.fromarray(COLOURS).convert("CMYK"))


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_inks_of_16_bits_with_transparency(tmp_path: Path, kind: str, planar: str) -> None:
    """It is neither all nor nothing: as of 8 bits, by both readers."""
    shown = []
    for compression in ("deflate", "zstd"):
        for wide in (False, True):
            multiplied = INKS * (ALPHA[:, :, np.newaxis] / 255) if kind == "assocalpha" else INKS
            pixels = np.dstack([np.rint(multiplied), ALPHA]).astype(np.uint16 if wide else np.uint8)
            pixels = pixels * (257 if wide else 1)
            data = np.moveaxis(pixels, -1, 0) if planar == "separate" else pixels
            path = tmp_path / f"{compression}{wide}.tif"
            tifffile.imwrite(path, data, photometric="separated", planarconfig=planar, extrasamples=[kind], compression=compression)  # fmt: skip
            asked = [_by_tifffile(path)] if is_odd(str(path)) else [_by_tifffile(path), _by_libvips(path)]  # fmt: skip
            shown += [one for one in asked if one is not None]
    solid = tmp_path / "solid.tif"
    tifffile.imwrite(solid, INKS, photometric="separated")
    opacity = ALPHA[:, :, np.newaxis] / 255
    colours = _by_libvips(solid)
    assert colours is not None
    wanted = colours * opacity + 255 * (1 - opacity)
    assert len(shown) >= 4
    for one in shown:
        assert np.abs(one - wanted).mean() < 3
