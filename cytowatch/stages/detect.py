"""DETECTING FORMAT: what it is, by its bytes; exactly one format must match."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import openslide

from cytowatch import formats
from cytowatch.config.keys import Limits
from cytowatch.durable import owner
from cytowatch.formats import Format, Probe, limits, shown
from cytowatch.formats.completeness.arrival import Watch
from cytowatch.formats.completeness.uploaded import (
    arrived,
    beside,
    check_whole,
    incomplete,
    probed,
    watches_of,
)
from cytowatch.formats.doubles import has_zip_behind, is_last_part
from cytowatch.formats.marks import levels
from cytowatch.formats.structure.main import main_page, within
from cytowatch.model import Outcome, UploadedFile
from cytowatch.pyramid import flat, native, verify
from cytowatch.pyramid.meaning import is_odd
from cytowatch.record import lacking
from cytowatch.record.entries import FileEntry, FormatEntry
from cytowatch.record.errors import FormatError
from cytowatch.record.status import Status

__all__ = ["detect", "identify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the structure of the file shows: of a TIFF, what OpenSlide would show otherwise."""

    levels: int
    misread: str | None
    unheeded: str | None
    ascending: str | None
    is_first: bool
    warnings: tuple[str, ...]


def detect(file: UploadedFile) -> Outcome:
    """Name the format of `file`, and say which stage treats it next.

    Raises
    ------
    FormatError
        No format matches, several do, it is incomplete or damaged, or its reader refuses it.
    """
    path = file.source
    with probed(path, beside(file)) as probe:
        try:
            promised, late = check_whole(file)
            found, evidence = identify(probe)
        except FormatError as error:
            _check_part(error, file.manifest["name"])
            raise
        _check_structure(probe, file.config.limits)
        _check_supported(found, probe)
        seen = _seen(found, probe)
    is_native, slide_vendor = found.native, None
    warnings = [*file.manifest["warnings"], *promised, *late, *seen.warnings]
    if found.native:
        slide_vendor, said = _as_native(file, found, seen, late)
        is_native = slide_vendor is not None
        warnings += said
    elif not found.extract and file.config.convert.derive == "large":
        is_native = seen.is_first and not is_odd(path) and native.is_small(path)
    status = _next(found, native=is_native)
    entry = FormatEntry(
        id=found.id,
        name=found.name,
        native=is_native,
        evidence=evidence,
        openslide_vendor=slide_vendor or None,
    )
    changes = _looked_through(file, status, native=is_native)
    warnings += cast("list[str]", changes.pop("warnings", []))
    return Outcome(status=status, changes={"format": entry, "warnings": warnings, **changes})


def _seen(found: Format, probe: Probe) -> _Seen:
    tiff = probe.tiff
    warnings: list[str] = []
    if tiff is not None and tiff.loops:
        warnings.append("its list of directories leads back into itself: it was read once round")
    if not found.extract and has_zip_behind(probe.descriptor, probe.size_bytes):
        warnings.append("a zip archive is appended to it, which was not unpacked")
    unheeded = shown.unheeded(tiff) if tiff is not None else None
    if unheeded is None and found.native and tiff is not None:
        unheeded = native.contradiction(found, tiff)
    return _Seen(
        levels=_levels_in(probe),
        misread=shown.misread(tiff) if tiff is not None else None,
        unheeded=unheeded,
        ascending=shown.ascending(tiff) if tiff is not None else None,
        is_first=tiff is None or (main_page(tiff) == 0 and within(tiff) is None),
        warnings=tuple(warnings),
    )


def _as_native(
    file: UploadedFile, found: Format, seen: _Seen, late: list[str]
) -> tuple[str | None, list[str]]:
    """(OpenSlide's word for the vendor, what is to be said); no vendor where a pyramid is derived instead.

    Raises
    ------
    FormatError
        As `detect` says.
    """
    path, warnings = file.source, list[str]()
    vendor, refusal = native.opened(path, seen.levels, file.config.limits)
    derived = native.derived_instead(found, path, refusal, seen.ascending)
    how = native.why_derived(found, refusal)
    if refusal is not None and derived is None and not found.else_derived:
        # Bytes that never came are the cause, and not what OpenSlide makes of their lack.
        watches = watches_of(file, native=True)
        _hashed(file, watches)
        arrived(file, watches, flat.first_gap)
    if derived is not None:
        refusal = derived
    elif not found.else_derived:
        warnings += native.judged(found, path, refusal, seen.misread, seen.unheeded)
    elif seen.misread or seen.unheeded:
        refusal = f"it has {seen.misread or seen.unheeded}, which it would not show as they are"
    elif seen.levels < found.least_levels:
        refusal = "it has one level"
    if refusal is None and late:
        _read_everything(file, late[0])
    if refusal is not None and not found.often_derived:
        warnings.append(f"OpenSlide {how}, so a pyramid is derived: {refusal}")
    return None if refusal is not None else vendor or "", warnings


def _looked_through(file: UploadedFile, status: Status, *, native: bool) -> dict[str, object]:
    """The hashes and what is to be said, where it is looked through now; else nothing."""
    # Only who refuses or links duplicates must know the hash before a conversion is paid for;
    # otherwise it is computed beside the conversion, where it costs a fraction of the time.
    settings = file.config.storage
    later = status is Status.CONVERTING or (status is Status.DEPLOYING and settings.hash == "after")
    watches = watches_of(file, native=native)
    # What its owner may still write to is compared with this before it is published.
    ours = all(owner.is_ours(os.stat(row["path"])) for row in file.manifest["files"])
    if not later or settings.duplicates != "keep" or not ours:
        changes = _hashed(file, watches)
        return {**changes, "warnings": arrived(file, watches, flat.first_gap)}
    if status is Status.DEPLOYING:
        # It is hashed when it is published already; what a viewer would meet is looked at now.
        for watch in watches.values():
            watch.look()
        arrived(file, watches, flat.first_gap)
    return {}


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
        case [] if stranger := formats.known(probe.head):
            what, how = stranger
            raise FormatError("unsupported_format", lacking.kind(what, how))
        case [] if has_zip_behind(probe.descriptor, probe.size_bytes):
            split = is_last_part(probe.descriptor, probe.size_bytes)
            what, how = lacking.PART_OF_ARCHIVE if split else lacking.SELF_EXTRACTING
            raise FormatError("unsupported_format", lacking.kind(what, how))
        case []:
            looks = formats.looks_like(probe)
            how = "copy it again from the scanner" if "damaged" in looks or "zeros" in looks else ""
            raise FormatError("unknown_format", lacking.kind(looks, how))
        case several:
            named = ", ".join(one.name for one, _ in several)
            raise FormatError("ambiguous_format", f"it could be any of {named}")


def _check_part(error: FormatError, name: str) -> None:
    """Say what a part of a split archive is: it is never whole, so copying it again does not help.

    Raises
    ------
    FormatError
        `unsupported_format`, in place of `error`.
    """
    parts = ("incomplete", "unknown_format", "unsupported_format")
    if error.reason in parts and lacking.is_part_of_archive(name):
        said = lacking.kind(*lacking.PART_OF_ARCHIVE)
        raise FormatError("unsupported_format", said) from error


def _check_structure(probe: Probe, allowed: Limits) -> None:
    """No directory too many, and none that leads in a circle.

    Raises
    ------
    FormatError
        `too_many_pages` or `too_many_tags`.
    """
    refusal = limits.of_structure(probe.tiff, allowed) if probe.tiff is not None else None
    if refusal is not None:
        raise FormatError(*refusal)


def _check_supported(found: Format, probe: Probe) -> None:
    if found.needs is not None and importlib.util.find_spec(found.needs) is None:
        said = f"{found.needs}, which reads {found.name}, is not available on this machine"
        raise FormatError("reader_missing", said)
    if (refusal := found.refuses(probe)) is not None:
        raise FormatError(*refusal)


def _levels_in(probe: Probe) -> int:
    """How many levels a TIFF has, as far as its structure tells; else 1."""
    if probe.tiff is None:
        return 1
    first = probe.tiff.directories[0]
    return max(len(levels(probe.tiff)), 1 + len(first.numbers(330)))


def _hashed(file: UploadedFile, watches: Mapping[str, Watch]) -> dict[str, object]:
    total = max(1, file.manifest["size_bytes"])
    done = 0
    rows: list[FileEntry] = []
    for row in file.manifest["files"]:
        before = done
        size = row["size_bytes"]
        digest = verify.sha256(
            row["path"],
            lambda share, before=before, size=size: file.progress((before + share * size) / total),  # type: ignore[misc]
            size_bytes=size,
            look=watches[row["path"]].feed,
        )
        done += size
        rows.append(FileEntry(**{**row, "sha256": digest}))
    sources = [row["sha256"] for row in rows if row["role"] == "source"]
    return {"files": rows, "sha256": sources[0] if len(sources) == 1 else None}


def _next(found: Format, *, native: bool) -> Status:
    if found.extract:
        return Status.EXTRACTING_DATA
    return Status.DEPLOYING if native else Status.CONVERTING


def _read_everything(file: UploadedFile, absent: str) -> None:
    """Let a reader of every pixel decide whether a native slide is whole, since its structure says no.

    Raises
    ------
    FormatError
        `incomplete`: it is not.
    """
    try:
        verify.read_everything(file.source, file.progress)
    except openslide.OpenSlideError as error:
        raise incomplete(f"{absent.partition(';')[0]} ({error})", None) from error
