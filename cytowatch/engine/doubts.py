"""What is doubted of an uploaded file: a hash that proves nothing, a fault that only its decoder reports.

How often it reported one is in the manifest, as attempts: a restart gives it no further tries.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cytowatch import durable
from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry

__all__ = ["Doubts", "is_real"]

#: A few for an encoder and a reader on a common machine; the kernel counts them with all processes.
_THREADS_OF_A_DECODER = 12
_PROBE_BYTES = 1 << 20
_FEW_INODES = 16


class Doubts:
    """Guards which hashes prove nothing; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._different: set[str] = set()

    def differs(self, id_: str) -> None:
        """Its hash is that of another one, and its bytes are not."""
        with self._lock:
            self._different.add(id_)

    def is_different(self, id_: str) -> bool:
        """Whether its hash proves nothing."""
        with self._lock:
            return id_ in self._different

    def forget(self, id_: str) -> None:
        """It is finished."""
        with self._lock:
            self._different.discard(id_)


def is_real(why: str, path: Path, files: Iterable[FileEntry], *, spare_bytes: int) -> bool:
    """Whether the daemon meets the fault `why` in ``<id>/`` itself, before what was half made is removed."""
    if why == "processes":
        return not _may_start_threads()
    try:
        found = os.statvfs(path)
        if why == "disk":
            free_bytes = found.f_bavail * found.f_frsize
            few_inodes = found.f_files > 0 and found.f_favail < _FEW_INODES
            if few_inodes or free_bytes < spare_bytes + _PROBE_BYTES:
                return True
        else:
            for row in files:
                if row["role"] in ("source", "sidecar"):
                    _read_some(path / row["path"])
        _write_some(path)
    except OSError as error:
        return durable.is_transient(error)
    return False


def _may_start_threads() -> bool:
    """Whether as many threads as a decoder needs can be started now."""
    end = threading.Event()
    some = [threading.Thread(target=end.wait, daemon=True) for _ in range(_THREADS_OF_A_DECODER)]
    try:
        for one in some:
            one.start()
    except RuntimeError:
        return False
    finally:
        end.set()
    return True


def _read_some(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.pread(descriptor, 4096, 0)
    finally:
        os.close(descriptor)


def _write_some(path: Path) -> None:
    # Named as a manifest that was being written, so that what a kill leaves of it goes with those.
    probe = path / f".{manifest.FILE_NAME}.{os.urandom(4).hex()}"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, bytes(_PROBE_BYTES))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            probe.unlink()
