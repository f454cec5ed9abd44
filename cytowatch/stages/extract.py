"""EXTRACTING DATA: each image and each set in an archive becomes an uploaded file of its own.

They are made complete, each with its manifest, below ``out.<attempt>/children``; the engine
hands them out, each once.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cytowatch import archives, durable, formats
from cytowatch.archives import Budget, Unpacked
from cytowatch.formats import Probe
from cytowatch.formats import zip as zip_
from cytowatch.formats.sets import groups
from cytowatch.formats.sets.groups import Group
from cytowatch.model import Outcome, UploadedFile
from cytowatch.record import lacking, manifest, names
from cytowatch.record.entries import SkippedEntry
from cytowatch.record.errors import ExtractionError
from cytowatch.record.skipped import capped, is_loss
from cytowatch.record.status import Status

__all__ = ["extract"]

T = TypeVar("T")
#: What was packed badly, and may be well if it is packed again.
_BROKEN = frozenset({"damaged", "unsupported_packing"})


def extract(file: UploadedFile) -> Outcome:
    """Unpack every image of `file`.

    Raises
    ------
    ExtractionError
        It is hostile, damaged as a whole, or holds nothing that can be taken.
    """
    form = file.manifest["format"]
    folder = f"{file.out}/unpacked"
    unpacked, passed = archives.unpack(
        file.source,
        form["id"] if form else zip_.FORMAT.id,
        folder,
        budget=Budget(limits=file.config.limits, archive_bytes=file.manifest["size_bytes"]),
        wanted=lambda path: not _is_ignored(path, file),
        room=file.check_room,
        progress=file.progress,
        encoding=file.config.extract.names,
    )
    skipped = [_skipped(path, why) for path, why in passed]
    children: list[str] = []
    found = {one.path: one for one in unpacked}
    for group in _groups(found):
        reason = _refusal(group, found, file)
        if reason is None:
            children.append(_child(file, group, found))
        else:
            skipped += [_skipped(path, reason) for path in (*group.members, *group.sidecars)]
    # What is left in the folder goes with out.<attempt>: a decoder process may remove nothing.
    if not children:
        raise _nothing(found, skipped, file)
    return Outcome(
        status=Status.EXTRACTED,
        changes={
            "children": children,
            "skipped": capped(skipped),
            "warnings": [*file.manifest["warnings"], *_warnings(skipped)],
        },
    )


def _nothing(
    found: dict[str, Unpacked], skipped: list[SkippedEntry], file: UploadedFile
) -> ExtractionError:
    """Why nothing of it is taken: what may have been a slide counts for more than what was none."""
    named = sorted(skipped, key=lambda one: not is_loss(one))[:5]
    told = "; ".join(f"{one['name']}: {_said(one)}" for one in named)
    words = {one["reason"].partition(":")[0] for one in skipped}
    if (zarr := formats.in_zarr(one["name"] for one in skipped)) is not None:
        return ExtractionError("unsupported_format", lacking.kind(*zarr))
    if words & _BROKEN:
        return ExtractionError("damaged_archive", f"no slide in it could be unpacked ({told})")
    if "nested_too_deep" in words:
        return ExtractionError("nested_too_deep", f"it holds archives in archives only ({told})")
    if "unsupported_format" in words:
        return ExtractionError("unsupported_format", f"it holds no supported image ({told})")
    stem = os.path.splitext(file.manifest["name"])[0]
    parts = groups.parts_around(found, stem)
    whole = lacking.layout(parts) if parts else ""
    return ExtractionError("no_image", f"it holds no image ({told or 'it is empty'}){whole}")


def _said(skipped: SkippedEntry) -> str:
    return skipped["reason"].partition(": ")[2] or skipped["reason"]


def _warnings(skipped: list[SkippedEntry]) -> list[str]:
    """One that says what was lost, if anything was."""
    lost = [one for one in skipped if is_loss(one)]
    broken = [one for one in lost if one["reason"].partition(":")[0] in _BROKEN]
    return [
        *_warning(
            [one["name"] for one in broken],
            "could not be unpacked",
            ". Pack them again with an ordinary program and drop that; the reasons are listed under what was skipped",
        ),
        *_warning(
            [one["name"] for one in lost if one not in broken],
            "could not be taken",
            "; the reasons are listed under what was skipped",
        ),
    ]


def _warning(lost: list[str], what: str, then: str) -> list[str]:
    if not lost:
        return []
    members, some = ("1 member", lost) if len(lost) == 1 else (f"{len(lost):,} members", lost[:5])
    more = " and others" if len(lost) > len(some) else ""
    return [f"{members} of the archive {what}: {', '.join(some)}{more}{then}"]


def _is_ignored(path: str, file: UploadedFile) -> bool:
    parts = path.split("/")
    return "__MACOSX" in parts or any(
        names.ignored(part, file.config.inbox.ignore) for part in parts if part
    )


def _skipped(path: str, reason: str) -> SkippedEntry:
    return SkippedEntry(name=names.printable(_text(path)), reason=reason)


def _text(path: str) -> str:
    """`path` as text, with a mark for each byte that could not be decoded."""
    return names.decode(os.fsencode(path))[0]


def _groups(found: dict[str, Unpacked]) -> list[Group]:
    """What belongs together."""

    def look(path: str, function: Callable[[Probe], T]) -> T:
        return _probed(found[path], function)

    return groups.groups({path: one.size_bytes for path, one in found.items()}, look)


def _probed(
    one: Unpacked, function: Callable[[Probe], T], beside: frozenset[str] = frozenset()
) -> T:
    descriptor = os.open(one.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        name = one.path.rpartition("/")[2]
        return function(Probe(descriptor, name=name, beside=beside, path=one.file))
    finally:
        os.close(descriptor)


def _refusal(group: Group, found: dict[str, Unpacked], file: UploadedFile) -> str | None:
    """Why a group becomes no uploaded file; None if it does."""
    if group.kind is not None and not (
        group.headless and group.folder is None and len(group.members) == 1
    ):
        return None

    def judged(probe: Probe) -> str | None:
        match formats.matching(probe):
            case []:
                stranger = formats.known(probe.head)
                if stranger and formats.is_foreign(probe.head):
                    return f"unsupported_format: {stranger[0]}; {stranger[1]}"
                return f"not_an_image: {formats.looks_like(probe)}"
            case [(form, _)] if form.extract and file.manifest["parent_id"] is not None:
                return "nested_too_deep: an archive in an archive in an archive"
            case _:
                return None

    return _probed(found[group.head], judged)


def _child(file: UploadedFile, group: Group, found: dict[str, Unpacked]) -> str:
    """Make the uploaded file of `group`, below ``out.<attempt>/children``; gives its id."""
    now = datetime.now(UTC)
    called = group.called
    raw = found[group.head].raw
    name = _text(called.rpartition("/")[2])
    child, place = _free_place(f"{file.out}/children", now, name)
    rows = []
    for path, inside in groups.placed(group, name).items():
        target = f"{place}/source/{inside}"
        os.makedirs(os.path.dirname(target), mode=0o750, exist_ok=True)
        durable.rename(found[path].file, target)
        rows.append(
            manifest.received(
                role="sidecar" if path in group.sidecars else "source",
                path=f"source/{inside}",
                size_bytes=found[path].size_bytes,
                dropped_as=group.dropped_as(path),
            )
        )
    made = manifest.new(
        id=child,
        user=file.manifest["user"],
        name=name,
        name_base64=names.kept(name, raw) if called == group.head else None,
        drop_path=f"{file.manifest['drop_path']}/{_text(called)}",
        projects=file.manifest["projects"],
        files=rows,
        now=now,
        software=file.manifest["software"],
        parent=file.manifest,
    )
    # The engine makes the whole of out.<attempt> durable at once; thousands of fsyncs here would not.
    manifest.write_first(Path(place), made)
    return child


def _free_place(children: str, now: datetime, name: str) -> tuple[str, str]:
    """An id that no other member has, and the directory of that id, which is made.

    Thousands of members of one name in one second share the few letters that tell them apart.
    """
    while True:
        child = names.new_id(now, name, random.SystemRandom())
        try:
            os.makedirs(f"{children}/{child}", mode=0o750)
        except FileExistsError:
            continue
        return child, f"{children}/{child}"
