"""DETECTING_FORMAT: what is it, by its content; and its hash, unless a conversion follows."""

from __future__ import annotations

import os

import openslide

from cytowatch import formats
from cytowatch.errors import FormatError
from cytowatch.formats import Format, Probe, completeness
from cytowatch.formats.looks import NOT_YET
from cytowatch.formats.marks import vendor
from cytowatch.manifest import FileEntry, FormatEntry
from cytowatch.model import Outcome, UploadedFile
from cytowatch.pyramid import verify
from cytowatch.status import Status

__all__ = ["detect", "identify"]

#: Flat images up to this many pixels a side stay as they are with ``derive = "large"``.
_SMALL_PX = 1024


def detect(file: UploadedFile) -> Outcome:
    """Name the format of `file`, and say which stage treats it next.

    Raises
    ------
    FormatError
        No format matches, several do, it is incomplete, or its reader refuses it.
    """
    path = file.source
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        probe = Probe(descriptor)
        lacking = completeness.missing(descriptor, probe.size_bytes)
        if lacking is not None:
            raise FormatError("incomplete", f"it is not whole: missing {lacking}", retryable=True)
        found, evidence = identify(probe)
    finally:
        os.close(descriptor)
    native, slide_vendor = found.native, None
    warnings = list(file.manifest["warnings"])
    if found.native:
        slide_vendor, refusal = _opened(path)
        if refusal is not None and found.id != "pyramidal-tiff":
            raise FormatError("unreadable", f"{found.name}, but OpenSlide says: {refusal}")
        native = refusal is None
        if refusal is not None:
            warnings.append(f"OpenSlide does not read it, so a pyramid is derived: {refusal}")
    elif not found.extract and file.config.convert.derive == "large":
        native = _is_small(path)
    status = _next(found, native=native)
    digest = None
    # Only who refuses or links duplicates must know the hash before a conversion is paid for;
    # otherwise it is computed beside the conversion, where it costs a fraction of the time.
    if status is not Status.CONVERTING or file.config.storage.duplicates != "keep":
        digest = verify.sha256(path, file.progress, size_bytes=probe.size_bytes)
    entry = FormatEntry(
        id=found.id,
        name=found.name,
        native=native,
        evidence=evidence,
        openslide_vendor=slide_vendor,
    )
    files = [
        FileEntry(**{**row, "sha256": digest}) if row["path"] == path else row
        for row in file.manifest["files"]
    ]
    changes = {"format": entry, "sha256": digest, "files": files, "warnings": warnings}
    return Outcome(status=status, changes=changes)


def identify(probe: Probe) -> tuple[Format, str]:
    """The one format that claims the probed file, with the evidence.

    Raises
    ------
    FormatError
        None does, or several do: a guess would deploy a wrong image.
    """
    match formats.matching(probe):
        case [only]:
            return only
        case []:
            looks = formats.looks_like(probe)
            mark = vendor(probe)
            if mark is not None and mark[0] in NOT_YET:
                raise FormatError("unsupported_format", f"it is {looks}, which is not supported")
            raise FormatError("unknown_format", f"no supported format matches; it is {looks}")
        case several:
            named = ", ".join(one.name for one, _ in several)
            raise FormatError("ambiguous_format", f"it could be any of {named}")


def _next(found: Format, *, native: bool) -> Status:
    if found.extract:
        return Status.EXTRACTING_DATA
    return Status.DEPLOYING if native else Status.CONVERTING


def _opened(path: str) -> tuple[str | None, str | None]:
    """(vendor, None) if OpenSlide reads a pixel of every level now, else (None, why not)."""
    try:
        with openslide.OpenSlide(path) as slide:
            for level, (width, height) in enumerate(slide.level_dimensions):
                scale = slide.level_downsamples[level]
                middle = (int(width * scale / 2), int(height * scale / 2))
                slide.read_region(middle, level, (1, 1))
            return slide.properties.get(openslide.PROPERTY_NAME_VENDOR), None
    except openslide.OpenSlideError as error:
        return None, str(error)[:300] or type(error).__name__


def _is_small(path: str) -> bool:
    import pyvips

    try:
        image = pyvips.Image.new_from_file(path)
    except pyvips.Error:
        return False
    return bool(max(image.width, image.height) <= _SMALL_PX)
