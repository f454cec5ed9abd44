"""The output of a decoder process: opened by descriptors, compared with what its outcome names; the rest is removed.

No link is followed, and no pipe is opened: each named file must be a regular file with one name and
the stated size. A file that the outcome does not name is not published.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import structlog

from cytowatch import durable, outside
from cytowatch.config.keys import Storage
from cytowatch.decoder.answers import refused
from cytowatch.formats.completeness import gaps
from cytowatch.model import SCRATCH
from cytowatch.record import manifest, names, schema
from cytowatch.record.entries import FileEntry, Manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status

__all__ = ["check_child", "check_derived"]

#: A decoder leaves a temporary file now and then, but none leaves more than this by mistake.
_MOST_UNNAMED = 100
#: The most folders below the top, in derived output and in a member of an archive.
_DEEPEST_DERIVED = 1
_DEEPEST_MEMBER = 66
_AS_DROPPED = FileEntry.__optional_keys__
_LONGEST_NAME = 1000
_LONGEST_PATH = 8192
#: The keys that the manifest of a member may state by itself; all others follow from its archive.
_OF_THE_MEMBER = frozenset(
    {"name", "name_base64", "drop_path", "received_at", "files", "warnings", "history"}
)


def check_derived(
    status: Status,
    top: Path,
    files: list[FileEntry],
    settings: Storage,
    *,
    discard: Callable[[Path], None],
) -> None:
    """Compare the derived output in `top` with the rows of `files` below ``derived/``.

    Files that no row names are given to `discard` and logged; named files get the configured mode.

    Raises
    ------
    IngestError
        `output_refused`: a named file is missing, or is not a plain file of that size.
    """
    named = {
        row["path"].removeprefix("derived/"): row["size_bytes"]
        for row in files
        if row["path"].startswith("derived/")
    }
    with suppress(OSError):
        # Nearly always it is empty; if not, it is discarded with everything else that is not named.
        os.rmdir(top / SCRATCH)
    unnamed = _check_tree(status, top, named, settings, deepest=_DEEPEST_DERIVED)
    for path in unnamed:
        discard(top / path)
        if os.path.lexists(top / path):
            said = outside.text(path, most=200)
            raise refused(status, f"{said!r} is named nowhere, and cannot be removed")
    if unnamed := [path for path in unnamed if path != SCRATCH]:
        structlog.get_logger().warning(
            "output_unnamed",
            id=top.parent.name,
            files=[names.printable(path)[:200] for path in unnamed[:5]],
            count=len(unnamed),
        )


def check_child(
    status: Status,
    parent: Manifest,
    child: str,
    folder: Path,
    settings: Storage,
    *,
    most_files: int,
) -> None:
    """Check the member `child` of the archive `parent`, made in `folder`.

    Its manifest must be what the daemon itself would write: only its name, where it lay, when it was unpacked
    and its files are its own.

    Raises
    ------
    IngestError
        `output_refused`
    """
    if not names.ID_PATTERN.fullmatch(child):
        raise refused(status, f"{outside.text(child, most=100)!r} is not an id")
    most_bytes = outside.SMALL_BYTES + 512 * most_files
    try:
        with durable.directory(folder) as at:
            found = outside.read_json(manifest.FILE_NAME, most_bytes=most_bytes, at=at)
        size_bytes = os.lstat(folder / manifest.FILE_NAME).st_size
    except (OSError, outside.OutsideError) as error:
        if isinstance(error, OSError) and durable.is_transient(error):
            raise
        said = error.strerror if isinstance(error, OSError) else error
        raise refused(status, f"the member {child} has no manifest: {said}") from error
    wrong = _differs(parent, child, found)
    if wrong is None:
        wrong = schema.problem(cast("Manifest", found))
    if wrong is not None:
        raise refused(status, f"the member {child} has the manifest of another one: {wrong}")
    named = {row["path"]: row["size_bytes"] for row in found["files"]}
    named[manifest.FILE_NAME] = size_bytes
    if unnamed := _check_tree(status, folder, named, settings, deepest=_DEEPEST_MEMBER):
        said = outside.text(unnamed[0], most=200)
        raise refused(status, f"the member {child} holds {said!r}, which it does not name")


def _differs(parent: Manifest, child: str, found: dict[str, Any]) -> str | None:
    """The key in which the manifest of a member differs from what follows from its archive."""
    files = found.get("files")
    if not isinstance(files, list) or not files or not all(map(_is_given, files)):
        return "files"
    if len({row["path"] for row in files}) != len(files):
        return "files"
    if not any(row["role"] == "source" for row in files):
        return "files"
    received = _time(found.get("received_at"))
    if received is None:
        return "received_at"
    expected = manifest.new(
        id=UploadedFileId(child),
        user=parent["user"],
        name=found.get("name", ""),
        drop_path=found.get("drop_path", ""),
        projects=parent["projects"],
        files=files,
        now=received,
        software=parent["software"],
        name_base64=found.get("name_base64"),
        parent=parent,
    )
    if found.keys() != expected.keys():
        return ", ".join(
            sorted(outside.text(one, most=60) for one in found.keys() ^ expected.keys())
        )
    if not _is_text(found["name"], _LONGEST_NAME) or not found["name"]:
        return "name"
    if found["name_base64"] is not None and not _is_text(found["name_base64"], 2 * _LONGEST_NAME):
        return "name_base64"
    inside = f"{parent['drop_path']}/"
    if not _is_text(found["drop_path"], _LONGEST_PATH) or not found["drop_path"].startswith(inside):
        return "drop_path"
    warnings = found["warnings"]
    if not isinstance(warnings, list) or not all(_is_text(one, 4000) for one in warnings):
        return "warnings"
    exact = found.keys() - _OF_THE_MEMBER | {"history", "received_at"}
    return next((key for key in sorted(exact) if found[key] != cast("Any", expected)[key]), None)


def _time(said: object) -> datetime | None:
    """The moment that a text states in ISO 8601, in UTC; None if it is none."""
    try:
        found = datetime.fromisoformat(said) if isinstance(said, str) else None
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        # A last hour of the year 9999 has no name in UTC.
        return None


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most


def _is_given(row: object) -> bool:
    """Whether a row stands for a file that was unpacked, at a path of our own."""
    if not isinstance(row, dict) or set(row) - _AS_DROPPED != set(FileEntry.__required_keys__):
        return False
    if row.keys() & _AS_DROPPED and names.as_dropped(row) is None:
        return False
    path, size_bytes = row["path"], row["size_bytes"]
    if not _is_text(path, _LONGEST_PATH) or not path.startswith("source/"):
        return False
    parts = path.split("/")
    safe = all(
        part not in ("", ".", "..") and not part.startswith("-") and part.isprintable()
        for part in parts
    )
    plain = row["sha256"] is None and row["status"] == Status.UPLOADED.name
    whole = isinstance(size_bytes, int) and not isinstance(size_bytes, bool) and size_bytes >= 0
    return safe and plain and whole and row["role"] in ("source", "sidecar")


def _check_tree(
    status: Status, top: Path, named: Mapping[str, int], settings: Storage, *, deepest: int
) -> list[str]:
    """Check everything in `top`; return the paths that are there without being `named`."""
    folders = {""}
    for path in named:
        parts = path.split("/")[:-1]
        if len(parts) > deepest:
            raise refused(status, f"{outside.text(path, most=200)!r} lies too deep")
        folders |= {"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
    in_folder: dict[str, list[str]] = {folder: [] for folder in folders}
    for path in named:
        folder, _, name = path.rpartition("/")
        in_folder[folder].append(name)
    unnamed: list[str] = []
    for folder in sorted(folders):
        try:
            with durable.beneath(top, folder) as at:
                # Files that are made in it later inherit its group, as `storage.group` wants.
                mode = int(settings.dir_mode, 8) | os.fstat(at).st_mode & stat.S_ISGID
                os.fchmod(at, mode)
                for inside in _inside(at, folder):
                    if inside not in named and inside not in folders:
                        unnamed.append(inside)
                    if len(unnamed) > _MOST_UNNAMED:
                        said = f"there are more than {_MOST_UNNAMED} files that it does not name"
                        raise refused(status, said)
                for name in in_folder[folder]:
                    inside = f"{folder}/{name}" if folder else name
                    _check_file(status, at, name, inside, named[inside], settings)
        except OSError as error:
            if durable.is_transient(error):
                raise
            said = outside.text(folder or top.name, most=200)
            raise refused(status, f"{said!r} cannot be opened: {error.strerror}") from error
    return unnamed


def _inside(at: int, folder: str) -> Iterator[str]:
    with os.scandir(at) as entries:
        for entry in entries:
            yield f"{folder}/{entry.name}" if folder else entry.name


def _check_file(
    status: Status, at: int, name: str, inside: str, size_bytes: int, settings: Storage
) -> None:
    """Check that it is a regular file with one name and of that size; set its mode."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    said = outside.text(inside, most=200)
    try:
        descriptor = os.open(name, flags, dir_fd=at)
    except OSError as error:
        if durable.is_transient(error):
            raise
        raise refused(status, f"there is no file {said!r}: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise refused(status, f"{said!r} is not a regular file")
        if found.st_nlink != 1:
            raise refused(status, f"{said!r} has several names")
        if found.st_size != size_bytes:
            raise refused(status, f"{said!r} has {found.st_size:,} bytes, not {size_bytes:,}")
        # It would count as more than the disk has, and its reader would read zeros for hours. All that stages
        # make is written.
        if 512 * found.st_blocks < found.st_size and gaps.holes(descriptor, found.st_size):
            raise refused(status, f"{said!r} has parts that were never written")
        os.fchmod(descriptor, int(settings.file_mode, 8))
    finally:
        os.close(descriptor)
