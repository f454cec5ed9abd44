"""Each reader's conversion against its own bare decode and against libvips' bare encode.

The bound is what is not available for less: the longer of decoding and encoding, or the processor time of both shared
over the cores, whichever is more. Each runs in a process of its own, so that peak memory is its own; the rounds are
interleaved. `python -m benchmarks.readers [SIDE [ROUNDS]]`, SIDE a multiple of 2048 (20,480 by default, 3 rounds).
Prints a table, and JSON below it.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.daemon import three
from cytowatch.config import from_mapping
from cytowatch.decoder import seccomp

CONFIG = from_mapping({})
#: As a child has it, so that what is measured is what a child takes.
_ENVIRONMENT = {
    **os.environ,
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}
_JPEG_XR = 4
_GUID_OF_24BPP = bytes.fromhex("24c3dd6f034efe4bb1853d77768dc9")
_CORES = len(os.sched_getaffinity(0))


def noise(side: int) -> np.ndarray:
    """A picture that does not compress away."""
    y, x = np.mgrid[0:side, 0:side]
    smooth = np.stack([(x * 255) // side, (y * 255) // side, ((x + y) * 127) // side], axis=-1)
    rng = np.random.default_rng(0)
    return (smooth + rng.integers(-8, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def czi_of(compression: str) -> Callable[[Path, int], None]:
    """Compressed as pylibCZIrw calls it, which cuts all into tiles of 1,024 pixels."""

    def make(path: Path, side: int) -> None:
        from pylibCZIrw import czi

        tile = noise(2048)
        with czi.create_czi(str(path), compression_options=compression) as made:
            for y in range(0, side, 2048):
                for x in range(0, side, 2048):
                    made.write(tile, location=(x, y))
            made.write_metadata("large", scale_x=5e-7, scale_y=5e-7)

    return make


def make_czi_jpegxr(path: Path, side: int) -> None:
    """The same with JPEG-XR, which pylibCZIrw only reads: each tile's bytes are put in place of its pixels.

    Source: ZEISS, "CZI file format" 1.2.2: the segments SUBBLOCK and DIRECTORY, and entries DV.
    """
    import imagecodecs

    czi_of("uncompressed:")(path, side)
    tile = imagecodecs.jpegxr_encode(noise(1024), level=0.9)
    # libCZI reads 24bppBGR only; how it is called lies beside the pixels.
    tile = tile.replace(_GUID_OF_24BPP + b"\x0d", _GUID_OF_24BPP + b"\x0c")

    def segment(id_: bytes, at: int) -> bool:
        return data[at : at + 16].rstrip(b"\0") == id_

    def entry_bytes(at: int) -> int:
        return int(32 + 20 * struct.unpack_from("<i", data, at + 28)[0])

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = 0
        while at < len(data):
            allocated = struct.unpack_from("<q", data, at + 16)[0]
            if segment(b"ZISRAWSUBBLOCK", at):
                metadata = struct.unpack_from("<i", data, at + 32)[0]
                begin = at + 32 + max(256, 16 + entry_bytes(at + 48)) + metadata
                struct.pack_into("<q", data, at + 40, len(tile))
                struct.pack_into("<i", data, at + 48 + 18, _JPEG_XR)
                data[begin : begin + len(tile)] = tile
            if segment(b"ZISRAWDIRECTORY", at):
                entry = at + 32 + 128
                for _ in range(struct.unpack_from("<i", data, at + 32)[0]):
                    struct.pack_into("<i", data, entry + 18, _JPEG_XR)
                    entry += entry_bytes(entry)
            at += 32 + allocated


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


def make_bmp(path: Path, side: int) -> None:
    """24 bits per pixel, from the top; a side of 2,048 needs no padding."""
    band = np.ascontiguousarray(np.tile(noise(2048)[..., ::-1], (1, side // 2048, 1)))
    with path.open("wb") as file:
        file.write(struct.pack("<2sIHHI", b"BM", 54 + side * side * 3 & 0xFFFFFFFF, 0, 0, 54))
        file.write(struct.pack("<IiiHHIIiiII", 40, side, -side, 1, 24, 0, 0, 2835, 2835, 0, 0))
        for _ in range(0, side, 2048):
            file.write(band)


def make_pgm(path: Path, side: int) -> None:
    """8 bits of grey."""
    band = np.ascontiguousarray(np.tile(noise(2048)[..., 1], (1, side // 2048)))
    with path.open("wb") as file:
        file.write(b"P5\n%d %d\n255\n" % (side, side))
        for _ in range(0, side, 2048):
            file.write(band)


def make_ome(path: Path, side: int) -> None:
    """JPEG tiles of 256 pixels, the further levels in SubIFDs, as libvips writes it."""
    import pyvips

    about = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
        f'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{side}" SizeY="{side}" SizeC="3" '
        'SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData/></Pixels>'
        "</Image></OME>"
    )
    image = pyvips.Image.new_from_array(noise(2048)).replicate(side // 2048, side // 2048)
    image = image.copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gstr_type, "image-description", about)
    image.tiffsave(
        str(path), tile=True, tile_width=256, tile_height=256, pyramid=True, compression="jpeg", Q=90,
        subifd=True, bigtiff=True,
    )  # fmt: skip


#: (how it is called, the id of its format, how it is made).
KINDS: tuple[tuple[str, str, Callable[[Path, int], None]], ...] = (
    ("CZI, no compression", "zeiss-czi", czi_of("uncompressed:")),
    ("CZI, zstd", "zeiss-czi", czi_of("zstd1:ExplicitLevel=1")),
    ("CZI, JPEG-XR", "zeiss-czi", make_czi_jpegxr),
    ("JPEG 2000, tiled", "jp2", make_jp2),
    ("BMP", "bmp", make_bmp),
    ("PGM", "pgm", make_pgm),
    ("OME-TIFF, tiles and levels copied", "ome-tiff", make_ome),
)


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
    from cytowatch.pyramid import source, verify
    from cytowatch.pyramid.encode import writer
    from cytowatch.pyramid.readers import READERS
    from cytowatch.pyramid.virtual import VirtualTiff, as_image, is_plain

    opened = READERS[format_id](path, CONFIG)
    [scene] = opened.scenes
    virtual, feed = as_image(scene)
    image, _ = source.normalised(virtual)
    target = f"{path}.tiff"
    copied = scene.copied()
    if copied:
        feed.close()
        feed = VirtualTiff(copied[-1])
    writer.write_pyramid(
        image, target, CONFIG.convert, scene.mpp, lambda _: None,
        bands=feed.bands if is_plain(scene) else None, copied=copied,
    )  # fmt: skip
    if copied:
        verify.read_tiles(target, copied, lambda _: None, threads=_CORES)
    feed.close()
    opened.close()
    # The filter lets nobody remove a file, so the one who measures does.
    with suppress(OSError):
        os.unlink(target)


def encoded(samples: str, path: str) -> None:
    """What libvips takes to write the same pixels, which lie in a file as they are."""
    import pyvips

    side = round((os.path.getsize(path) / int(samples)) ** 0.5)
    raw = pyvips.Image.rawload(path, side, side, int(samples), access="sequential")
    image = raw.copy(interpretation="srgb" if samples == "3" else "b-w")
    target = f"{path}.tiff"
    image.tiffsave(
        target, tile=True, tile_width=256, tile_height=256, pyramid=True, compression="jpeg", Q=90,
        depth="onetile", bigtiff=True,
    )  # fmt: skip
    os.unlink(target)


def measured(what: str, argument: str, path: Path) -> dict[str, float]:
    """Seconds of wall and of processor, and peak memory, of one of the three in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.readers", what, argument, str(path)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_ENVIRONMENT).stdout
    found: dict[str, float] = json.loads(told)
    return found


def make_raw(path: Path, side: int, samples: int) -> None:
    """The pixels that `encoded` writes."""
    tile = noise(2048) if samples == 3 else noise(2048)[..., 1:2]
    band = np.ascontiguousarray(np.tile(tile, (1, side // 2048, 1)))
    with path.open("wb") as file:
        for _ in range(0, side, 2048):
            file.write(band)


def one_kind(folder: Path, kind: tuple[str, str, Any], side: int, rounds: int) -> dict[str, Any]:
    """All that is measured of one kind of file."""
    name, format_id, make = kind
    path, raw = folder / f"large.{format_id}", folder / "large.raw"
    make(path, side)
    samples = 1 if format_id == "pgm" else 3
    make_raw(raw, side, samples)
    taken: dict[str, list[dict[str, float]]] = {
        what: [] for what in ("bare", "encoded", "converted", "filtered")
    }
    for _ in range(rounds):
        taken["bare"].append(measured("bare", format_id, path))
        taken["encoded"].append(measured("encoded", str(samples), raw))
        taken["converted"].append(measured("converted", format_id, path))
        taken["filtered"].append(measured("filtered", format_id, path))
        os.unlink(f"{path}.tiff")
    path.unlink()
    raw.unlink()
    bounds = [
        max(d["wall_s"], e["wall_s"], (d["cpu_s"] + e["cpu_s"]) / _CORES)
        for d, e in zip(taken["bare"], taken["encoded"], strict=True)
    ]
    ratios = [c["wall_s"] / b for c, b in zip(taken["converted"], bounds, strict=True)]
    filters = {
        what: [
            f[what] / c[what] for f, c in zip(taken["filtered"], taken["converted"], strict=True)
        ]
        for what in ("wall_s", "cpu_s")
    }
    return {"kind": name, "taken": taken, "bounds_s": bounds, "ratios": ratios, "filter": filters}


def halving() -> float:
    """Milliseconds of processor that making all further levels takes, for each megapixel of the first."""
    from cytowatch.pyramid.encode.tiles import halved

    band = np.ascontiguousarray(np.tile(noise(2048)[:256], (1, 6, 1)))
    before = time.process_time()
    for _ in range(10):
        halved(band, len(band) // 2, band.shape[1] // 2)
    megapixels = 10 * band.shape[0] * band.shape[1] / 1e6
    return 1000 * (time.process_time() - before) / megapixels * 4 / 3


def main(side: int, rounds: int) -> None:
    print(f"{side:,} x {side:,} pixels, {rounds} rounds, {_CORES} cores\n")
    print(
        "| what | bare decode | bare encode | bound | converted | against the bound | peak memory "
        "| with the filter of system calls | in processor time |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    everything = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for kind in KINDS:
            found = one_kind(Path(folder), kind, side, rounds)
            everything.append(found)
            walls = [
                f"{statistics.median(one['wall_s'] for one in found['taken'][what]):.1f} s"
                for what in ("bare", "encoded", "converted")
            ]
            peak = max(one["peak_mib"] for one in found["taken"]["converted"])
            print(
                f"| {kind[0]} | {walls[0]} | {walls[1]} | {statistics.median(found['bounds_s']):.1f} s "
                f"| {walls[2]} | {three(found['ratios'])} | {peak:.0f} MiB "
                f"| {three(found['filter']['wall_s'])} | {three(found['filter']['cpu_s'])} |",
                flush=True,
            )
    megapixels = side * side / 1e6
    print("\nProcessor time for each megapixel of the source, in milliseconds:\n")
    print(f"- making the further levels of what was decoded: {halving():.1f}")
    for one in everything:
        cpu = statistics.median(bare["cpu_s"] for bare in one["taken"]["bare"])
        print(
            f"- decoding them instead, a third of {one['kind']}: {1000 * cpu / megapixels / 3:.1f}"
        )
    print(json.dumps({"side": side, "cores": _CORES, "kinds": everything}))


def alone(what: str, arguments: list[str]) -> dict[str, float]:
    """Do one of the three here, and tell what it took beyond the start of Python and of the libraries."""
    import cytowatch.pyramid.encode.writer
    import cytowatch.pyramid.readers  # noqa: F401 - loaded before the clock starts

    if what == "filtered":
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        seccomp.restrict()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    deeds = {"bare": bare, "encoded": encoded, "converted": converted, "filtered": converted}
    deeds[what](*arguments)
    wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": used.ru_maxrss >> 10}


if __name__ == "__main__":
    if len(sys.argv) > 3:
        print(json.dumps(alone(sys.argv[1], sys.argv[2:])))
    else:
        given = [int(word) for word in sys.argv[1:]]
        main(*(given + [20_480, 3][len(given) :]))
