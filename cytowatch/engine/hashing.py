"""``storage.hash = "after"``: a native slide is published first, and hashed while no one waits.

What is still to be hashed is a note on disk, ``state/requests/<id>.hash``, written before the rename
that publishes; so neither a crash nor a restart forgets one, and storage is never walked for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from cytowatch import aside, durable, outside, threads
from cytowatch.formats.completeness import arrival
from cytowatch.record import manifest
from cytowatch.record.content import content_key
from cytowatch.record.entries import FileEntry
from cytowatch.transitions import notes
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["Hasher"]

_LOOK_EVERY_S = 1.0
_CHUNK_BYTES = 4 << 20


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
        self._thread = threading.Thread(
            target=threads.forever,
            args=("hasher", self._serve, self._stop),
            name="hasher",
            daemon=True,
        )

    def start(self) -> None:
        """Begin to hash."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is hashed now is hashed again later."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def idle(self) -> bool:
        """Whether no published uploaded file waits for its hash."""
        return next(self._waiting(), None) is None

    def _waiting(self) -> Iterator[tuple[Path, Path]]:
        """(note, directory) of each that is published."""
        with suppress(OSError):
            for one, id_ in notes.there(self._spool, notes.HASH):
                found: Path | None = None
                with aside.fence("request", one.name):
                    # In this order: it may be published between the two looks, and never comes back.
                    if self._spool.find(id_) is not None:
                        continue
                    found = notes.place_of(self._spool, one, id_)
                    if found is None:
                        # It was removed.
                        self._spool.discard(one)
                if found is not None:
                    yield one, found

    def _serve(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            for one, path in list(self._waiting()):
                if not aside.may_try("uploaded_file", path.name):
                    continue
                try:
                    # A fault of the machine, or it is removed right now: not read again at once.
                    with aside.fence("uploaded_file", path.name, but=(_StoppedError,)) as fenced:
                        self._hash(path)
                        self._spool.discard(one)
                except _StoppedError:
                    return
                if not fenced.failed:
                    self._wake()
                elif not path.is_dir():
                    aside.clear("uploaded_file", path.name)

    def _hash(self, path: Path) -> None:
        to_do = [row["path"] for row in manifest.read(path)["files"] if row["sha256"] is None]
        seen = {name: self._digest(path / name) for name in to_do}
        digests = {name: digest for name, (digest, _) in seen.items()}
        lacks = [f"{name}: {lack}" for name, (_, lack) in seen.items() if lack is not None]
        for lack in lacks:
            # It is published, so anyone who looks at it must see that it is not whole.
            self._log.error("not_whole", id=path.name, lacks=lack[:300])
        # Anyone who links it to a project meanwhile changes the manifest as well.
        with manifest.held(path) as found:
            files = [
                cast("FileEntry", {**row, "sha256": row["sha256"] or digests.get(row["path"])})
                for row in found["files"]
            ]
            sources = [row["sha256"] for row in files if row["role"] == "source"]
            key = content_key(files)
            first = self._index.first(found["user"], key) if key else None
            said = [f"it is not whole, send it again: missing {lack}" for lack in lacks]
            is_first = first in (None, found["id"])
            changed = manifest.evolve(
                found,
                files=files,
                warnings=[*found["warnings"], *said],
                sha256=sources[0] if len(sources) == 1 else None,
                duplicate_of=found["duplicate_of"] if is_first else first,
            )
            manifest.write(path, changed)
        self._index.put(changed, manifest.status_of(found))

    def _digest(self, path: Path) -> tuple[str, str | None]:
        """The hash of the file at `path`, and what it lacks."""
        watch = arrival.watch(os.fspath(path))

        def seen(chunk: bytes) -> None:
            watch.feed(chunk)
            if self._stop.is_set():
                raise _StoppedError

        with outside.regular_file(path) as file:
            digest = durable.sha256(file.read, seen, chunk_bytes=_CHUNK_BYTES)
            # The pages of a large slide are of no use to anybody now.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return digest, watch.verdict().lacks
