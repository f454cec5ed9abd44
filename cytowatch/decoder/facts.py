"""The claims of a stage about an uploaded file, compared with what the daemon knows.

`answers` has decoded the answer; `made` checks the output on disk. The shape of the claims is checked here
before anything else, by the schema of the manifest that they would make. After that each value has its type.
"""

from __future__ import annotations

from collections.abc import Iterable

from cytowatch import formats
from cytowatch.decoder.answers import refused
from cytowatch.model import Outcome
from cytowatch.record import manifest, schema
from cytowatch.record.entries import FileEntry, FormatEntry, Manifest
from cytowatch.record.status import Status

__all__ = ["check"]

_MADE = {"pyramid", "thumbnail", "label", "macro"}
_GIVEN = {"source", "sidecar"}
#: Rows with these roles describe the file that was received.
_OF_THE_DROP = ("size_bytes", *sorted(FileEntry.__optional_keys__))
_MOST_WARNINGS = 1000
#: ext4 holds no larger file.
_LARGEST_FILE_BYTES = 1 << 44


def check(status: Status, known: Manifest, outcome: Outcome, *, most_children: int) -> None:
    """Compare the claims of the stage of `status` with what is known about the uploaded file.

    Raises
    ------
    IngestError
        `output_refused`: a claim has the wrong shape, or cannot be true.
    """
    changes = outcome.changes
    said = manifest.evolve(known, **changes)
    if wrong := schema.problem(said):
        raise refused(status, wrong)
    if len(changes.get("warnings", ())) > _MOST_WARNINGS:
        raise refused(status, f"more than {_MOST_WARNINGS:,} warnings")
    paths = _check_files(status, known["files"], said["files"])
    if any(image["file"] not in paths for image in said["images"]):
        raise refused(status, "an image is in a file that is not listed")
    _check_hash(status, changes.get("sha256"), said["files"])
    match status:
        case Status.DETECTING_FORMAT:
            _check_format(outcome)
        case Status.EXTRACTING_DATA:
            if not 0 < len(changes.get("children", ())) <= most_children:
                raise refused(status, f"it has {len(said['children']):,} members")
        case Status.CONVERTING:
            if not changes.get("images") or changes.get("conversion") is None:
                raise refused(status, "it names no pyramid")
        case _:
            derived = known["conversion"] is not None
            if outcome.status is not (Status.CONVERTED if derived else Status.DEPLOYED):
                raise refused(status, f"{outcome.status.name} is not how this one ends")
            if not changes.get("images") or changes.get("verification") is None:
                raise refused(status, "it says nothing of what it has verified")


def _check_files(status: Status, known: Iterable[FileEntry], said: Iterable[FileEntry]) -> set[str]:
    """Check that every given file is still there and every new one was made; return all paths."""
    given = {row["path"]: row for row in known}
    seen: set[str] = set()
    for row in said:
        path = row["path"]
        if path in seen:
            raise refused(status, f"{path!r} is listed twice")
        seen.add(path)
        before = given.get(path)
        if before is None:
            _check_made(status, row)
        elif before["role"] in _GIVEN:
            kept = before["sha256"] in (None, row["sha256"])
            same = all(row.get(key) == before.get(key) for key in _OF_THE_DROP)
            if row["role"] not in _GIVEN or not same:
                raise refused(status, f"{path!r} is not the file that was received")
            if not kept:
                raise refused(status, f"{path!r} has another hash than before")
        else:
            _check_made(status, row)
    if missing := [path for path in given if path not in seen]:
        raise refused(status, f"it does not list {missing[0]!r} any more")
    return seen


def _check_made(status: Status, row: FileEntry) -> None:
    path = row["path"]
    parts = path.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    if parts[0] != "derived" or not 2 <= len(parts) <= 3 or not plain:
        raise refused(status, f"{path!r} is not where a stage may write")
    made = row["role"] in _MADE and row["status"] == Status.DEPLOYED.name
    if status not in (Status.CONVERTING, Status.DEPLOYING) or not made:
        raise refused(status, f"{path!r} is not what this stage makes")
    if row["size_bytes"] > _LARGEST_FILE_BYTES:
        raise refused(status, f"{path!r} cannot have that size")


def _check_hash(status: Status, stated: str | None, files: Iterable[FileEntry]) -> None:
    """Check that the hash of the whole is that of its source, if it has only one."""
    sources = [row["sha256"] for row in files if row["role"] == "source"]
    if stated is not None and sources != [stated]:
        raise refused(status, "its hash is not that of its source")


def _check_format(outcome: Outcome) -> None:
    status = Status.DETECTING_FORMAT
    found: FormatEntry | None = outcome.changes.get("format")
    try:
        form = formats.by_id("" if found is None else found["id"])
    except KeyError:
        raise refused(status, "it names no format that is known") from None
    if (outcome.status is Status.EXTRACTING_DATA) != form.extract:
        raise refused(status, f"{outcome.status.name} does not follow from {form.name}")
