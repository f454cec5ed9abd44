"""Stages that misbehave when the name of the uploaded file tells them to; else the real ones."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from cytowatch.errors import FormatError
from cytowatch.model import Outcome, UploadedFile
from cytowatch.stages import STAGES as REAL
from cytowatch.status import Status


def _segfault() -> None:
    ctypes.string_at(0)


def _hang() -> None:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    time.sleep(1000)


def _eat() -> None:
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


def _escape() -> None:
    """Try all that the sandbox forbids; succeed only if all of it was denied."""
    attempts: list[Callable[[], object]] = [
        lambda: Path("/etc/passwd").read_text(),
        lambda: Path("../escaped").write_text("x"),
        lambda: Path("source/new").write_text("x"),
        lambda: os.rename("source", "out.1/source"),
        lambda: socket.create_connection(("127.0.0.1", 9), 1),
        lambda: os.kill(os.getppid(), 0),
        os.fork,
        # The program's own machine code, written at run time.
        lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    ]
    for attempt in attempts:
        try:
            attempt()
        except PermissionError:
            continue
        except OSError as error:
            # A system call that is filtered is as one that the kernel does not have.
            if error.errno == errno.ENOSYS:
                continue
            raise FormatError("escaped", f"{error}") from error
        raise FormatError("escaped", "something was allowed")
    Path("out.1/allowed").write_text("x")
    Path("out.1/allowed").unlink()


def _raise() -> None:
    raise LookupError("a defect of ours")


def _bare() -> None:
    """Look at what it was given; anything that is the daemon's is an error."""
    import pyvips

    known = {"PATH", "LANG", "LC_CTYPE", "PYTHONPATH"}
    prefixes = ("VIPS_", "MALLOC_", "OMP_", "OPENBLAS_", "TMPDIR")
    strange = [name for name in os.environ if name not in known and not name.startswith(prefixes)]
    if strange:
        raise FormatError("environment", f"{strange}")
    opened = []
    for number in range(3, 256):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue
        opened.append(number)
    if opened != [3]:
        raise FormatError("descriptors", f"{opened}")
    for loader in ("pdfload", "magickload", "openslideload", "matload"):
        try:
            getattr(pyvips.Image, loader)("source/none")
        except pyvips.Error as error:
            if "blocked" in str(error) or "not found" in str(error):
                continue
            raise FormatError("loader", f"{loader}: {error}") from error
        except AttributeError:
            continue


def _babble() -> None:
    os.write(3, b"\xff" * 100)
    time.sleep(1)


def _babble_json() -> None:
    text = b'{"outcome": {"status": "DEPLOYED", "changes": [1, 2]}}'
    os.write(3, len(text).to_bytes(4, "little") + text)
    time.sleep(1)


_DEEDS = {
    "bare": _bare,
    "raise": _raise,
    "babble": _babble,
    "wordy": _babble_json,
    "segfault": _segfault,
    "hang": _hang,
    "eat": _eat,
    "escape": _escape,
}


def _row(path: str) -> dict:
    return {"role": "pyramid", "path": path, "size_bytes": 1, "sha256": None, "status": "DEPLOYED"}


def _linked(file: UploadedFile) -> Outcome:
    os.symlink("/etc/passwd", f"{file.out}/a.tiff")
    rows = [*file.manifest["files"], _row("derived/a.tiff")]
    return Outcome(status=Status.DEPLOYING, changes={"files": rows})


def _piped(file: UploadedFile) -> Outcome:
    os.mkfifo(f"{file.out}/a.tiff")
    return Outcome(status=Status.DEPLOYING)


#: What a decoder that was taken over might say that it made, by the word in the name.
LIES: dict[str, Callable[[UploadedFile], Outcome]] = {
    "skip": lambda file: Outcome(status=Status.DEPLOYED),
    "back": lambda file: Outcome(status=Status.UPLOADED),
    "error": lambda file: Outcome(status=Status.ERROR_FORMAT),
    "user": lambda file: Outcome(status=Status.DEPLOYING, changes={"user": "bob"}),
    "id": lambda file: Outcome(status=Status.DEPLOYING, changes={"id": "../../../x"}),
    "path": lambda file: Outcome(
        status=Status.DEPLOYING,
        changes={"files": [*file.manifest["files"], _row("derived/../../../../etc/passwd")]},
    ),
    "absolute": lambda file: Outcome(
        status=Status.DEPLOYING, changes={"files": [*file.manifest["files"], _row("/etc/passwd")]}
    ),
    "absent": lambda file: Outcome(
        status=Status.DEPLOYING,
        changes={"files": [*file.manifest["files"], _row("derived/x.tiff")]},
    ),
    "schema": lambda file: Outcome(
        status=Status.DEPLOYING, changes={"images": [{"width": "wide"}]}
    ),
    "nan": lambda file: Outcome(
        status=Status.DEPLOYING, changes={"conversion": {"seconds": float("nan")}}
    ),
    "surrogate": lambda file: Outcome(
        status=Status.DEPLOYING, changes={"conversion": {"reader": "\ud800"}}
    ),
    "link": _linked,
    "pipe": _piped,
}


def _slow(file: UploadedFile, steps: int) -> None:
    for step in range(steps):
        file.progress(step / 100)
        time.sleep(0.4)


def _wrapped(status: Status) -> Callable[[UploadedFile], Outcome]:
    def stage(file: UploadedFile) -> Outcome:
        name = file.manifest["name"]
        for word, deed in _DEEDS.items():
            if name.startswith(f"{word}-{status.name}"):
                deed()
        if name.startswith(f"slow-{status.name}"):
            _slow(file, 8)
        if name.startswith(f"stall-{status.name}"):
            _slow(file, 3)
            _hang()
        for word, lie in LIES.items():
            if name.startswith(f"lie-{word}-") and status is Status.CONVERTING:
                return lie(file)
        outcome = REAL[status](file)
        if name.startswith(f"pause-{status.name}"):
            # Progress is throttled: what comes too soon after the last is not told.
            time.sleep(0.2)
            file.progress(0.5)
            time.sleep(1000)
        return outcome

    return stage


STAGES = MappingProxyType({status: _wrapped(status) for status in REAL})
