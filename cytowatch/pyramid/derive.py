"""A pyramid for each scene of an image: by libvips, or by the reader of its format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyvips

from cytowatch import durable
from cytowatch.model import Mpp, Progress, UploadedFile
from cytowatch.pyramid import complaints, describe, further, resolution, source, verify
from cytowatch.pyramid.copied import CopiedLevel, Unlike
from cytowatch.pyramid.encode import writer
from cytowatch.pyramid.meaning import is_odd
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers import READERS, imagej
from cytowatch.pyramid.readers.pages import open_page
from cytowatch.pyramid.refusals import check_expansion, check_memory
from cytowatch.pyramid.regions import Opened, Scene
from cytowatch.pyramid.samples import held
from cytowatch.pyramid.virtual import VirtualTiff, as_image, is_plain
from cytowatch.record import names
from cytowatch.record.entries import ImageEntry
from cytowatch.record.errors import ConversionError, IngestError, TransientError
from cytowatch.record.quoting import quoting

__all__ = ["Written", "write"]

_NEARLY_FULL_BYTES = 1 << 20
#: What libvips says of a file that it cannot write on.
_FAULTS = ("write error", "input/output error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One pyramid as it was written, and what was done to its image."""

    entry: ImageEntry
    path: str
    done: list[str]
    compression: str
    copied_bytes: int = 0


def write(file: UploadedFile) -> tuple[list[Written], str, list[str], dict[str, Pixels]]:
    """(what was written, which library read it, what was done, label and macro).

    A warning is not a verdict: it sends the file to a second reader.
    """
    written, reader, done, pictures = _written(file)
    return written, reader, [*done, *further.told(file.source)], pictures


def _written(file: UploadedFile) -> tuple[list[Written], str, list[str], dict[str, Pixels]]:
    form = file.manifest["format"]
    read = READERS.get(form["id"]) if form else None
    if read is None and imagej.is_composite(file.source):
        read = imagej.open_composite
    elif read is None and is_odd(file.source):
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


def _by_libvips(file: UploadedFile) -> Written:
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
) -> tuple[list[Written], str, list[str], dict[str, Pixels]]:
    done = [*said, *opened.done]
    written: list[Written] = []
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
) -> Written:
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
    """The same, never back: what is tried again was done before."""
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
) -> Written:
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

    The error of its reader says more than what libvips turns it into.
    """
    try:
        image, virtual = as_image(scene)
        if copied:
            virtual.close()
            virtual = VirtualTiff(copied[-1])
    except pyvips.Error as error:
        _raise_if_full(error)
        raise ConversionError(
            "damaged", quoting("it cannot be converted", complaints.first_line(str(error)))
        ) from error
    try:
        yield image, virtual
    except pyvips.Error as error:
        if virtual.error is not None and _is_told_as_it_is(virtual.error):
            raise virtual.error from error
        _raise_if_full(error)
        said = virtual.error or error
        raise ConversionError(
            "damaged", quoting("it cannot be converted", complaints.first_line(str(said)))
        ) from error
    finally:
        virtual.close()
    if virtual.error is not None:
        if _is_told_as_it_is(virtual.error):
            raise virtual.error
        raise ConversionError("damaged", quoting("its pixels cannot be read", virtual.error))


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
    # libvips has one buffer for the messages of all threads: another may have cleared it meanwhile.
    disk = os.statvfs(".")
    if durable.says_full(text) or disk.f_bavail * disk.f_frsize < _NEARLY_FULL_BYTES:
        raise TransientError("disk", "no space is left for its pyramid") from error
    if any(mark in text for mark in _FAULTS):
        raise TransientError("input_output", complaints.first_line(str(error))) from error


def _described(
    file: UploadedFile,
    path: str,
    image: Any,
    done: list[str],
    copied: Sequence[CopiedLevel] = (),
) -> Written:
    inside = f"derived/{os.path.basename(path)}"
    entry = describe.by_tags(path, inside, icc_profile=bool(image.get_typeof("icc-profile-data")))
    if (entry["width"], entry["height"]) != (image.width, image.height):
        raise ConversionError("damaged", "the pyramid has another size than the image")
    compression = writer.compression_of(image, file.config.convert)
    return Written(
        entry=entry,
        path=path,
        done=done,
        compression=compression,
        copied_bytes=sum(level.size_bytes for level in copied),
    )
