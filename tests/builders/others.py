"""Small files of the formats that need a reader of their own."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.builders import picture

__all__ = [
    "acquired",
    "attach",
    "bmp",
    "czi",
    "jp2",
    "jp2_tiled",
    "jpeg_ls",
    "ome_flat",
    "ome_jpeg",
    "ome_pyramid",
    "pgm",
    "ppm",
    "targa",
]


def bmp(path: Path, *, width: int = 403, height: int = 300, mode: str = "RGB") -> Path:
    """A bitmap of 24 bits, or of what `mode` makes of it."""
    Image.fromarray(picture(width, height)).convert(mode).save(path, "BMP")
    return path


def pgm(path: Path, *, width: int = 403, height: int = 300, most: int = 255) -> Path:
    """A binary PGM whose greatest value is `most`."""
    grey = picture(width, height)[:, :, 1].astype(np.uint32) * most // 255
    stored = grey.astype(">u2" if most > 255 else "u1")
    path.write_bytes(f"P5\n# a comment\n{width} {height}\n{most}\n".encode() + stored.tobytes())
    return path


def ppm(path: Path, *, width: int = 403, height: int = 300) -> Path:
    """A binary PPM."""
    path.write_bytes(f"P6 {width} {height} 255\n".encode() + picture(width, height).tobytes())
    return path


def jp2(path: Path, *, width: int = 403, height: int = 300, bare: bool = False) -> Path:
    """A lossless JPEG 2000 without tiles, in its boxes or as a bare codestream."""
    kind = "j2k" if bare else "jp2"
    path.write_bytes(imagecodecs.jpeg2k_encode(picture(width, height), level=0, codecformat=kind))
    return path


def jp2_tiled(
    path: Path, *, width: int = 1003, height: int = 700, tile: int = 256, pixels: object = None
) -> Path:
    """A lossless JPEG 2000 in tiles, those at the right and the bottom cut off."""
    data = picture(width, height) if pixels is None else pixels
    Image.fromarray(data).save(path, "JPEG2000", tile_size=(tile, tile), irreversible=False)
    return path


def czi(
    path: Path,
    *,
    width: int = 700,
    height: int = 500,
    scenes: int = 1,
    dtype: type = np.uint8,
    channels: int = 3,
    compression: str | None = None,
    mpp: float | None = 0.5,
) -> Path:
    """A CZI of one tile a scene: RGB for three channels, else so many grey ones."""
    from pylibCZIrw import czi as library

    scale = np.iinfo(dtype).max // 255
    pixels = picture(width, height).astype(dtype) * dtype(scale)
    with library.create_czi(str(path), exist_ok=True, compression_options=compression) as made:
        for scene in range(scenes):
            where = (scene * (width + 100), 0)
            shown = np.ascontiguousarray(pixels[:, :, ::-1]) if scene % 2 == 0 else pixels.copy()
            if channels == 3:
                made.write(shown, location=where, scene=scene)
                continue
            for channel in range(channels):
                grey = np.ascontiguousarray(pixels[:, :, channel : channel + 1])
                made.write(grey, location=where, scene=scene, plane={"C": channel})
        metres = (mpp or 0) * 1e-6
        made.write_metadata("a test", scale_x=metres, scale_y=metres)
    return path


def acquired(path: Path, when: str) -> Path:
    """State in the metadata of a CZI when it was acquired."""
    data = bytearray(path.read_bytes())
    [at] = struct.unpack_from("<q", data, 92)
    [length] = struct.unpack_from("<i", data, at + 32)
    xml = bytes(data[at + 288 : at + 288 + length])
    stated = f"<Image><AcquisitionDateAndTime>{when}</AcquisitionDateAndTime>".encode()
    xml = xml.replace(b"<Image>", stated, 1)
    assert stated in xml
    data += bytes(-len(data) % 32)
    struct.pack_into("<q", data, 92, len(data))
    used = 256 + len(xml)
    data += struct.pack("<16sqqii248x", b"ZISRAWMETADATA", used, used, len(xml), 0) + xml
    path.write_bytes(bytes(data))
    return path


def attach(path: Path, **inner: Path) -> Path:
    """Append CZI files to a CZI as attachments of those names, such as Label and SlidePreview."""
    data = bytearray(path.read_bytes())
    entries = b""
    for name, other in inner.items():
        content = other.read_bytes()
        data += bytes(-len(data) % 32)
        entry = struct.pack("<2s10xqi16s8s80s", b"A1", len(data), 0, b"", b"CZI", name.encode())
        entries += entry
        segment = struct.pack("<i12x", len(content)) + entry + bytes(112) + content
        data += struct.pack("<16sqq", b"ZISRAWATTACH", len(segment), len(segment)) + segment
    data += bytes(-len(data) % 32)
    struct.pack_into("<q", data, 104, len(data))
    listed = struct.pack("<i252x", len(inner)) + entries
    data += struct.pack("<16sqq", b"ZISRAWATTDIR", len(listed), len(listed)) + listed
    path.write_bytes(bytes(data))
    return path


def ome_flat(path: Path, *, width: int = 403, height: int = 300) -> Path:
    """An OME-TIFF of two focal planes, uncompressed, at 0.25 um/px."""
    planes = np.stack([picture(width, height)[:, :, 0], picture(width, height)[:, :, 1]])
    tifffile.imwrite(
        path, planes, ome=True,
        metadata={"axes": "ZYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm",
                  "PhysicalSizeY": 0.25},
    )  # fmt: skip
    return path


def ome_pyramid(path: Path, *, width: int = 1024, height: int = 768, **about: object) -> Path:
    """An OME-TIFF whose lower levels are in SubIFDs, as Bio-Formats writes them."""
    pixels = picture(width, height)
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tile = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
        known = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25, **about}
        tiff.write(pixels, subifds=2, metadata=known, **tile)
        for level in (2, 4):
            tiff.write(np.ascontiguousarray(pixels[::level, ::level]), subfiletype=1, **tile)
    return path


def ome_jpeg(path: Path, *, width: int = 1003, height: int = 700, samples: int = 3, subs: int = 2,
             step: int = 2, squeeze: int = 1, tile: int = 128, level: int = 90,
             photometric: str = "ycbcr") -> Path:  # fmt: skip
    """An OME-TIFF with JPEG tiles, its lower levels in SubIFDs, each `step` smaller."""
    pixels = picture(width, height)[:, :, :samples]
    pixels = pixels[:, :, 0] if samples == 1 else pixels
    options: dict[str, Any] = {
        "tile": (tile, tile), "compression": "jpeg", "photometric": photometric,
        "compressionargs": {"level": level},
    }  # fmt: skip
    with tifffile.TiffWriter(path, ome=True) as tiff:
        about = {"axes": "YXS"[: pixels.ndim], "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        tiff.write(pixels, subifds=subs, metadata=about, **options)
        for number in range(1, subs + 1):
            small = pixels[:: step**number * squeeze, :: step**number]
            tiff.write(np.ascontiguousarray(small), subfiletype=1, **options)
    return path


def targa() -> bytes:
    """The bytes of a TGA of 24 bits."""
    stream = io.BytesIO()
    Image.fromarray(picture(40, 30)).save(stream, "TGA")
    return stream.getvalue()


def jpeg_ls() -> bytes:
    """The bytes of a JPEG-LS with a comment before its frame."""
    data: bytes = imagecodecs.jpegls_encode(picture(40, 30))
    return data[:2] + b"\xff\xfe\0\5abc" + data[2:]
