"""CONVERTING: a pyramid is derived from each image that no viewer can show at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pyvips

from cytowatch import durable
from cytowatch.formats.completeness import arrival
from cytowatch.model import SCRATCH, Mpp, Outcome, Progress, UploadedFile
from cytowatch.pyramid import complaints, describe, resolution, source, verify
from cytowatch.pyramid.copied import CopiedLevel, Unlike
from cytowatch.pyramid.encode import writer
from cytowatch.pyramid.meaning import is_odd
from cytowatch.pyramid.readers import READERS
from cytowatch.pyramid.readers.pages import open_page
from cytowatch.pyramid.regions import Opened, Pixels, Scene, check_expansion, check_memory
from cytowatch.pyramid.samples import held
from cytowatch.pyramid.virtual import VirtualTiff, as_image, is_plain
from cytowatch.record import names
from cytowatch.record.errors import ConversionError, IngestError, TransientError
from cytowatch.record.manifest import FileEntry, ImageEntry
from cytowatch.record.status import Status

__all__ = ["convert"]

#: Slides that are deployed as they are unless OpenSlide shows them wrongly.
_SLIDES = frozenset({"aperio-svs", "dicom"})
_NEARLY_FULL_BYTES = 1 << 20
_FULL = ("no space left", "disk quota", "write error", "input/output error")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """One pyramid as it was written, and what was done to its image."""

    entry: ImageEntry
    path: str
    done: list[str]
    compression: str
    copied_bytes: int = 0


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
            written, reader, done, pictures = _write(file)
        except ConversionError:
            # Bytes that never came are the cause, and not what the decoder makes of their lack.
            hashing.result()
            raise
        digests, doubt = hashing.result()
    if doubt is not None and any(one.startswith(source.COMPLAINED) for one in done):
        # Zeros that are flat pixels are all the decoder's own; these gave it something to say.
        raise _incomplete(doubt)
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
    if form is not None and form["id"] in _SLIDES:
        return "a slide that OpenSlide does not show as it is meant"
    return "a format that viewers do not open by themselves"


def _hashes(file: UploadedFile) -> tuple[dict[str, str], str | None]:
    """The hash of each source by its path, unless it is known already; and what may be missing.

    Raises
    ------
    ConversionError
        `incomplete`: bytes of it never came, whatever a decoder made of them.
    """
    digests: dict[str, str] = {}
    doubt: str | None = None
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
        doubt = doubt or (f"{named}{found.doubt}" if found.doubt is not None else None)
    return digests, doubt


def _incomplete(what: str) -> ConversionError:
    return ConversionError("incomplete", f"it is not whole: missing {what}", retryable=True)


def _with_hashes(file: UploadedFile, digests: dict[str, str]) -> list[FileEntry]:
    return [
        cast("FileEntry", {**row, "sha256": digests[row["path"]]}) for row in file.manifest["files"]
    ]


def _write(file: UploadedFile) -> tuple[list[_Written], str, list[str], dict[str, Pixels]]:
    """(what was written, which library read it, what was done, label and macro).

    A warning is not a verdict: it sends the file to a second reader.
    """
    form = file.manifest["format"]
    read = READERS.get(form["id"]) if form else None
    if read is None and is_odd(file.source):
        read = open_page
    if read is not None:
        return _by_reader(file, read(file.source, file.config), [])
    try:
        with complaints.raised():
            written = _by_libvips(file)
    except pyvips.Error as error:
        _raise_if_full(error)
        second, said = source.open_second(file.source, file.config, str(error))
        return _by_reader(file, second, [said])
    return [written], "libvips", written.done, {}


def _by_libvips(file: UploadedFile) -> _Written:
    stored = source.open_strict(file.source, file.config)
    image, done = source.normalised(stored)
    mpp = _upright(_stated(file, image), source.orientation(stored))
    path = f"{file.out}/{file.slug}.tiff"
    file.check_room(writer.estimate_bytes(image, file.config.convert))
    writer.write_pyramid(
        image,
        path,
        file.config.convert,
        mpp,
        file.progress,
        threads=file.config.engine.threads_per_worker,
    )
    return _described(file, path, image, done)


def _by_reader(
    file: UploadedFile, opened: Opened, said: list[str]
) -> tuple[list[_Written], str, list[str], dict[str, Pixels]]:
    done = [*said, *opened.done]
    written: list[_Written] = []
    try:
        for number, scene in enumerate(opened.scenes):
            path = f"{file.out}/{_name(file, opened.scenes, scene)}.tiff"
            share = _share(file.progress, number, len(opened.scenes))
            region = scene.region
            decoded_bytes = region.width * region.height * region.samples * region.dtype.itemsize
            check_expansion(decoded_bytes, file.manifest["size_bytes"], file.config)
            if scene.orientation != 1:
                check_memory(decoded_bytes, file.config, "turning it upright")
            spent_bytes = sum(one.copied_bytes for one in written)
            one = _copying(file, held(scene, share), path, share, spent_bytes)
            one.entry["scene"] = scene.index
            one.entry["objective_power"] = scene.objective_power
            one.entry["acquired_at"] = scene.acquired_at
            done += one.done
            written.append(one)
    finally:
        opened.close()
    if len(written) > 1:
        done.append(f"it has {len(written)} scenes: each is a pyramid of its own")
    return written, opened.reader, done, opened.pictures


def _copying(
    file: UploadedFile, scene: Scene, path: str, progress: Progress, spent_bytes: int
) -> _Written:
    """A pyramid with as many of the scene's own levels in it as can be copied.

    `spent_bytes` were copied of its other scenes: bytes that are named again and again would become more.

    Raises
    ------
    ConversionError
        `damaged`: among others, where a tile of its first level ends early.
    """
    settings = file.config.convert
    wanted = settings.copy_tiles and settings.compression == "jpeg" and is_plain(scene)
    copied = scene.copied() if wanted else ()
    if spent_bytes + sum(level.size_bytes for level in copied) > file.manifest["size_bytes"]:
        copied = ()
    told = _forward(progress)
    while True:
        try:
            return _scene(file, scene, path, told, copied)
        except Unlike as unlike:
            if unlike.number == 0:
                complaints.refuse_lost(unlike.said)
            copied = copied[: unlike.number]
            # Or there would be less room for the next one.
            durable.empty(path)


def _forward(progress: Progress) -> Progress:
    """The same, never back: what is tried anew was done before."""
    most = 0.0

    def told(share: float) -> None:
        nonlocal most
        most = max(most, share)
        progress(most)

    return told


def _scene(
    file: UploadedFile,
    scene: Scene,
    path: str,
    progress: Progress,
    copied: Sequence[CopiedLevel],
) -> _Written:
    settings = file.config.convert
    with _image(scene, copied) as (virtual, feed):
        image, also = source.normalised(virtual, scene.done)
        mpp = _upright(scene.mpp or _stated(file, image), scene.orientation)
        file.check_room(writer.estimate_bytes(image, settings, copied))
        writer.write_pyramid(
            image,
            path,
            settings,
            mpp,
            progress,
            threads=file.config.engine.threads_per_worker,
            bands=feed.bands if is_plain(scene) else None,
            copied=copied,
        )
        if copied:
            # Nothing else here has decoded them.
            pixels = image.width * image.height
            threads = writer.threads_for(file.config.engine.threads_per_worker, pixels)
            verify.read_tiles(path, copied, progress, threads=threads)
            also = [*also, _said_of(scene, copied)]
        return _described(file, path, image, [*scene.done, *also], copied)


def _said_of(scene: Scene, copied: Sequence[CopiedLevel]) -> str:
    of = f" of {scene.name}" if scene.name else ""
    levels = "the first level" if len(copied) == 1 else f"the first {len(copied)} levels"
    verb = "is" if len(copied) == 1 else "are"
    return f"{levels}{of} {verb} the source's own JPEG tiles, as they were"


@contextmanager
def _image(scene: Scene, copied: Sequence[CopiedLevel]) -> Iterator[tuple[Any, VirtualTiff]]:
    """The scene for libvips, and what feeds it, or the last of `copied`.

    What its reader raised says more than what libvips makes of it.
    """
    try:
        image, virtual = as_image(scene)
        if copied:
            virtual.close()
            virtual = VirtualTiff(copied[-1])
    except pyvips.Error as error:
        _raise_if_full(error)
        raise ConversionError(
            "damaged", f"it cannot be converted: {complaints.first_line(str(error))}"
        ) from error
    try:
        yield image, virtual
    except pyvips.Error as error:
        if virtual.error is not None and _is_told_as_it_is(virtual.error):
            raise virtual.error from error
        _raise_if_full(error)
        said = virtual.error or error
        raise ConversionError(
            "damaged", f"it cannot be converted: {complaints.first_line(str(said))}"
        ) from error
    finally:
        virtual.close()
    if virtual.error is not None:
        if _is_told_as_it_is(virtual.error):
            raise virtual.error
        raise ConversionError("damaged", f"it cannot be read: {virtual.error}"[:400])


def _is_told_as_it_is(error: BaseException) -> bool:
    passing = isinstance(error, OSError) and durable.is_transient(error)
    return passing or isinstance(error, (IngestError, MemoryError, Unlike))


def _name(file: UploadedFile, scenes: list[Scene], scene: Scene) -> str:
    """The name of a pyramid: the slug, and of several scenes which one."""
    if len(scenes) == 1:
        return file.slug
    number = f"{file.slug}-{scene.index + 1}"
    return f"{number}-{names.slug(scene.name)}" if scene.name else number


def _share(progress: Progress, number: int, of: int) -> Progress:
    return lambda share: progress((number + share) / of)


def _stated(file: UploadedFile, image: Any) -> Mpp | None:
    return resolution.stated(file.source, image.xres, image.yres)


def _upright(mpp: Mpp | None, orientation: int) -> Mpp | None:
    """The same where turning it upright has exchanged its axes (orientations 5 to 8)."""
    return Mpp(mpp.y, mpp.x) if mpp is not None and orientation >= 5 else mpp


def _raise_if_full(error: pyvips.Error) -> None:
    text = str(error).lower()
    # libvips has one buffer for what all threads say: another may have cleared it meanwhile.
    disk = os.statvfs(".")
    if any(mark in text for mark in _FULL) or disk.f_bavail * disk.f_frsize < _NEARLY_FULL_BYTES:
        said = text.strip()[:200] or "no space left on the disk"
        raise TransientError("disk", said) from error


def _described(
    file: UploadedFile,
    path: str,
    image: Any,
    done: list[str],
    copied: Sequence[CopiedLevel] = (),
) -> _Written:
    inside = f"derived/{os.path.basename(path)}"
    entry = describe.by_tags(path, inside, icc_profile=bool(image.get_typeof("icc-profile-data")))
    if (entry["width"], entry["height"]) != (image.width, image.height):
        raise ConversionError("damaged", "the pyramid has another size than the image")
    compression = writer.compression_of(image, file.config.convert)
    return _Written(
        entry=entry,
        path=path,
        done=done,
        compression=compression,
        copied_bytes=sum(level.size_bytes for level in copied),
    )


def _small_level(written: _Written) -> Any:
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
