"""The claims of a stage about an uploaded file, compared with what the daemon knows.

`answers` has decoded the answer; `made` checks the output on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cytowatch import formats
from cytowatch.decoder.answers import refused
from cytowatch.model import Outcome
from cytowatch.record.entries import FileEntry, Manifest
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

    The schema gives the shape of each entry; it is checked with the whole manifest.

    Raises
    ------
    IngestError
        `output_refused`: a claim cannot be true.
    """
    changes = outcome.changes
    if not all(isinstance(one, str) for one in _listed(status, changes, "warnings")):
        raise refused(status, "a warning is not a text")
    if len(changes.get("warnings", ())) > _MOST_WARNINGS:
        raise refused(status, f"more than {_MOST_WARNINGS:,} warnings")
    files = _listed(status, changes, "files") if "files" in changes else known["files"]
    paths = _check_files(status, known["files"], files)
    for image in _listed(status, changes, "images"):
        if not isinstance(image, dict) or image.get("file") not in paths:
            raise refused(status, "an image is in a file that is not listed")
    _check_hash(status, changes, files)
    match status:
        case Status.DETECTING_FORMAT:
            _check_format(outcome)
        case Status.EXTRACTING_DATA:
            _check_children(_listed(status, changes, "children"), most_children)
        case Status.CONVERTING:
            if not changes.get("images") or not isinstance(changes.get("conversion"), dict):
                raise refused(status, "it names no pyramid")
        case _:
            derived = known["conversion"] is not None
            if outcome.status is not (Status.CONVERTED if derived else Status.DEPLOYED):
                raise refused(status, f"{outcome.status.name} is not how this one ends")
            if not changes.get("images") or not isinstance(changes.get("verification"), dict):
                raise refused(status, "it says nothing of what it has verified")


def _check_children(children: list[Any], most: int) -> None:
    status = Status.EXTRACTING_DATA
    if not 0 < len(children) <= most:
        raise refused(status, f"it has {len(children):,} members")
    if not all(isinstance(one, str) for one in children):
        raise refused(status, "the id of a member is not a text")
    if len(set(children)) != len(children):
        raise refused(status, "a member is listed twice")


def _listed(status: Status, changes: Mapping[str, Any], key: str) -> list[Any]:
    found = changes.get(key, [])
    if not isinstance(found, list):
        raise refused(status, f"{key} is not a list")
    return found


def _check_files(status: Status, known: Iterable[FileEntry], said: list[Any]) -> set[str]:
    """Check that every given file is still there and every new one was made; return all paths."""
    given = {row["path"]: row for row in known}
    seen: set[str] = set()
    for row in said:
        path = row.get("path") if isinstance(row, dict) else None
        if not isinstance(path, str) or path in seen:
            raise refused(status, "a file has no path, or is listed twice")
        seen.add(path)
        before = given.get(path)
        if before is None:
            _check_made(status, path, row)
        elif before["role"] in _GIVEN:
            kept = before["sha256"] in (None, row.get("sha256"))
            same = all(row.get(key) == before.get(key) for key in _OF_THE_DROP)
            if row.get("role") not in _GIVEN or not same:
                raise refused(status, f"{path!r} is not the file that was received")
            if not kept:
                raise refused(status, f"{path!r} has another hash than before")
        else:
            _check_made(status, path, row)
    if missing := [path for path in given if path not in seen]:
        raise refused(status, f"it does not list {missing[0]!r} any more")
    return seen


def _check_made(status: Status, path: str, row: dict[str, Any]) -> None:
    parts = path.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    if parts[0] != "derived" or not 2 <= len(parts) <= 3 or not plain:
        raise refused(status, f"{path!r} is not where a stage may write")
    made = row.get("role") in _MADE and row.get("status") == Status.DEPLOYED.name
    if status not in (Status.CONVERTING, Status.DEPLOYING) or not made:
        raise refused(status, f"{path!r} is not what this stage makes")
    size_bytes = row.get("size_bytes")
    if not isinstance(size_bytes, int) or not 0 <= size_bytes <= _LARGEST_FILE_BYTES:
        raise refused(status, f"{path!r} cannot have that size")


def _check_hash(status: Status, changes: Mapping[str, Any], files: list[Any]) -> None:
    """Check that the hash of the whole is that of its source, if it has only one."""
    stated = changes.get("sha256")
    sources = [row.get("sha256") for row in files if row.get("role") == "source"]
    if stated is not None and sources != [stated]:
        raise refused(status, "its hash is not that of its source")


def _check_format(outcome: Outcome) -> None:
    status = Status.DETECTING_FORMAT
    found = outcome.changes.get("format")
    try:
        form = formats.by_id(found["id"] if isinstance(found, dict) else "")
    except KeyError:
        raise refused(status, "it names no format that is known") from None
    if (outcome.status is Status.EXTRACTING_DATA) != form.extract:
        raise refused(status, f"{outcome.status.name} does not follow from {form.name}")
