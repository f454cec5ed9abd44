"""Looking again at what was published: every byte hashed, every level of every pyramid opened.

Hashing is done here, opening in a sandboxed process, by the code that verified it before it was
published. Nothing is changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from cytowatch import durable, outside
from cytowatch.decoder.ends import DecoderCrashed, Stopped
from cytowatch.decoder.forks import Zygote
from cytowatch.decoder.pace import DecoderTimedOut
from cytowatch.model import Outcome, UploadedFile
from cytowatch.outside import OutsideError
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import IngestError, TransientError
from cytowatch.record.status import Status
from cytowatch.stages.deploy import reopen

__all__ = ["STAGES", "Findings", "Throttle", "verify"]

_CHUNK_BYTES = 1 << 20

#: What the zygote of `cytowatch verify` runs in the place of the stages.
STAGES: MappingProxyType[Status, Callable[[UploadedFile], Outcome]] = MappingProxyType(
    {Status.DEPLOYING: reopen}
)


class Throttle:
    """Guards that not more than so many bytes a second are read; 0 means as fast as it goes."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._began = time.monotonic()
        self._read = 0

    def read(self, count: int) -> None:
        """Note that so many bytes were read, and sleep until that many were allowed."""
        if self._bytes_per_s <= 0:
            return
        self._read += count
        ahead_s = self._read / self._bytes_per_s - (time.monotonic() - self._began)
        if ahead_s > 0:
            time.sleep(ahead_s)


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was found of one uploaded file; `unhashed` are files that no hash was noted of."""

    problems: list[str] = field(default_factory=list)
    unhashed: list[str] = field(default_factory=list)
    read_bytes: int = 0


def verify(
    path: Path,
    found: Manifest,
    zygote: Zygote,
    *,
    throttle: Throttle,
    progress: Callable[[int], None],
    stop: threading.Event,
    findings: Findings | None = None,
) -> Findings:
    """Look at the uploaded file that is published at `path`.

    Parameters
    ----------
    progress
        Told how many bytes were read since its last call.

    Raises
    ------
    Stopped
        `stop` was set.
    """
    findings = findings or Findings()
    for row in found["files"]:
        top = path / row["path"].split("/", 1)[0]
        if top.is_symlink():
            # A duplicate that is shown by links: its files are the first one's, and looked at there.
            continue
        _hash(path / row["path"], row["path"], row["size_bytes"], row["sha256"], findings, throttle, progress, stop)  # fmt: skip
    if found["images"] and not findings.problems and not (path / "source").is_symlink():
        _reopen(path, found, zygote, findings, stop)
    return findings


def _hash(
    file: Path,
    name: str,
    size_bytes: int,
    sha256: str | None,
    findings: Findings,
    throttle: Throttle,
    progress: Callable[[int], None],
    stop: threading.Event,
) -> None:
    read = 0

    def seen(chunk: bytes) -> None:
        nonlocal read
        if stop.is_set():
            raise Stopped("asked to stop")
        read += len(chunk)
        progress(len(chunk))
        throttle.read(len(chunk))

    try:
        with outside.regular_file(file) as opened:
            found = durable.sha256(opened.read, seen)
    except FileNotFoundError:
        findings.problems.append(f"{name} is not there")
        return
    except OutsideError:
        findings.problems.append(f"{name} is not a regular file")
        return
    except OSError as error:
        findings.problems.append(f"{name} cannot be read: {error.strerror}")
        return
    findings.read_bytes += read
    if read != size_bytes:
        findings.problems.append(f"{name} has {read:,} bytes, {size_bytes:,} were noted")
    elif sha256 is None:
        findings.unhashed.append(name)
    elif found != sha256:
        findings.problems.append(f"{name} has other bytes than when it was hashed")


def _reopen(
    path: Path, found: Manifest, zygote: Zygote, findings: Findings, stop: threading.Event
) -> None:
    try:
        with zygote.fork(path, "/dev/null") as decoder:
            decoder.run(
                Status.DEPLOYING, found, out=Path("/dev/null"), progress=lambda _: None, stop=stop
            )
    except IngestError as error:
        findings.problems.append(error.detail)
    except DecoderCrashed as crash:
        findings.problems.append(f"the decoder crashed on it ({crash})")
    except DecoderTimedOut as late:
        findings.problems.append(f"opening it took more than {late.limit_s:g} s")
    except TransientError as error:
        findings.problems.append(f"it could not be opened: {error.detail}")
