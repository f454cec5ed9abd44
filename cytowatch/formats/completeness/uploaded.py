"""Whether all of an uploaded file came: the files of its set, and the bytes of each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from cytowatch import formats
from cytowatch.formats import Probe
from cytowatch.formats.completeness import arrival
from cytowatch.formats.completeness import whole as completeness
from cytowatch.formats.completeness.arrival import Watch
from cytowatch.formats.completeness.judging import Doubt
from cytowatch.formats.sets import groups
from cytowatch.formats.sets.group import CELLSENS_FOLDER, stem_of
from cytowatch.formats.sets.groups import Group
from cytowatch.model import UploadedFile
from cytowatch.record import lacking
from cytowatch.record.errors import FormatError

__all__ = [
    "arrived",
    "beside",
    "check_whole",
    "incomplete",
    "lacks",
    "lacks_late",
    "look_into",
    "probed",
    "watches_of",
]

_INDEXES = (".vms", ".vmu")

T = TypeVar("T")


@contextmanager
def probed(path: str, beside: frozenset[str] = frozenset()) -> Iterator[Probe]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Probe(descriptor, name=os.path.basename(path), beside=beside, path=path)
    finally:
        os.close(descriptor)


def look_into(path: str, function: Callable[[Probe], T]) -> T:
    with probed(f"source/{path}") as probe:
        return function(probe)


def _own(file: UploadedFile) -> dict[str, int]:
    """The size of every source file, by its path below ``source/``."""
    return {
        row["path"].removeprefix("source/"): row["size_bytes"]
        for row in file.manifest["files"]
        if row["role"] == "source"
    }


def beside(file: UploadedFile) -> frozenset[str]:
    return frozenset(_own(file))


def watches_of(file: UploadedFile, *, native: bool) -> dict[str, Watch]:
    """A watch over each of its files, by its path."""
    paths = [row["path"] for row in file.manifest["files"]]
    each = arrival.of_level if native else arrival.watch
    watches = {path: each(path) for path in paths}
    if native and len(paths) == 1:
        watches[paths[0]] = arrival.of_native(paths[0])
    return watches | arrival.of_sets(paths)


def arrived(
    file: UploadedFile,
    watches: Mapping[str, Watch],
    first_gap: Callable[[str, Iterable[Doubt]], str | None],
) -> list[str]:
    """What there is to say about pictures beside the slide, after every file was looked through.

    `first_gap` asks a decoder which zeros of a file are not flat pixels.

    Raises
    ------
    FormatError
        `incomplete` or `damaged`: OpenSlide, or a decoder, would show something else without a word.
    """
    said: list[str] = []
    for path, watch in watches.items():
        found = watch.verdict()
        named = f"{path.removeprefix('source/')}: " if len(watches) > 1 else ""
        lacks = found.lacks
        if lacks is None and found.doubts:
            lacks = first_gap(path, found.doubts)
        if lacks is not None:
            raise incomplete(f"{named}missing {lacks}", None)
        if found.damaged is not None:
            raise FormatError("damaged", f"{named}it is damaged in {found.damaged}")
        said += [f"its {one} is blank: somebody has taken it out" for one in found.blank]
    return said


def check_whole(file: UploadedFile) -> tuple[list[str], list[str]]:
    """As `_checked`, in the names that its files were dropped under.

    Raises
    ------
    FormatError
        As `_checked` says.
    """
    try:
        return _checked(file)
    except FormatError as error:
        said = _as_dropped(file, error.detail)
        raise FormatError(error.reason, said, retryable=error.retryable) from error


def _as_dropped(file: UploadedFile, said: str) -> str:
    """`said` of files that were renamed, with the stem that they were dropped under."""
    name = file.manifest["name"]
    first = file.manifest["files"][0]["path"].removeprefix("source/")
    stems = [
        found["stem"] if (found := CELLSENS_FOLDER.fullmatch(stem)) else stem
        for stem in ((first.split("/")[0], name) if "/" in first else map(stem_of, (first, name)))
    ]
    # A stem may be a word of the sentence as well.
    here = re.compile(rf"(?<![A-Za-z0-9.-]){re.escape(stems[0])}(?=[./(_]| beside)")
    return here.sub(lambda _: stems[1], said)


def _checked(file: UploadedFile) -> tuple[list[str], list[str]]:
    """Every file of a set is there, and each is whole by its own structure; returns what there is to say about that.

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
            stray = groups.unsafe(look_into(path, groups.referred))
            if stray is not None:
                raise FormatError(
                    "unsafe_reference", f"{path} names {stray!r}, which is not in its own folder"
                )
    promised = _strays(file)
    for group in groups.groups(own, look_into):
        if group.mixed is not None:
            raise FormatError(
                "mixed_slides",
                f"it holds files of two slides: {group.mixed} bears another SLIDE_ID than Slidedat.ini",
            )
        if group.missing is None:
            continue
        if group.is_spare:
            promised.append(
                f"{group.missing} is missing. The slide has all its pixels; a label, a macro or notes of the "
                "scanner may be cut"
            )
            continue
        if len(own) > 1 or not _is_only_named_so(group):
            said = "".join(f"; {one}" for one in file.manifest["warnings"])
            raise incomplete(f"missing {group.missing}{said}", group)
        promised.append(
            f"its name looks like a part of a slide of {_kind_of(group)}, of which "
            f"{group.missing} never came: it was taken for what it is by itself"
        )
    late: list[str] = []
    for path in own:
        absent = look_into(path, lacks)
        if absent is None:
            continue
        named = f"{path}: " if len(own) > 1 else ""
        if look_into(path, lacks_late) is not None:
            raise incomplete(f"{named}missing {absent}", None)
        late.append(f"{named}by its structure it misses {absent}; its pixels are all there")
    return promised, late


def _strays(file: UploadedFile) -> list[str]:
    """What there is to say about files in the folder of a slide that its index does not name."""
    inside = [
        row["path"].removeprefix("source/").partition("/")[2]
        for row in file.manifest["files"]
        if row["role"] == "sidecar" and row["path"].count("/") > 1
    ]
    return [lacking.unnamed(inside)] if inside else []


def _is_only_named_so(group: Group) -> bool:
    """Whether only the name of a file makes it a part of a set, and it is an image by itself.

    A photograph may be called like a macro, and CellSens exports images without a folder. An .mrxs
    by itself is only the preview of a slide.
    """
    part = group.kind == "hamamatsu-vms" and group.headless
    return (part or group.kind == "olympus-vsi") and bool(look_into(group.head, formats.matching))


def _kind_of(group: Group | None) -> str | None:
    return formats.by_id(group.kind).name if group is not None and group.kind else None


def lacks(probe: Probe) -> str | None:
    return completeness.missing(probe.descriptor, probe.size_bytes)


def lacks_late(probe: Probe) -> str | None:
    return completeness.missing(probe.descriptor, probe.size_bytes, late=True)


def incomplete(what: str, group: Group | None) -> FormatError:
    kind = _kind_of(group)
    said = f"it looks like a part of a slide of {kind}, and is" if kind else "it is"
    whole = lacking.layout(group.parts) if group is not None and group.parts else ""
    return FormatError("incomplete", f"{said} not whole: {what}{whole}", retryable=True)
