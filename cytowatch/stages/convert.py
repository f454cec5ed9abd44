"""CONVERTING: a pyramid is derived from an image that no viewer can show at once."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyvips

from cytowatch.errors import ConversionError, TransientError
from cytowatch.manifest import FileEntry, ImageEntry
from cytowatch.model import Outcome, UploadedFile
from cytowatch.pyramid import describe, resolution, source, verify, writer
from cytowatch.status import Status

__all__ = ["convert"]

_FULL = ("no space left", "disk quota", "write error", "input/output error")


def convert(file: UploadedFile) -> Outcome:
    """Write the pyramid and the thumbnail of `file`.

    Raises
    ------
    ConversionError
        It is damaged, too large, or of samples that no pyramid can hold.
    TransientError
        The disk is full.
    """
    began = time.monotonic()
    # Whatever libvips cannot keep in memory goes where this child may write.
    os.environ["TMPDIR"] = file.out
    name = f"{file.slug}.tiff"
    path = f"{file.out}/{name}"
    with ThreadPoolExecutor(1) as beside:
        hashing = beside.submit(_hash, file)
        image, reader, done = _write(file, path)
        digest = hashing.result()
    entry = _describe(path, f"derived/{name}", image)
    thumbnail = f"{file.out}/thumbnail.jpg"
    writer.write_thumbnail(_small_level(path, entry), thumbnail)
    size_bytes = os.stat(path).st_size
    rows = [
        _row("pyramid", f"derived/{name}", size_bytes),
        _row("thumbnail", "derived/thumbnail.jpg", os.stat(thumbnail).st_size),
    ]
    settings = file.config.convert
    compression = writer.compression_of(image, settings)
    conversion = {
        "why": "a flat image: a viewer needs levels and tiles",
        "reader": reader,
        "compression": compression,
        "quality": settings.quality if compression == "jpeg" else None,
        "tile": settings.tile,
        "seconds": round(time.monotonic() - began, 3),
        "source_bytes": file.manifest["size_bytes"],
        "output_bytes": size_bytes,
    }
    return Outcome(
        status=Status.DEPLOYING,
        changes={
            "images": [entry],
            "sha256": digest,
            "files": [*_with_hash(file, digest), *rows],
            "conversion": conversion,
            "warnings": [*file.manifest["warnings"], *done],
        },
    )


def _hash(file: UploadedFile) -> str:
    """The hash of the source, unless it is known already."""
    known = file.manifest["sha256"]
    return known or verify.sha256(
        file.source, lambda _: None, size_bytes=file.manifest["size_bytes"]
    )


def _with_hash(file: UploadedFile, digest: str) -> list[FileEntry]:
    return [
        FileEntry(**{**row, "sha256": digest}) if row["path"] == file.source else row
        for row in file.manifest["files"]
    ]


def _write(file: UploadedFile, path: str) -> tuple[Any, str, list[str]]:
    """The image as it was written, which library read it, and what was done to it.

    A warning is not a verdict: it sends the file to a second reader.
    """
    try:
        image, done = source.normalised(source.open_strict(file.source, file.config))
        _save(file, image, path)
        return image, "libvips", done
    except pyvips.Error as error:
        _raise_if_full(error)
        second, said = source.open_second(file.source, file.config, str(error))
    try:
        image, done = source.normalised(second)
        _save(file, image, path)
    except pyvips.Error as error:
        _raise_if_full(error)
        raise ConversionError("damaged", f"it cannot be converted: {error}"[:400]) from error
    return image, said.rpartition(";")[2].split()[0], [said, *done]


def _save(file: UploadedFile, image: Any, path: str) -> None:
    mpp = resolution.stated(file.source, image.xres, image.yres)
    if mpp is not None and _is_turned(file.source):
        mpp = type(mpp)(mpp.y, mpp.x)
    writer.write_pyramid(image, path, file.config.convert, mpp, file.progress)


def _is_turned(path: str) -> bool:
    """Whether turning it upright exchanges its axes (EXIF orientations 5 to 8)."""
    image = pyvips.Image.new_from_file(path)
    return bool(image.get_typeof("orientation")) and image.get("orientation") >= 5


def _raise_if_full(error: pyvips.Error) -> None:
    text = str(error).lower()
    if any(mark in text for mark in _FULL):
        raise TransientError("disk", text.strip()[:200]) from error


def _describe(path: str, file: str, image: Any) -> ImageEntry:
    entry = describe.by_tags(path, file, icc_profile=bool(image.get_typeof("icc-profile-data")))
    if (entry["width"], entry["height"]) != (image.width, image.height):
        raise ConversionError("damaged", "the pyramid has another size than the image")
    return entry


def _small_level(path: str, entry: ImageEntry) -> Any:
    """The smallest level that still fills a thumbnail."""
    wide = [
        i for i, level in enumerate(entry["levels"]) if max(level["width"], level["height"]) >= 512
    ]
    return writer.level_image(path, wide[-1] if wide else 0)


def _row(role: str, path: str, size_bytes: int) -> FileEntry:
    return FileEntry(
        role=role, path=path, size_bytes=size_bytes, sha256=None, status=Status.DEPLOYED.name
    )
