"""Checks that the published bytes are the hashed ones, made when no decoder process is left.

A thread of a decoder that was taken over may write to a pyramid while the process ends, so the output is hashed
by the daemon, after that. A source that is not the daemon's own can be written to by its owner at any time, so
it is hashed once more, and compared with what was hashed before anything was decoded.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from cytowatch import durable, outside
from cytowatch.decoder.answers import refused
from cytowatch.durable import owner
from cytowatch.model import Progress
from cytowatch.record.entries import FileEntry
from cytowatch.record.errors import IngestError, stage_error
from cytowatch.record.status import Status

__all__ = ["check_hashes", "check_sources", "digest_at", "same_bytes", "with_hashes"]

_CHUNK_BYTES = 4 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_GIVEN = frozenset({"source", "sidecar"})


def with_hashes(
    status: Status,
    top: Path,
    files: Iterable[FileEntry],
    *,
    progress: Progress,
    look: Callable[[], None],
) -> list[FileEntry]:
    """`files` with the hash of each that was derived, as it lies in `top` now; `look` is called again and again.

    Raises
    ------
    IngestError
        `output_refused`: one is not a regular file of the stated size.
    """
    rows = list(files)
    derived = [row for row in rows if row["path"].startswith("derived/")]
    total, done = max(1, sum(row["size_bytes"] for row in derived)), 0
    digests: dict[str, str] = {}
    for row in derived:
        inside, size_bytes = row["path"].removeprefix("derived/"), row["size_bytes"]

        def tell(share: float, done: int = done, size_bytes: int = size_bytes) -> None:
            look()
            progress((done + share * size_bytes) / total)

        try:
            digests[row["path"]] = digest_at(top, inside, size_bytes, tell)
        except outside.OutsideError as error:
            raise refused(status, f"{outside.text(row['path'], most=200)!r}: {error}") from error
        except OSError as error:
            if durable.is_transient(error):
                raise
            said = f"{outside.text(row['path'], most=200)!r} cannot be read: {error.strerror}"
            raise refused(status, said) from error
        done += size_bytes
    return [
        cast("FileEntry", {**row, "sha256": digests.get(row["path"], row["sha256"])})
        for row in rows
    ]


def digest_at(top: Path, inside: str, size_bytes: int, progress: Progress) -> str:
    """The SHA-256 of the regular file at `inside` below `top`, no part of which may be a link.

    Raises
    ------
    OutsideError
        It is not a regular file, has another size than `size_bytes`, or is held by its owner.
    OSError
        It is not there, or cannot be read.
    """
    descriptor = _opened(top, inside)
    try:
        return _digest(descriptor, size_bytes, progress)
    finally:
        os.close(descriptor)


def _opened(top: Path, inside: str) -> int:
    """A descriptor of the file at `inside` below `top`, for reading; no part of it may be a link.

    Raises
    ------
    OutsideError
        Its owner, who kept a descriptor, has taken a lease on it: it would be waited for.
    OSError
        It is not there, or cannot be read.
    """
    folder, _, name = inside.rpartition("/")
    with durable.beneath(top, folder) as at:
        try:
            return os.open(name, _FLAGS, dir_fd=at)
        except BlockingIOError as error:
            raise outside.OutsideError("its owner holds it, and may write to it") from error


def _digest(descriptor: int, size_bytes: int, progress: Progress) -> str:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise outside.OutsideError("not a regular file")
    if found.st_size != size_bytes:
        raise outside.OutsideError(f"it has {found.st_size:,} bytes, not {size_bytes:,}")
    done = 0

    def seen(chunk: bytes) -> None:
        nonlocal done
        done += len(chunk)
        if done > size_bytes:
            raise outside.OutsideError("it grows while it is read")
        progress(done / max(1, size_bytes))

    return durable.sha256(functools.partial(os.read, descriptor), seen, chunk_bytes=_CHUNK_BYTES)


def check_sources(
    status: Status, place: Path, files: Iterable[FileEntry], *, progress: Progress
) -> list[FileEntry]:
    """Compare the received files with their hashes, if somebody else could have written to them; return all rows.

    A file that is the daemon's own, and not open for writing, cannot have changed since the claim.

    Raises
    ------
    IngestError
        `changed`
    """
    rows = []
    for row in files:
        rows.append(row)
        if row["role"] not in _GIVEN or os.path.islink(place / "source"):
            continue
        try:
            descriptor = _opened(place, row["path"])
            try:
                if _is_local(place) and owner.nobody_writes(descriptor):
                    continue
                digest = _digest(descriptor, row["size_bytes"], progress)
            finally:
                os.close(descriptor)
        except (outside.OutsideError, FileNotFoundError) as error:
            raise _changed(status, row, str(error)) from error
        if row["sha256"] is None:
            rows[-1] = cast("FileEntry", {**row, "sha256": digest})
        elif digest != row["sha256"]:
            raise _changed(status, row, "its bytes have changed since it was hashed")
    return rows


def check_hashes(
    status: Status, place: Path, files: Iterable[FileEntry], *, look: Callable[[], None]
) -> None:
    """Compare the sources with the hashes that a decoder states.

    Raises
    ------
    IngestError
        `output_refused`: one has another.
    """
    for row in files:
        if row["role"] in _GIVEN and row["sha256"] is not None:
            try:
                found = digest_at(place, row["path"], row["size_bytes"], lambda _share: look())
            except (outside.OutsideError, FileNotFoundError) as error:
                raise _changed(status, row, str(error)) from error
            if found != row["sha256"]:
                raise refused(status, f"the hash that it states is not that of {row['path']}")


def _changed(status: Status, row: FileEntry, said: str) -> IngestError:
    return stage_error(status)(
        "changed", f"{row['path']} was changed after it was received: {said}", retryable=True
    )


@functools.lru_cache(maxsize=8)
def _is_local_root(root: Path) -> bool:
    return durable.is_local(root)


def _is_local(place: Path) -> bool:
    """Whether a lease proves anything there; ``<id>/`` lies two levels below a directory of the root."""
    return _is_local_root(place.parents[2])


def same_bytes(
    one: Path, other: Path, pairs: Iterable[tuple[str, str]], *, look: Callable[[], None]
) -> bool:
    """Whether the files of each pair, below `one` and below `other`, have the same bytes.

    A file that is not regular, or is reached by a link, has none.

    Raises
    ------
    FileNotFoundError
        One is not there.
    """
    for pair in pairs:
        opened: list[int] = []
        try:
            for top, inside in zip((one, other), pair, strict=True):
                opened.append(_opened(top, inside))
            if not _same(opened[0], opened[1], look):
                return False
        except outside.OutsideError:
            return False
        except OSError as error:
            if durable.is_transient(error) or isinstance(error, FileNotFoundError):
                raise
            return False
        finally:
            for descriptor in opened:
                os.close(descriptor)
    return True


def _same(one: int, other: int, look: Callable[[], None]) -> bool:
    found = [os.fstat(descriptor) for descriptor in (one, other)]
    if not all(stat.S_ISREG(each.st_mode) for each in found):
        return False
    if found[0].st_size != found[1].st_size:
        return False
    at = 0
    while at < found[0].st_size:
        look()
        chunks = [os.pread(descriptor, _CHUNK_BYTES, at) for descriptor in (one, other)]
        if chunks[0] != chunks[1] or not chunks[0]:
            return False
        at += len(chunks[0])
    return True
