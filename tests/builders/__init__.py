"""Small slides made by code: a few kB each, never downloaded."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyvips
import tifffile

__all__ = ["aperio_svs", "bare_tiff", "jpeg", "picture", "planar_tiff", "png", "pyramidal_tiff"]


def picture(width: int, height: int) -> np.ndarray:
    """A smooth RGB picture in which no two places look alike: (rows, columns, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red = 128 + 100 * np.sin(x / 37) * np.cos(y / 53)
    green = 255 * x / max(1, width - 1)
    blue = 255 * y / max(1, height - 1)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def jpeg(path: Path, *, width: int = 400, height: int = 300, **options: object) -> Path:
    """A baseline JPEG."""
    pyvips.Image.new_from_array(picture(width, height)).jpegsave(str(path), Q=90, **options)
    return path


def png(path: Path, *, width: int = 400, height: int = 300, **options: object) -> Path:
    """An RGB PNG."""
    pyvips.Image.new_from_array(picture(width, height)).pngsave(str(path), **options)
    return path


def planar_tiff(path: Path, *, width: int = 400, height: int = 300, **options: object) -> Path:
    """A TIFF in strips."""
    tifffile.imwrite(path, picture(width, height), photometric="rgb", rowsperstrip=64, **options)
    return path


def bare_tiff(path: Path, strip: bytes, *, width: int, height: int, **tags: object) -> Path:
    """A TIFF of one strip, as it is, with tags that no library would write: `tag_258=(4,)`."""
    numbers = {int(name.removeprefix("tag_")): values for name, values in tags.items()}
    numbers |= {256: (width,), 257: (height,), 273: (8,), 278: (height,), 279: (len(strip),)}
    at = 8 + len(strip) + len(strip) % 2
    entries, extra = b"", b""
    for number, values in sorted(numbers.items()):
        data = struct.pack(f"<{len(values)}I", *values)
        if len(data) > 4:
            where = at + 6 + 12 * len(numbers) + len(extra)
            extra, data = extra + data, struct.pack("<I", where)
        entries += struct.pack("<HHI", number, 4, len(values)) + data
    directory = struct.pack("<H", len(numbers)) + entries + bytes(4) + extra
    head = struct.pack("<2sHI", b"II", 42, at) + strip + bytes(len(strip) % 2)
    path.write_bytes(head + directory)
    return path


def pyramidal_tiff(
    path: Path, *, width: int = 1200, height: int = 900, mpp: float | None = 0.5
) -> Path:
    """Three tiled levels, none of them bearing a vendor's mark."""
    _levels(path, picture(width, height), description=None, mpp=mpp)
    return path


def aperio_svs(path: Path, *, width: int = 1200, height: int = 900, about: str = "") -> Path:
    """An Aperio slide of two levels with a thumbnail, at 20x and 0.499 um/px; `about` ends its description."""
    description = (
        f"Aperio Image Library v11.2.1\r\n{width}x{height} [0,0 {width}x{height}] (256x256) "
        f"JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990{about}"
    )
    pixels = picture(width, height)
    with tifffile.TiffWriter(path) as tiff:
        options = {"photometric": "rgb", "metadata": None, "software": ""}
        tile = {"tile": (256, 256), "compression": "jpeg"}
        tiff.write(pixels, description=description, **tile, **options)
        tiff.write(pixels[::8, ::8], description=description, rowsperstrip=16, **options)
        tiff.write(
            np.ascontiguousarray(pixels[::4, ::4]), description=description, **tile, **options
        )
    return path


def _levels(path: Path, pixels: np.ndarray, *, description: str | None, mpp: float | None) -> None:
    per_cm = 10_000 / mpp if mpp else None
    with tifffile.TiffWriter(path) as tiff:
        for level in range(3):
            step = 2**level
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                tile=(256, 256),
                compression="jpeg",
                photometric="rgb",
                subfiletype=1 if level else 0,
                description=description if not level else None,
                metadata=None,
                software="",
                resolution=(per_cm / step, per_cm / step) if per_cm else None,
                resolutionunit="CENTIMETER" if per_cm else "NONE",
            )


def hamamatsu_ndpi(path: Path, *, width: int = 512, height: int = 384) -> Path:
    """An NDPI only by its mark: a TIFF with the tag 65420, whose pointers have eight bytes."""
    pixels = picture(width, height)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 512),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, width * height),
        (65420, 4, 1, 1),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHQ", b"II", 42, 12) + struct.pack("<H", len(tags)) + entries
    head += struct.pack("<Q", 0) + b"\0" * (4 * len(tags))
    path.write_bytes(head.ljust(512, b"\0") + pixels[:, :, 0].tobytes())
    return path
