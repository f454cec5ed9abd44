"""DEPLOYING: the pyramid is opened again and read, and given its thumbnail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, cast

import openslide
import pyvips
from PIL import Image

from cytowatch.model import Outcome, UploadedFile
from cytowatch.pyramid import describe, verify
from cytowatch.pyramid.encode import writer
from cytowatch.record.entries import FileEntry, ImageEntry
from cytowatch.record.errors import DeploymentError
from cytowatch.record.manifest import utc
from cytowatch.record.quoting import quoting
from cytowatch.record.status import Status

__all__ = ["deploy", "reopen"]

_ASSOCIATED = frozenset({"label", "macro", "thumbnail"})
#: Larger ones are neither a label nor an overview.
_LARGEST_ASSOCIATED = 64_000_000
#: What a thumbnail and the associated images take at most, as a rule.
_PICTURES_BYTES = 4 << 20


def deploy(file: UploadedFile) -> Outcome:
    """Verify what `file` is to publish, and describe it.

    Raises
    ------
    DeploymentError
        A level cannot be read back, a native slide is `damaged`, or a size has changed since it
        was received.
    """
    _check_sizes(file)
    file.check_room(_PICTURES_BYTES)
    return _derived(file) if file.manifest["conversion"] is not None else _native(file)


def reopen(file: UploadedFile) -> Outcome:
    """Read every level of what `file` has published, as before it was published.

    Raises
    ------
    DeploymentError
        A level cannot be read back, or is not what the manifest says.
    """
    levels = regions = 0
    derived = file.manifest["conversion"] is not None
    for was in file.manifest["images"]:
        slide = None if derived else describe.open_slide(was["file"])
        if derived:
            _, more_levels, more_regions = _verified(was)
        elif slide is None:
            more_levels, more_regions = verify.read_pages(was["file"], was)
        else:
            with slide:
                _check_same(was, describe.by_openslide(slide, was["file"]))
                more_levels, more_regions = verify.read_levels(slide)
        levels, regions = levels + more_levels, regions + more_regions
    verification = {"levels_read": levels, "tiles_read": regions, "at": utc(datetime.now(UTC))}
    return Outcome(status=Status.DEPLOYED, changes={"verification": verification})


def _native(file: UploadedFile) -> Outcome:
    path = file.source
    with_slide = (
        describe.open_slide(path)
        if file.manifest["format"] and file.manifest["format"]["openslide_vendor"]
        else None
    )
    warnings: list[str] = []
    if with_slide is None:
        image = describe.by_pyvips(path, path)
        levels, regions = verify.read_pages(path, image, reason="damaged")
        made = [_thumbnail(file, pyvips.Image.new_from_file(path))]
    else:
        with with_slide as slide:
            levels, regions = verify.read_levels(slide, reason="damaged")
            image = describe.by_openslide(slide, path)
            made, lost = _pictures(file, slide)
        image["associated"] = [name for name in image["associated"] if name not in lost]
        warnings = [f"its {name} is damaged, and was left out" for name in lost]
    files = [*file.manifest["files"], *made]
    return _outcome(file, Status.DEPLOYED, [image], files, levels, regions, warnings)


def _derived(file: UploadedFile) -> Outcome:
    images: list[ImageEntry] = []
    levels = regions = 0
    for was in file.manifest["images"]:
        image, more_levels, more_regions = _verified(was)
        images.append(image)
        levels += more_levels
        regions += more_regions
    return _outcome(file, Status.CONVERTED, images, file.manifest["files"], levels, regions)


def _verified(was: ImageEntry) -> tuple[ImageEntry, int, int]:
    """One derived pyramid as it reads back: (entry, levels read, regions read)."""
    slide = describe.open_slide(was["file"])
    if slide is None and was["bits_per_sample"] == 8:
        raise DeploymentError("verification_failed", "OpenSlide does not open the pyramid")
    if slide is None:
        return was, *verify.read_pages(was["file"], was)
    with slide:
        image = describe.by_openslide(slide, was["file"])
        levels, regions = verify.read_levels(slide)
    _check_same(was, image)
    kept = (
        "scene",
        "samples_per_pixel",
        "bits_per_sample",
        "objective_power",
        "associated",
        "acquired_at",
    )
    facts: dict[str, Any] = {key: cast("dict[str, Any]", was)[key] for key in kept}
    merged = {**image, **facts, "vendor": None, "properties": {}}
    return cast("ImageEntry", merged), levels, regions


def _outcome(
    file: UploadedFile,
    status: Status,
    images: list[ImageEntry],
    files: list[FileEntry],
    levels: int,
    regions: int,
    warnings: Sequence[str] = (),
) -> Outcome:
    verification = {"levels_read": levels, "tiles_read": regions, "at": utc(datetime.now(UTC))}
    changes = {
        "images": images,
        "files": files,
        "verification": verification,
        "warnings": [*file.manifest["warnings"], *warnings],
    }
    return Outcome(status=status, changes=changes)


def _check_sizes(file: UploadedFile) -> None:
    """A handle that a client kept open could still have written."""
    for row in file.manifest["files"]:
        size_bytes = os.stat(row["path"]).st_size
        if size_bytes != row["size_bytes"]:
            raise DeploymentError(
                "changed",
                f"{row['path']} has {size_bytes:,} bytes now, {row['size_bytes']:,} were received",
                retryable=True,
            )


def _check_same(was: ImageEntry, image: ImageEntry) -> None:
    before = [(level["width"], level["height"]) for level in was["levels"]]
    now = [(level["width"], level["height"]) for level in image["levels"]]
    if before != now:
        raise DeploymentError(
            "verification_failed", f"OpenSlide sees the levels {now}, written were {before}"
        )


def _pictures(file: UploadedFile, slide: openslide.OpenSlide) -> tuple[list[FileEntry], list[str]]:
    """The thumbnail, label and macro of a native slide as files of their own, and which are lost.

    Raises
    ------
    DeploymentError
        `damaged`: the slide itself cannot be shown.
    """
    with ExitStack() as again:
        own: dict[str, Image.Image] = {}
        lost: list[str] = []
        # Asking openslide-python whether a name is in the mapping would decode the image.
        for name in sorted(_ASSOCIATED & set(slide.associated_images)):
            try:
                own[name] = slide.associated_images[name]
            except openslide.OpenSlideError:
                lost.append(name)
                # After an error OpenSlide reads nothing more through the same handle.
                slide = again.enter_context(openslide.OpenSlide(file.source))
        small = {name: one for name, one in own.items() if _is_small(one.size)}
        try:
            overview = _overview(slide, small.pop("thumbnail", None)).convert("RGB")
        except openslide.OpenSlideError as error:
            raise DeploymentError(
                "damaged", quoting("its pixels are incomplete or corrupt", error)
            ) from error
    # Reduced by Pillow first: handing the pixels of a whole level to libvips costs 0.3 s.
    overview.thumbnail((writer.THUMBNAIL_PX, writer.THUMBNAIL_PX), reducing_gap=2.0)
    made = [_thumbnail(file, pyvips.Image.new_from_array(overview).copy(interpretation="srgb"))]
    for name, picture in small.items():
        picture.convert("RGB").save(f"{file.out}/{name}.jpg", quality=90)
        made.append(_made(file, name, f"{name}.jpg"))
    return made, lost


def _is_small(size: tuple[int, int]) -> bool:
    return size[0] * size[1] <= _LARGEST_ASSOCIATED


def _overview(slide: openslide.OpenSlide, own: Image.Image | None) -> Any:
    """A picture of the whole slide: its own thumbnail, else its smallest level that is enough."""
    if own is not None and max(own.size) >= writer.THUMBNAIL_PX:
        return own
    for level, size in reversed(list(enumerate(slide.level_dimensions))):
        if max(size) >= writer.THUMBNAIL_PX or level == 0:
            if _is_small(size):
                return slide.read_region((0, 0), level, size)
            break
    return slide.get_thumbnail((writer.THUMBNAIL_PX, writer.THUMBNAIL_PX))


def _thumbnail(file: UploadedFile, image: pyvips.Image) -> FileEntry:
    writer.write_thumbnail(image, f"{file.out}/thumbnail.jpg")
    return _made(file, "thumbnail", "thumbnail.jpg")


def _made(file: UploadedFile, role: str, name: str) -> FileEntry:
    # Its hash is the daemon's to compute, once this process is gone.
    return FileEntry(
        role=role,
        path=f"derived/{name}",
        size_bytes=os.stat(f"{file.out}/{name}").st_size,
        sha256=None,
        status=Status.DEPLOYED.name,
    )
