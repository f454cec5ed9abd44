"""The manifest: journal of an uploaded file in ``stages/``, its sidecar in ``storage/``.

It is a JSON document and is kept as one: typed dictionaries, so that keys which a newer
version wrote survive a round trip. `schema` holds one against its JSON Schema.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from cytowatch import durable, outside
from cytowatch.durable.failpoints import reached
from cytowatch.outside import OutsideError
from cytowatch.record import names, shape
from cytowatch.record.entries import ErrorEntry, FileEntry, HistoryEntry, Manifest
from cytowatch.record.names import ID_PATTERN
from cytowatch.record.status import Status

__all__ = [
    "DAMAGED",
    "FILE_NAME",
    "SCHEMA_VERSION",
    "ManifestError",
    "at_status",
    "new",
    "read",
    "received",
    "status_of",
    "unreadable",
    "utc",
    "write",
    "write_first",
]

FILE_NAME = "manifest.json"
SCHEMA_VERSION = 1
#: The reason shown for a manifest that cannot be read.
DAMAGED = "manifest_damaged"

#: The manifest of an archive with 100,000 members has about 30 MB.
_MOST_BYTES = 256 << 20
#: How many values it may hold: each takes more memory than a byte or two of the file.
_MOST_VALUES = 4_000_000
_SMALL_BYTES = 1 << 20


class ManifestError(Exception):
    """A manifest that cannot be read: torn, not JSON, or not of our schema."""


def utc(when: datetime) -> str:
    """`when` in UTC, ISO 8601 with milliseconds and a Z.

    >>> utc(datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC))
    '2026-11-23T14:15:02.000Z'
    """
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def received(*, role: str, path: str, size_bytes: int, dropped_as: str | None = None) -> FileEntry:
    """The row of a file that was dropped and lies at `path` now.

    Parameters
    ----------
    dropped_as
        The path that a file of a set had, from the folder in which its head lay.
    """
    row = FileEntry(
        role=role, path=path, size_bytes=size_bytes, sha256=None, status=Status.UPLOADED.name
    )
    if dropped_as is None or path == f"source/{dropped_as}":
        return row
    return cast("FileEntry", {**row, **names.noted(dropped_as)})


def new(
    *,
    id: str,  # noqa: A002 - the contract's own name for it
    user: str,
    name: str,
    drop_path: str,
    files: list[FileEntry],
    now: datetime,
    software: dict[str, str],
    name_base64: str | None = None,
    projects: list[str] | None = None,
    parent: Manifest | None = None,
) -> Manifest:
    """The first manifest of an uploaded file, at UPLOADED."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        id=id,
        parent_id=parent["id"] if parent else None,
        root_id=parent["root_id"] if parent else id,
        children=[],
        user=user,
        projects=list(projects or []),
        name=name,
        name_base64=name_base64,
        drop_path=drop_path,
        size_bytes=sum(file["size_bytes"] for file in files),
        sha256=None,
        received_at=utc(now),
        status=Status.UPLOADED.name,
        status_code=Status.UPLOADED.code,
        phase=None,
        attempts=0,
        history=[
            HistoryEntry(
                status=Status.UPLOADED.name, at=utc(now), seconds=None, attempt=0, reason=None
            )
        ],
        format=None,
        error=None,
        images=[],
        files=files,
        skipped=[],
        conversion=None,
        verification=None,
        duplicate_of=None,
        warnings=[],
        software=software,
    )


def status_of(manifest: Manifest) -> Status:
    """The status that the manifest itself names."""
    return Status[manifest["status"]]


def at_status(
    manifest: Manifest,
    status: Status,
    *,
    now: datetime,
    attempts: int = 0,
    error: ErrorEntry | None = None,
) -> Manifest:
    """`manifest` as it reads after entering `status`: history, code and source rows follow."""
    history = [HistoryEntry(**entry) for entry in manifest["history"]]
    if history and history[-1]["seconds"] is None:
        began = datetime.fromisoformat(history[-1]["at"])
        # A clock that was set back must not give a negative duration.
        history[-1]["seconds"] = round(max(0.0, (now - began).total_seconds()), 3)
        history[-1]["attempt"] = manifest["attempts"]
    history.append(
        HistoryEntry(
            status=status.name,
            at=utc(now),
            seconds=0.0 if status.is_final else None,
            attempt=attempts,
            reason=error["reason"] if error else None,
        )
    )
    files = [
        FileEntry(**{**file, "status": status.name})
        if file["role"] in {"source", "sidecar"}
        else file
        for file in manifest["files"]
    ]
    return cast(
        "Manifest",
        {
            **manifest,
            "status": status.name,
            "status_code": status.code,
            "attempts": attempts,
            "history": history,
            "error": error,
            "files": files,
        },
    )


def evolve(manifest: Manifest, **changes: Any) -> Manifest:
    """`manifest` with `changes`, whose keys are its own; anything else in it stays.

    Raises
    ------
    KeyError
        A manifest has no such key.
    """
    if strange := changes.keys() - Manifest.__annotations__.keys():
        raise KeyError(f"a manifest has no {min(strange)}")
    return cast("Manifest", {**manifest, **changes})


@contextmanager
def held(directory: Path) -> Iterator[Manifest]:
    """The manifest in `directory`, while nobody else who holds it changes it.

    This is the one rule of who may write a manifest. While an uploaded file is in work it belongs to the
    thread that treats it, and nobody else writes. Once it is published, or has ended in an error, anyone may
    change it who holds it: a command, the daemon that hashes it, or gives up its source.

    Raises
    ------
    FileNotFoundError, ManifestError, OSError
        As `read`.
    """
    with durable.locked(directory):
        yield read(directory)


def read(directory: Path, *, strictly: bool = False) -> Manifest:
    """The manifest in `directory` (an ``<id>/``), with all that the code relies on in its place.

    Text that cannot be encoded has U+FFFD in the place of what is wrong with it.

    Parameters
    ----------
    strictly
        Such text is an error as well.

    Raises
    ------
    FileNotFoundError
        There is none.
    ManifestError
        It is not a regular file, too large, torn, not JSON, or does not have the shape of a manifest.
    OSError
        It cannot be read.
    """
    path = directory / FILE_NAME
    try:
        document = _parsed(outside.read_file(path, most_bytes=_MOST_BYTES), strictly=strictly)
        if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
            raise OutsideError(f"not a manifest of version {SCHEMA_VERSION}")
        shape.check(document)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: {error}") from error
    return cast("Manifest", document)


def _parsed(data: bytes, *, strictly: bool) -> Any:
    if len(data) > _SMALL_BYTES:
        values = sum(data.count(sign) for sign in (b",", b"[", b"{"))
        if values > _MOST_VALUES:
            raise OutsideError(f"it holds {values:,} values, at most {_MOST_VALUES:,} are read")
    # `shape.check` looks at its numbers and its depth: that is half the work of `outside.parse_json`.
    document = json.loads(data)
    if b"\\ud" in data or b"\\uD" in data:
        text = json.dumps(document, ensure_ascii=False)
        if strictly:
            text.encode()
        document = json.loads(
            text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        )
    return document


def unreadable(id: str, *, user: str, status: Status, why: str) -> Manifest:  # noqa: A002
    """A substitute for a manifest that cannot be read, for lists and the index, with what else is known.

    Parameters
    ----------
    id
        The name of its directory.
    why
        Why it cannot be read, for a person.
    """
    match = ID_PATTERN.fullmatch(id)
    try:
        received = datetime.strptime(id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        received = datetime.fromtimestamp(0, UTC)
    name = id if match is None else id.split("-", 3)[3]
    made = new(id=id, user=user, name=name, drop_path=name, files=[], now=received, software={})
    error = ErrorEntry(reason=DAMAGED, detail=why, stage=Status.DEPLOYING.name, retryable=False)
    return at_status(made, status, now=received, error=error)


def write(directory: Path, manifest: Manifest, *, durably: bool = True, mode: int = 0o640) -> None:
    """Write it to a temporary name, fsync, rename over the old one, fsync the directory.

    Without the first fsync a power cut leaves an empty manifest on some filesystems, without the
    second the old one, which has not counted the attempt that begins (test_power.py fails without
    either). Not `durably` where the old one does as well, because what has changed is found again.
    It gets the mode of the one that it replaces, the first one `mode`.
    """
    target = f"{directory}/{FILE_NAME}"
    temporary = f"{directory}/.{FILE_NAME}.{os.urandom(4).hex()}"
    data = _data(manifest)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        with open(descriptor, "wb", buffering=0):
            durable.write_all(descriptor, data)
            with suppress(FileNotFoundError):
                before = os.lstat(target).st_mode
                mode = stat.S_IMODE(before) if stat.S_ISREG(before) else mode
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        reached("manifest.synced")
        os.rename(temporary, target)
        reached("manifest.renamed")
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durably:
        durable.fsync_directory(directory)


def write_first(directory: Path, manifest: Manifest) -> None:
    """Write it where none is, for a caller who syncs it together with much else.

    Raises
    ------
    FileExistsError
        There is one.
    """
    with open(f"{directory}/{FILE_NAME}", "xb") as file:
        file.write(_data(manifest))


def _data(manifest: Manifest) -> bytes:
    return json.dumps(manifest, indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
