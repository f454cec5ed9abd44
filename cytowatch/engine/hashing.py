"""``storage.hash = "after"``: a native slide is published first, and hashed while nobody waits.

What is still to be hashed is a note on disk, ``state/requests/<id>.hash``, written before the rename
that publishes; so neither a crash nor a restart forgets one, and storage is never walked for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from cytowatch import durable, manifest
from cytowatch.formats import arrival
from cytowatch.index import Index, content_key
from cytowatch.manifest import FileEntry, Manifest, ManifestError
from cytowatch.names import UploadedFileId
from cytowatch.spool import Spool

__all__ = ["Hasher", "note"]

_LOOK_EVERY_S = 1.0
_AGAIN_AFTER_S = 60.0
_CHUNK_BYTES = 4 << 20


def note(spool: Spool, found: Manifest) -> None:
    """Note, before `found` is published, that a hash of it is still to be computed, if one is.

    Raises
    ------
    OSError
        It cannot be written: the step is done again.
    """
    if any(row["sha256"] is None for row in found["files"]):
        # Or after a power cut it would be in storage without a hash for ever.
        durable.write_note(_note_of(spool, found["id"]), found["user"])


def _note_of(spool: Spool, id_: str) -> Path:
    return spool.requests / f"{id_}.hash"


class _StoppedError(Exception):
    """The daemon stops; it is hashed after the next start."""


class Hasher:
    """Guards one thread that hashes what was published without a hash, one after the other."""

    def __init__(self, spool: Spool, index: Index, log: Any, wake: Callable[[], None]) -> None:
        self._log = log
        self._spool = spool
        self._index = index
        self._wake = wake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="hasher", daemon=True)

    def start(self) -> None:
        """Begin to hash."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is hashed now is hashed anew later."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def idle(self) -> bool:
        """Whether no published uploaded file waits for its hash."""
        return next(self._waiting(), None) is None

    def _waiting(self) -> Iterator[tuple[Path, Path]]:
        """(note, directory) of each that is published."""
        with suppress(OSError):
            # Not `glob`: this is asked at rest as well, and a list is a third of its work.
            names = (name for name in os.listdir(self._spool.requests) if name.endswith(".hash"))
            for one in sorted(self._spool.requests / name for name in names):
                # In this order: it may be published between the two looks, and never comes back.
                if self._spool.find(UploadedFileId(one.stem)) is not None:
                    continue
                path = self._spool.storage / one.read_text() / one.stem
                if path.is_dir():
                    yield one, path
                else:
                    # It was removed.
                    one.unlink(missing_ok=True)

    def _serve(self) -> None:
        again_at: dict[str, float] = {}
        while not self._stop.wait(_LOOK_EVERY_S):
            for one, path in list(self._waiting()):
                if again_at.get(one.name, 0.0) > time.monotonic():
                    continue
                try:
                    self._hash(path)
                    one.unlink(missing_ok=True)
                except (OSError, ManifestError) as error:
                    # It is removed right now, or the machine has a fault: not read again at once.
                    again_at[one.name] = time.monotonic() + _AGAIN_AFTER_S
                    if path.is_dir():
                        self._log.warning(
                            "fault", where="hashing", error=f"{one.stem}: {error}"[:300]
                        )
                    continue
                except _StoppedError:
                    return
                again_at.pop(one.name, None)
                self._wake()

    def _hash(self, path: Path) -> None:
        to_do = [row["path"] for row in manifest.read(path)["files"] if row["sha256"] is None]
        seen = {name: self._digest(path / name) for name in to_do}
        digests = {name: digest for name, (digest, _) in seen.items()}
        lacks = [f"{name}: {lack}" for name, (_, lack) in seen.items() if lack is not None]
        for lack in lacks:
            # It is published, so whoever looks at it must see that it is not whole.
            self._log.error("not_whole", id=path.name, lacks=lack[:300])
        # Whoever links it to a project meanwhile changes the manifest as well.
        with durable.directory(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            found = manifest.read(path)
            files = [
                cast("FileEntry", {**row, "sha256": row["sha256"] or digests.get(row["path"])})
                for row in found["files"]
            ]
            sources = [row["sha256"] for row in files if row["role"] == "source"]
            key = content_key(files)
            first = self._index.first(found["user"], key) if key else None
            changed = {
                **found,
                "files": files,
                "warnings": [
                    *found["warnings"],
                    *(f"it is not whole, send it again: missing {lack}" for lack in lacks),
                ],
                "sha256": sources[0] if len(sources) == 1 else None,
                "duplicate_of": first
                if first not in (None, found["id"])
                else found["duplicate_of"],
            }
            manifest.write(path, cast("Manifest", changed))
        self._index.put(cast("Manifest", changed), manifest.status_of(found))

    def _digest(self, path: Path) -> tuple[str, str | None]:
        """The hash of the file at `path`, and what it lacks."""
        digest = hashlib.sha256()
        watch = arrival.watch(os.fspath(path))
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                watch.feed(chunk)
                if self._stop.is_set():
                    raise _StoppedError
            # The pages of a large slide are of no use to anybody now.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return digest.hexdigest(), watch.verdict().lacks
