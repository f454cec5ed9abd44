"""CONVERTING: a pyramid is derived from each image that no viewer can show at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import pyvips

from cytowatch import formats
from cytowatch.formats.completeness import arrival
from cytowatch.formats.completeness.judging import Doubt
from cytowatch.model import SCRATCH, Outcome, UploadedFile
from cytowatch.pyramid import flat, verify
from cytowatch.pyramid.derive import Written, write
from cytowatch.pyramid.encode import writer
from cytowatch.pyramid.pixels import Pixels
from cytowatch.record.entries import FileEntry
from cytowatch.record.errors import ConversionError
from cytowatch.record.status import Status

__all__ = ["convert"]


def convert(file: UploadedFile) -> Outcome:
    """Write a pyramid of each scene of `file`, the thumbnail, and label and macro if it has them.

    Raises
    ------
    ConversionError
        It is incomplete, damaged, too large, or of samples that no pyramid can hold.
    TransientError
        The disk is full, or too full for what may come.
    """
    with _temporary_files_in(f"{file.out}/{SCRATCH}"):
        return _convert(file)


def _convert(file: UploadedFile) -> Outcome:
    began = time.monotonic()
    with ThreadPoolExecutor(1) as beside:
        hashing = beside.submit(_hashes, file)
        try:
            written, reader, done, pictures = write(file)
        except ConversionError as error:
            # Bytes that never came are the cause, and not what the decoder makes of their lack.
            doubts = hashing.result()[1]
            if error.reason == "damaged":
                # What was refused before it was decoded must not be decoded here.
                _check_zeros(doubts)
            raise
        digests, doubts = hashing.result()
    _check_zeros(doubts)
    thumbnail = f"{file.out}/thumbnail.jpg"
    writer.write_thumbnail(_small_level(written[0]), thumbnail)
    rows = [
        *(_row(file, "pyramid", os.path.basename(one.path)) for one in written),
        _row(file, "thumbnail", "thumbnail.jpg"),
        *(_picture(file, name, pixels) for name, pixels in sorted(pictures.items())),
    ]
    for one in written:
        one.entry["associated"] = sorted(pictures)
    settings = file.config.convert
    compression = written[0].compression
    copied = any(one.copied_bytes for one in written)
    conversion = {
        "why": _why(file, reader),
        "reader": reader,
        "compression": compression,
        "quality": settings.quality if compression == "jpeg" and not copied else None,
        "tile": written[0].entry["levels"][0]["tile_width"] or settings.tile,
        "seconds": round(time.monotonic() - began, 3),
        "source_bytes": file.manifest["size_bytes"],
        "output_bytes": sum(os.stat(one.path).st_size for one in written),
    }
    [*sources] = (row for row in file.manifest["files"] if row["role"] == "source")
    return Outcome(
        status=Status.DEPLOYING,
        changes={
            "images": [one.entry for one in written],
            "sha256": digests[sources[0]["path"]] if len(sources) == 1 else None,
            "files": [*_with_hashes(file, digests), *rows],
            "conversion": conversion,
            "warnings": list(dict.fromkeys([*file.manifest["warnings"], *done])),
        },
    )


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """What a decoder cannot keep in memory goes where this process may write; `TMPDIR` is put back.

    The folder is relative and gone soon: left behind, it would mislead anything that runs here next.
    """
    before = os.environ.get("TMPDIR")
    os.makedirs(folder, exist_ok=True)
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def _why(file: UploadedFile, reader: str) -> str:
    form = file.manifest["format"]
    if reader == "libvips":
        return "a flat image: a viewer needs levels and tiles"
    if form is not None and _is_vendors(form["id"]):
        return "a slide that OpenSlide does not show as it is meant"
    return "a format that viewers do not open by themselves"


def _is_vendors(id_: str) -> bool:
    """Whether it is deployed as it is, unless OpenSlide shows it wrongly."""
    row = formats.by_id(id_)
    return row.native and not row.else_derived


def _hashes(file: UploadedFile) -> tuple[dict[str, str], dict[str, tuple[Doubt, ...]]]:
    """The hash of each source by its path, unless it is known already; and zeros that may be its pixels.

    Raises
    ------
    ConversionError
        `incomplete`: bytes of it never came, no matter what a decoder made of them.
    """
    digests: dict[str, str] = {}
    doubts: dict[str, tuple[Doubt, ...]] = {}
    for row in file.manifest["files"]:
        path, known = row["path"], row["sha256"]
        watch = arrival.watch(path)
        digests[path] = known or verify.sha256(
            path, lambda _: None, size_bytes=row["size_bytes"], look=watch.feed
        )
        found = watch.verdict()
        named = f"{path.removeprefix('source/')}: " if len(file.manifest["files"]) > 1 else ""
        if found.lacks is not None:
            raise _incomplete(f"{named}{found.lacks}")
        doubts[path] = found.doubts
    return digests, doubts


def _check_zeros(doubts: dict[str, tuple[Doubt, ...]]) -> None:
    """Zeros that are flat pixels are all needed by the decoder, and give it nothing to say.

    Raises
    ------
    ConversionError
        `incomplete`: some are not.
    """
    for path, some in doubts.items():
        found = flat.first_gap(path, some) if some else None
        if found is not None:
            named = f"{path.removeprefix('source/')}: " if len(doubts) > 1 else ""
            raise _incomplete(f"{named}{found}")


def _incomplete(what: str) -> ConversionError:
    return ConversionError("incomplete", f"it is not whole: missing {what}", retryable=True)


def _with_hashes(file: UploadedFile, digests: dict[str, str]) -> list[FileEntry]:
    return [
        cast("FileEntry", {**row, "sha256": digests[row["path"]]}) for row in file.manifest["files"]
    ]


def _small_level(written: Written) -> Any:
    """The smallest level that still fills a thumbnail."""
    levels = written.entry["levels"]
    wide = [i for i, level in enumerate(levels) if max(level["width"], level["height"]) >= 512]
    return writer.level_image(written.path, wide[-1] if wide else 0)


def _picture(file: UploadedFile, name: str, pixels: Pixels) -> FileEntry:
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    image.jpegsave(f"{file.out}/{name}.jpg", Q=90)
    return _row(file, name, f"{name}.jpg")


def _row(file: UploadedFile, role: str, name: str) -> FileEntry:
    return FileEntry(
        role=role,
        path=f"derived/{name}",
        size_bytes=os.stat(f"{file.out}/{name}").st_size,
        sha256=None,
        status=Status.DEPLOYED.name,
    )
