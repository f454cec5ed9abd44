"""DETECTING FORMAT: what it is, by its bytes; exactly one format must match."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import openslide

from cytowatch import formats
from cytowatch.config.keys import Limits
from cytowatch.durable import owner
from cytowatch.formats import Format, Probe, limits, shown
from cytowatch.formats.completeness import arrival
from cytowatch.formats.completeness import whole as completeness
from cytowatch.formats.completeness.arrival import Watch
from cytowatch.formats.doubles import has_zip_behind
from cytowatch.formats.marks import levels
from cytowatch.formats.ome_tiff import other_files
from cytowatch.formats.sets import groups
from cytowatch.formats.sets.groups import Group
from cytowatch.formats.structure.tiff import main_page
from cytowatch.model import Outcome, UploadedFile
from cytowatch.pyramid import verify
from cytowatch.pyramid.meaning import is_odd
from cytowatch.pyramid.readers import dicom
from cytowatch.record import lacking
from cytowatch.record.errors import FormatError
from cytowatch.record.manifest import FileEntry, FormatEntry
from cytowatch.record.status import Status

__all__ = ["detect", "identify"]

T = TypeVar("T")

#: A flat image up to this many pixels a side stays as it is with ``convert.derive = "large"``.
_SMALL_PX = 1024
#: Of these a pyramid is derived where OpenSlide does not see all of their levels.
_ELSE_DERIVED = frozenset({"pyramidal-tiff", "ome-tiff"})
_INDEXES = (".vms", ".vmu")


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
    with _probed(path, _beside(file)) as probe:
        promised, late = _check_whole(file)
        found, evidence = identify(probe)
        _check_structure(probe, file.config.limits)
        _check_supported(found, probe)
        seen = _seen(found, probe)
    native, slide_vendor = found.native, None
    warnings = [*file.manifest["warnings"], *promised, *late, *seen.warnings]
    if found.native:
        slide_vendor, said = _as_native(file, found, seen, late)
        native = slide_vendor is not None
        warnings += said
    elif not found.extract and file.config.convert.derive == "large":
        native = seen.is_first and not is_odd(path) and _is_small(path)
    status = _next(found, native=native)
    entry = FormatEntry(
        id=found.id,
        name=found.name,
        native=native,
        evidence=evidence,
        openslide_vendor=slide_vendor or None,
    )
    changes = _looked_through(file, status, native=native)
    warnings += cast("list[str]", changes.pop("warnings", []))
    return Outcome(status=status, changes={"format": entry, "warnings": warnings, **changes})


def _seen(found: Format, probe: Probe) -> _Seen:
    tiff = probe.tiff
    warnings: list[str] = []
    if tiff is not None and tiff.loops:
        warnings.append("its list of directories leads back into itself: it was read once round")
    if not found.extract and has_zip_behind(probe.descriptor, probe.size_bytes):
        warnings.append("a zip archive is appended to it, which was not unpacked")
    return _Seen(
        levels=_levels_in(probe),
        misread=shown.misread(tiff) if tiff is not None else None,
        unheeded=shown.unheeded(tiff) if tiff is not None else None,
        ascending=shown.ascending(tiff) if tiff is not None else None,
        is_first=tiff is None or main_page(tiff) == 0,
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
    vendor, refusal = _opened(path, seen.levels, file.config.limits)
    derived = _derived_instead(found, path, refusal, seen.ascending)
    if refusal is not None and derived is None and found.id not in _ELSE_DERIVED:
        # Bytes that never came are the cause, and not what OpenSlide makes of their lack.
        watches = _watches(file, native=True)
        _hashed(file, watches)
        _arrived(file, watches)
    if derived is not None:
        refusal = derived
    elif found.id == "dicom":
        warnings += _judged_dicom(found, path, refusal)
    elif found.id not in _ELSE_DERIVED:
        warnings += _judged(found, refusal, seen.misread, seen.unheeded)
    elif seen.misread or seen.unheeded:
        refusal = f"it has {seen.misread or seen.unheeded}, which it would not show as they are"
    elif found.id == "ome-tiff" and seen.levels < 2:
        refusal = "it has one level"
    if refusal is None and late:
        _read_everything(file, late[0])
    # That an OME-TIFF is flat, or has its levels in SubIFDs, is nothing to be warned of.
    if refusal is not None and found.id != "ome-tiff":
        how = "would show wrong colours" if found.id == "dicom" else "does not read it"
        warnings.append(f"OpenSlide {how}, so a pyramid is derived: {refusal}")
    return None if refusal is not None else vendor or "", warnings


def _looked_through(file: UploadedFile, status: Status, *, native: bool) -> dict[str, object]:
    """The hashes and what is to be said, where it is looked through now; else nothing."""
    # Only who refuses or links duplicates must know the hash before a conversion is paid for;
    # otherwise it is computed beside the conversion, where it costs a fraction of the time.
    settings = file.config.storage
    later = status is Status.CONVERTING or (status is Status.DEPLOYING and settings.hash == "after")
    watches = _watches(file, native=native)
    # What its owner may still write to is compared with this before it is published.
    ours = all(owner.is_ours(os.stat(row["path"])) for row in file.manifest["files"])
    if not later or settings.duplicates != "keep" or not ours:
        changes = _hashed(file, watches)
        return {**changes, "warnings": _arrived(file, watches)}
    if status is Status.DEPLOYING:
        # It is hashed when it is published already; what a viewer would meet is looked at now.
        for watch in watches.values():
            watch.look()
        _arrived(file, watches)
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
            raise FormatError("unsupported_format", f"it is {what}, which is not supported: {how}")
        case []:
            looks = formats.looks_like(probe)
            raise FormatError("unknown_format", f"no supported format matches; it is {looks}")
        case several:
            named = ", ".join(one.name for one, _ in several)
            raise FormatError("ambiguous_format", f"it could be any of {named}")


@contextmanager
def _probed(path: str, beside: frozenset[str] = frozenset()) -> Iterator[Probe]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Probe(descriptor, name=os.path.basename(path), beside=beside, path=path)
    finally:
        os.close(descriptor)


def _look(path: str, function: Callable[[Probe], T]) -> T:
    with _probed(f"source/{path}") as probe:
        return function(probe)


def _own(file: UploadedFile) -> dict[str, int]:
    """The size of every source file, by its path below ``source/``."""
    return {
        row["path"].removeprefix("source/"): row["size_bytes"]
        for row in file.manifest["files"]
        if row["role"] == "source"
    }


def _beside(file: UploadedFile) -> frozenset[str]:
    return frozenset(_own(file))


def _watches(file: UploadedFile, *, native: bool) -> dict[str, Watch]:
    """A watch over each of its files, by its path."""
    paths = [row["path"] for row in file.manifest["files"]]
    watches = {path: arrival.watch(path) for path in paths}
    if native and len(paths) == 1:
        watches[paths[0]] = arrival.of_native(paths[0])
    return watches | arrival.of_sets(paths)


def _arrived(file: UploadedFile, watches: Mapping[str, Watch]) -> list[str]:
    """What is to be said of pictures beside the slide, after every file was looked through.

    Raises
    ------
    FormatError
        `incomplete` or `damaged`: OpenSlide, or a decoder, would show something else without a word.
    """
    said: list[str] = []
    for path, watch in watches.items():
        found = watch.verdict()
        named = f"{path.removeprefix('source/')}: " if len(watches) > 1 else ""
        if found.lacks is not None:
            raise _incomplete(f"{named}missing {found.lacks}", None)
        if found.damaged is not None:
            raise FormatError("damaged", f"{named}it is damaged in {found.damaged}")
        said += [f"its {one} is blank: somebody has taken it out" for one in found.blank]
    return said


def _check_whole(file: UploadedFile) -> tuple[list[str], list[str]]:
    """Every file of a set is there, and each is whole by its own structure; gives what is to be said of that.

    First of a single file that only its name makes a part of a set, and that is taken for what it holds; then
    of files that lack something by their structure, and may have all of their pixels.

    Raises
    ------
    FormatError
        `incomplete`, `mixed_slides`, or `unsafe_reference`: an index file names what is not of the set.
    """
    own = _own(file)
    for path in own:
        if path.endswith((*_INDEXES, "/Slidedat.ini")):
            stray = groups.unsafe(_look(path, groups.referred))
            if stray is not None:
                raise FormatError(
                    "unsafe_reference", f"{path} names {stray!r}, which is not in its own folder"
                )
    promised: list[str] = []
    for group in groups.groups(own, _look):
        if group.mixed is not None:
            raise FormatError(
                "mixed_slides",
                f"it holds files of two slides: {group.mixed} bears another SLIDE_ID than Slidedat.ini",
            )
        if group.missing is None:
            continue
        if len(own) > 1 or not _is_only_named_so(group):
            raise _incomplete(f"missing {group.missing}", group)
        promised.append(
            f"its name looks like a part of a slide of {_kind_of(group)}, of which "
            f"{group.missing} never came: it was taken for what it is by itself"
        )
    late: list[str] = []
    for path in own:
        absent = _look(path, _lacks)
        if absent is None:
            continue
        named = f"{path}: " if len(own) > 1 else ""
        if _look(path, _lacks_late) is not None:
            raise _incomplete(f"{named}missing {absent}", None)
        late.append(f"{named}by its structure it misses {absent}; its pixels are all there")
    return promised, late


def _is_only_named_so(group: Group) -> bool:
    """Whether nothing but its name makes a file a part of a set, and it is an image by itself.

    A photograph may be called like a macro, and CellSens exports images without a folder. An .mrxs
    alone is only the preview of a slide.
    """
    part = group.kind == "hamamatsu-vms" and group.headless
    return (part or group.kind == "olympus-vsi") and bool(_look(group.head, formats.matching))


def _kind_of(group: Group | None) -> str | None:
    return formats.by_id(group.kind).name if group is not None and group.kind else None


def _lacks(probe: Probe) -> str | None:
    return completeness.missing(probe.descriptor, probe.size_bytes)


def _lacks_late(probe: Probe) -> str | None:
    return completeness.missing(probe.descriptor, probe.size_bytes, late=True)


def _incomplete(what: str, group: Group | None) -> FormatError:
    kind = _kind_of(group)
    said = f"it looks like a part of a slide of {kind}, and is" if kind else "it is"
    whole = lacking.layout(group.parts) if group is not None and group.parts else ""
    return FormatError("incomplete", f"{said} not whole: {what}{whole}", retryable=True)


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
    if found.id == "olympus-vsi" and importlib.util.find_spec("slideio") is None:
        raise FormatError(
            "reader_missing", "slideio, which reads CellSens VSI, is not to be had on this machine"
        )
    if found.id == "ome-tiff" and probe.tiff is not None:
        others = other_files(probe.tiff.directories[0].text(270))
        if others:
            raise FormatError(
                "unsupported_format",
                f"an OME-TIFF that is spread over several files is not supported: {others[0]!r} "
                "belongs to it",
            )


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


def _opened(path: str, shown: int, allowed: Limits) -> tuple[str | None, str | None]:
    """(vendor, None) if OpenSlide reads a pixel of every level now, else (None, why not).

    Raises
    ------
    FormatError
        `too_many_pixels` or `side_too_long`: nothing of it was read.
    """
    try:
        with openslide.OpenSlide(path) as slide:
            width, height = slide.dimensions
            if refusal := limits.of_image(width, height, allowed):
                raise FormatError(*refusal)
            if slide.level_count < shown:
                return None, f"it shows {slide.level_count} of {shown} levels"
            for level, (width, height) in enumerate(slide.level_dimensions):
                scale = slide.level_downsamples[level]
                middle = (int(width * scale / 2), int(height * scale / 2))
                slide.read_region(middle, level, (1, 1))
            return slide.properties.get(openslide.PROPERTY_NAME_VENDOR), None
    except openslide.OpenSlideError as error:
        return None, str(error)[:300] or type(error).__name__


def _judged(
    found: Format, refusal: str | None, misread: str | None, unheeded: str | None
) -> list[str]:
    """What is to be said of a vendor's slide, which nothing but OpenSlide reads.

    Raises
    ------
    FormatError
        `unreadable`, or `unsupported_format`: its samples would be shown as something else.
    """
    if refusal is not None:
        raise FormatError("unreadable", f"{found.name}, but OpenSlide says: {refusal}")
    if misread is not None:
        raise FormatError(
            "unsupported_format", f"{found.name} with {misread}: OpenSlide shows 8 bits alone"
        )
    return [f"it has {unheeded}: OpenSlide pays no heed to that"] if unheeded else []


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
        raise _incomplete(f"{absent.partition(';')[0]} ({error})", None) from error


def _derived_instead(
    found: Format, path: str, refusal: str | None, ascending: str | None
) -> str | None:
    """Why a pyramid is derived of a vendor's slide that something else reads too; None if it is not."""
    if found.id == "aperio-svs" and refusal is not None:
        return ascending
    if found.id == "dicom" and refusal is None:
        parts = dicom.parts(path)
        return dicom.contradiction(parts) if dicom.is_placed(parts) else None
    return None


def _judged_dicom(found: Format, path: str, refusal: str | None) -> list[str]:
    """What is to be said of a slide in DICOM that is deployed as it is.

    Raises
    ------
    FormatError
        `unreadable`, in the words of a person where they are known.
    """
    parts = dicom.parts(path)
    if refusal is not None and (pair := dicom.twice(parts)) is not None:
        one, other = (os.path.basename(part.path) for part in pair)
        wide, tall = pair[0].size
        raise FormatError(
            "unreadable",
            f"two of its files hold the same level of {wide} x {tall} pixels, {one} and {other}: send it "
            f"once more with one of them. OpenSlide says: {refusal}",
        )
    warnings = _judged(found, refusal, None, None)
    if said := dicom.contradiction(parts):
        warnings.append(f"its colours may be shown wrongly: {said}")
    return warnings


def _is_small(path: str) -> bool:
    """Whether it may stay as it is: small, and read by libvips without a word."""
    import pyvips

    try:
        image = pyvips.Image.new_from_file(path, fail_on="warning")
        if max(image.width, image.height) > _SMALL_PX:
            return False
        # What is odd about it a conversion has a second reader for, and the words.
        image.avg()
    except pyvips.Error:
        return False
    return True
