"""libvips reads what a region reader gives: a BigTIFF that exists only as answers to read and seek.

Of pixels that need nothing of libvips only the header is read so, and their rows are had as they are.

No temporary file is written, and rows are decoded ahead in threads while libvips encodes.

Source: TIFF 6.0 and the BigTIFF design.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyvips

from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.regions import RegionReader, Scene
from cytowatch.record.errors import IngestError

__all__ = ["VirtualTiff", "as_image", "is_plain"]

#: Rows in flight, decoded and not yet encoded, are held to so many bytes.
_AHEAD_BYTES = 256 << 20
#: What one read of libvips' TIFF loader fetches; its own buffer is as large.
_STRIP_BYTES = 2 << 20
#: A block is at least so large, so that few rows of a narrow image are not a block of their own.
_BLOCK_BYTES = 4 << 20
#: Where the reader does not care, blocks end where rows of tiles do, which are then no copies.
_TILE_ROWS = 256
_THREADS = 4
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


class VirtualTiff:
    """Guards the position in a file that is not there, and the blocks of rows around it.

    Memory bound
    ------------
    Blocks that are decoded, or are being decoded, hold at most `_AHEAD_BYTES` of pixels and the block that
    is read now. The reading of a block upholds it: the next ones are asked for only within that, and those
    that libvips has passed are forgotten. Without it a decoder that is faster than the encoder would hold the
    whole image.
    """

    def __init__(
        self, region: RegionReader, *, cmyk: bool = False, threads: int = _THREADS
    ) -> None:
        self._region = region
        self._row_bytes = region.width * region.samples * region.dtype.itemsize
        least = max(1, _BLOCK_BYTES // self._row_bytes)
        unit = region.block_rows
        if _TILE_ROWS % unit == 0 and _TILE_ROWS * self._row_bytes <= _AHEAD_BYTES // 4:
            unit = _TILE_ROWS
        block = unit * -(-least // unit)
        self._block_rows = max(1, min(region.height, block))
        self._block_bytes = self._block_rows * self._row_bytes
        self._blocks = -(-region.height // self._block_rows)
        self._head, self._data = _header(region, self._row_bytes, cmyk=cmyk)
        self._size = self._data + region.height * self._row_bytes
        self._at = 0
        # None ahead of the largest ones: while one is encoded and the next is decoded there are two.
        self._ahead = min(threads, _AHEAD_BYTES // self._block_bytes)
        self._pool = ThreadPoolExecutor(max(1, self._ahead), thread_name_prefix="rows")
        self._lock = threading.Lock()
        self._futures: dict[int, Future[memoryview]] = {}
        #: What a reader raised; libvips itself only says that reading failed.
        self.error: BaseException | None = None

    def read(self, count: int) -> bytes:
        """The next bytes, at most `count`; nothing at the end, or once a reader has failed."""
        with self._lock:
            if self.error is not None:
                return b""
            try:
                found = self._slice(count)
            except BaseException as error:  # noqa: BLE001 - no exception passes through libvips
                self.error = error
                return b""
            self._at += len(found)
            return found

    def _slice(self, count: int) -> bytes:
        if self._at >= self._size:
            return b""
        if self._at < self._data:
            return self._head[self._at : min(self._at + count, self._data)]
        number, inside = divmod(self._at - self._data, self._block_bytes)
        return bytes(self._block(number)[inside : inside + count])

    def _block(self, number: int) -> memoryview:
        for other in [one for one in self._futures if not 0 <= one - number <= self._ahead]:
            self._futures.pop(other).cancel()
        for wanted in range(number, min(self._blocks, number + 1 + self._ahead)):
            if wanted not in self._futures:
                self._futures[wanted] = self._pool.submit(self._decode, wanted)
        return self._futures[number].result()

    def _decode(self, number: int) -> memoryview:
        region = self._region
        top = number * self._block_rows
        bottom = min(region.height, top + self._block_rows)
        pixels = np.ascontiguousarray(region.rows(top, bottom), dtype=region.dtype)
        if pixels.size != (bottom - top) * region.width * region.samples:
            raise ValueError(f"rows {top} to {bottom} came as {pixels.shape}")
        return memoryview(pixels.reshape(-1).view(np.uint8))  # type: ignore[arg-type]

    def bands(self, rows: int) -> Iterator[Pixels]:
        """All rows from top to bottom without libvips, at most `rows` at a time: (rows, width, samples).

        Raises
        ------
        pyvips.Error
            The reader failed; `error` says how.
        """
        region, shape = self._region, (-1, self._region.width, self._region.samples)
        for number in range(self._blocks):
            try:
                block = np.frombuffer(self._block(number), region.dtype).reshape(shape)
            except BaseException as error:
                self.error = error
                raise pyvips.Error(str(error)) from error
            top = number * self._block_rows
            at = 0
            while at < len(block):
                end = at + rows - (top + at) % rows
                yield block[at:end]
                at = end

    def seek(self, offset: int, whence: int) -> int:
        """Set the position, as lseek(2) does."""
        with self._lock:
            self._at = offset + (0, self._at, self._size)[whence]
            return self._at

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._futures.clear()


def _header(region: RegionReader, row_bytes: int, *, cmyk: bool) -> tuple[bytes, int]:
    """(header, one directory and its arrays, where the rows begin)."""
    rows = max(1, min(region.height, _STRIP_BYTES // row_bytes))
    strips = -(-region.height // rows)
    bits = region.dtype.itemsize * 8
    kind = _SAMPLE_FORMATS[region.dtype.kind]
    samples = region.samples
    # Of five values there is no room in an entry, and libtiff takes one for all.
    each = samples if samples <= 4 else 1
    tags: list[tuple[int, int, list[int]]] = [
        (256, 4, [region.width]),
        (257, 4, [region.height]),
        (258, 3, [bits] * each),
        (259, 3, [1]),
        (262, 3, [5 if cmyk else 1 if samples < 3 else 2]),
        (273, 16, []),
        (277, 3, [samples]),
        (278, 4, [rows]),
        (279, 16, []),
        (284, 3, [1]),
        *([(338, 3, [2])] if samples in ((5,) if cmyk else (2, 4)) else []),
        (339, 3, [kind] * each),
    ]
    arrays_at = 16 + 8 + 20 * len(tags) + 8
    data = -(-(arrays_at + 16 * strips) // 4096) * 4096
    offsets = np.arange(strips, dtype="<u8") * (rows * row_bytes) + data
    counts = np.full(strips, rows * row_bytes, dtype="<u8")
    counts[-1] = (region.height - (strips - 1) * rows) * row_bytes
    entries = b""
    for number, code, values in tags:
        if number in (273, 279):
            entries += _array_entry(number, strips, offsets, counts, arrays_at)
            continue
        packed = struct.pack(f"<{len(values)}{'H' if code == 3 else 'I'}", *values)
        entries += struct.pack("<HHQ", number, code, len(values)) + packed.ljust(8, b"\0")
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", len(tags))
    head += entries + bytes(8) + offsets.tobytes() + counts.tobytes()
    return head.ljust(data, b"\0"), data


def _array_entry(
    number: int, strips: int, offsets: Pixels, counts: Pixels, arrays_at: int
) -> bytes:
    values = offsets if number == 273 else counts
    where = arrays_at if number == 273 else arrays_at + 8 * strips
    value = int(values[0]) if strips == 1 else where
    return struct.pack("<HHQQ", number, 16, strips, value)


def is_plain(scene: Scene) -> bool:
    """Whether its pixels are those of a pyramid already: upright, 8 bits, grey or RGB."""
    region = scene.region
    colours = region.dtype == np.uint8 and region.samples in (1, 3) and not scene.cmyk
    return colours and scene.orientation == 1


def as_image(scene: Scene) -> tuple[Any, VirtualTiff]:
    """The scene as an image of libvips, to be read once from top to bottom, and what feeds it.

    It says how it must be turned.

    Anyone who gets it closes the second when the image has been read; a failed read is explained by
    its `error`.

    Raises
    ------
    pyvips.Error
        libvips does not take it.
    IngestError
        The reader failed at once.
    """
    virtual = VirtualTiff(scene.region, cmyk=scene.cmyk)
    source = pyvips.SourceCustom()
    source.on_read(virtual.read)
    source.on_seek(virtual.seek)
    # Turning needs the rows in another order.
    access = "sequential" if scene.orientation == 1 else "random"
    try:
        image = pyvips.Image.new_from_source(source, "", access=access, fail_on="error")
    except pyvips.Error:
        virtual.close()
        if isinstance(virtual.error, IngestError):
            raise virtual.error from None
        raise
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", scene.orientation)
    if scene.icc_profile:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", scene.icc_profile)
    return image, virtual
