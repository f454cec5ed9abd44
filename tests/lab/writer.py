"""Somebody else on this machine, with another uid, who keeps a file open and tries to write to it later."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

UID = 4242
_LONGEST_CLAIM_S = 0.025


class Writer:
    """A process of the user `UID` that opened `path` for reading; each deed is asked for, and answered."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        asked, self._ask = os.pipe()
        self._answer, answered = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.setgroups([])
                os.setresgid(UID, UID, UID)
                os.setresuid(UID, UID, UID)
                # The other end, or it would outlive the test.
                os.close(self._ask)
                while word := os.read(asked, 1):
                    os.write(answered, f"{self._tried(word)}\n".encode())
            except BaseException:  # noqa: BLE001 - a forked copy of pytest must not go on
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(asked)
        os.close(answered)

    def _tried(self, word: bytes) -> str:
        link = f"/proc/self/fd/{self._descriptor}"
        deeds: dict[bytes, Callable[[], object]] = {
            b"w": lambda: self._write(link),
            b"m": lambda: os.fchmod(self._descriptor, 0o666),
            b"t": lambda: os.truncate(link, 1),
            b"r": lambda: self._race(link),
        }
        try:
            deeds[word]()
        except OSError as error:
            return type(error).__name__
        return "done"

    def _write(self, link: str) -> None:
        """Another byte, which no decoder minds, and the times as they were: only the ctime tells."""
        found = os.stat(link)
        descriptor = os.open(link, os.O_RDWR | os.O_NONBLOCK)
        version = os.pread(descriptor, found.st_size, 0).find(b"v11.2.1")
        at = version + 1 if version >= 0 else found.st_size // 2
        [byte] = os.pread(descriptor, 1, at)
        os.pwrite(descriptor, bytes([byte ^ 0x01]), at)
        os.close(descriptor)
        os.utime(link, ns=(found.st_atime_ns, found.st_mtime_ns))

    def _race(self, link: str) -> None:
        """Open it for writing again and again until it is denied; begin at any moment of a claim."""
        # Early moments are the likelier ones, because a claim is shorter in memory than on a disk.
        time.sleep(random.random() ** 3 * _LONGEST_CLAIM_S)
        while True:
            try:
                descriptor = os.open(link, os.O_WRONLY | os.O_NONBLOCK)
            except BlockingIOError:
                continue
            os.pwrite(descriptor, b"late", 0)
            os.close(descriptor)

    def begin(self, word: str) -> None:
        """Ask for a deed; `answer` tells what came of it."""
        os.write(self._ask, word.encode())

    def answer(self) -> str:
        said = b""
        while not said.endswith(b"\n"):
            part = os.read(self._answer, 100)
            if not part:
                return "gone"
            said += part
        return said.decode().strip()

    def tries(self, word: str) -> str:
        self.begin(word)
        return self.answer()

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        for descriptor in (self._ask, self._answer, self._descriptor):
            os.close(descriptor)
