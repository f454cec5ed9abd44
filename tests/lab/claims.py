"""What a stage may claim about a PNG: entries that are whole, for tests to spoil."""

from __future__ import annotations

from typing import Any

from cytowatch.record.entries import FileEntry, ImageEntry, LevelEntry

__all__ = ["CONVERSION", "FORMAT", "IMAGE", "PYRAMID", "SOURCE", "VERIFICATION"]

SOURCE = FileEntry(role="source", path="source/a.png", size_bytes=5, sha256=None, status="UPLOADED")
PYRAMID = FileEntry(
    role="pyramid", path="derived/a.tiff", size_bytes=5, sha256=None, status="DEPLOYED"
)
_LEVEL = LevelEntry(width=64, height=48, downsample=1.0, tile_width=512, tile_height=512)
IMAGE = ImageEntry(
    scene=0, file="derived/a.tiff", width=64, height=48, samples_per_pixel=3, bits_per_sample=8,
    mpp_x=0.25, mpp_y=None, objective_power=None, levels=[_LEVEL], associated=["label"],
    icc_profile=False, acquired_at=None, vendor=None, properties={"a": "b"},
)  # fmt: skip
CONVERSION: dict[str, Any] = {
    "why": "format", "reader": "png", "compression": "deflate", "quality": None, "tile": 512,
    "seconds": 0.5, "source_bytes": 5, "output_bytes": 5,
}  # fmt: skip
VERIFICATION: dict[str, Any] = {
    "levels_read": 1, "tiles_read": 4, "at": "2026-11-23T14:15:02.000Z",
}  # fmt: skip
FORMAT: dict[str, Any] = {
    "id": "png", "name": "PNG", "native": False, "evidence": "signature", "openslide_vendor": None,
}  # fmt: skip
