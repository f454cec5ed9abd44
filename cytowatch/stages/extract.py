"""EXTRACTING_DATA: each image in an archive becomes an uploaded file of its own.

They are made complete, each with its manifest, below ``out.<attempt>/children``; the engine
hands them out, each once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from datetime import UTC, datetime

from cytowatch import archives, formats, manifest, names
from cytowatch.archives import DamagedMember, Member
from cytowatch.errors import ExtractionError
from cytowatch.formats import Probe
from cytowatch.manifest import FileEntry, SkippedEntry
from cytowatch.model import Outcome, UploadedFile
from cytowatch.status import Status

__all__ = ["extract"]

#: So many members that became nothing are named; the rest is counted.
_MOST_SKIPPED = 100


def extract(file: UploadedFile) -> Outcome:
    """Unpack every image of `file`.

    Raises
    ------
    ExtractionError
        It is hostile, damaged as a whole, or holds no image (`no_image`).
    """
    archive_bytes = file.manifest["size_bytes"]
    children: list[str] = []
    skipped: list[SkippedEntry] = []
    with open(file.source, "rb") as stream, archives.opened(stream) as archive:
        found = archives.members(archive, file.config.limits, archive_bytes=archive_bytes)
        total = max(1, sum(member.size_bytes for member in found))
        done_bytes = 0
        for member in found:
            if _is_ignored(member, file):
                skipped.append(SkippedEntry(name=member.path, reason="ignored"))
                continue
            child, reason, size_bytes = _one(file, archive, member, done_bytes, total)
            done_bytes += size_bytes
            if child is not None:
                children.append(child)
            else:
                skipped.append(SkippedEntry(name=names.printable(member.path), reason=reason))
    if not children:
        told = "; ".join(f"{one['name']}: {one['reason']}" for one in skipped[:5])
        raise ExtractionError("no_image", f"it holds no image ({told or 'it is empty'})")
    return Outcome(
        status=Status.EXTRACTED, changes={"children": children, "skipped": _capped(skipped)}
    )


def _is_ignored(member: Member, file: UploadedFile) -> bool:
    parts = member.path.split("/")
    return "__MACOSX" in parts or any(
        names.ignored(part, file.config.inbox.ignore) for part in parts if part
    )


def _one(
    file: UploadedFile, archive: zipfile.ZipFile, member: Member, done_bytes: int, total: int
) -> tuple[str | None, str, int]:
    """Unpack `member`: (its id, "", bytes), or (None, why not, bytes)."""
    now = datetime.now(UTC)
    child = names.new_id(now, member.name, random.SystemRandom())
    place = f"{file.out}/children/{child}"
    inside = f"source/{names.slug(member.name)}"
    os.makedirs(f"{place}/source", mode=0o750)
    written = 0
    try:
        with open(f"{place}/{inside}", "xb") as target:
            written = archives.unpack(
                archive,
                member,
                target,
                limits=file.config.limits,
                archive_bytes=file.manifest["size_bytes"],
                done_bytes=done_bytes,
                progress=lambda done: file.progress(done / total),
            )
        reason = _refusal(f"{place}/{inside}", file)
    except DamagedMember as error:
        reason = str(error)
    if reason is not None:
        shutil.rmtree(place)
        return None, reason, written
    source = FileEntry(
        role="source", path=inside, size_bytes=written, sha256=None, status=Status.UPLOADED.name
    )
    made = manifest.new(
        id=child,
        user=file.manifest["user"],
        name=member.name,
        drop_path=f"{file.manifest['drop_path']}/{member.path}",
        projects=file.manifest["projects"],
        files=[source],
        now=now,
        software=file.manifest["software"],
        parent=file.manifest,
    )
    # The engine makes the whole of out.<attempt> durable at once; thousands of fsyncs here would not.
    with open(f"{place}/{manifest.FILE_NAME}", "x", encoding="utf-8") as written_to:
        json.dump(made, written_to, indent=1)
    return child, "", written


def _refusal(path: str, file: UploadedFile) -> str | None:
    """Why what was unpacked to `path` becomes no uploaded file; None if it does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        probe = Probe(descriptor)
        match formats.matching(probe):
            case []:
                return f"not_an_image: {formats.looks_like(probe)}"
            case [(found, _)] if found.extract and file.manifest["parent_id"] is not None:
                return "nested_too_deep: an archive in an archive in an archive"
            case _:
                return None
    finally:
        os.close(descriptor)


def _capped(skipped: list[SkippedEntry]) -> list[SkippedEntry]:
    if len(skipped) <= _MOST_SKIPPED:
        return skipped
    rest = len(skipped) - _MOST_SKIPPED
    more = SkippedEntry(name="", reason="and more, not named here", count=rest)
    return [*skipped[:_MOST_SKIPPED], more]
