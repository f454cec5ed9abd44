"""Where the log goes, written so that no reader of it can hold up or end the daemon.

The log of a service is a pipe or a socket: systemd's journal, a container's, `tee`, a terminal. If its
reader stops (a frozen journal, Ctrl-S in a terminal), the pipe fills up and a plain write waits for ever,
with every slide behind it. So a line that cannot be written is lost, and counted.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

__all__ = ["Steady"]

#: So much a pipe takes at once as soon as poll(2) calls it writable, without waiting: PIPE_BUF of pipe(7).
_AT_ONCE = select.PIPE_BUF
#: How long a reader that is merely slow is waited for: that often, a burst costs no line and no slide its turn.
_PATIENCE_MS = 200
_AGAIN_AFTER_S = 60.0


class Steady:
    """Guards that a line which cannot be written is lost and neither ends nor holds up anything.

    Each line goes out whole when it is flushed, without a buffer in between: one that a full disk or a full pipe
    did not take would be written late, or wait at the end of the process.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held = threading.Lock()
        self._text = ""
        self._lost = 0
        self._is_torn = False
        self._patient_from = float("-inf")
        #: What is written of lines that were lost, by their number, once there is room again.
        self.lost_line: Callable[[int], str] | None = None
        self._descriptor: int | None = None
        with suppress(OSError, io.UnsupportedOperation):
            self._descriptor = stream.fileno()

    def write(self, text: str) -> int:
        """Keep `text` until it is flushed."""
        with self._held:
            self._text += text
        return len(text)

    def flush(self) -> None:
        """Write what was kept, if it can be written now."""
        with self._held:
            text, self._text = self._text, ""
            if not text:
                return
            if self._lost and self.lost_line is not None:
                text = self.lost_line(self._lost) + text
            if not self._put(text):
                self._lost += 1
                return
            self._lost = 0

    def isatty(self) -> bool:
        """Whether a person reads along."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor below."""
        return self._stream.fileno()

    def _put(self, text: str) -> bool:
        """Whether all of `text` was written; of a letter that cannot be, its number is."""
        encoding = self._stream.encoding or "utf-8"
        try:
            if self._descriptor is None:
                self._stream.write(text)
                self._stream.flush()
                return True
            rest = text.encode(encoding, "backslashreplace")
            if self._is_torn:
                # The last one ends in the middle, and this one begins a line.
                rest = b"\n" + rest
            return self._put_bytes(self._descriptor, rest)
        except OSError:
            return False

    def _put_bytes(self, descriptor: int, rest: bytes) -> bool:
        while rest:
            if not self._is_ready(descriptor):
                return False
            written = os.write(descriptor, rest[:_AT_ONCE])
            rest = rest[written:]
            self._is_torn = bool(rest)
        return True

    def _is_ready(self, descriptor: int) -> bool:
        """Whether a write would not wait: at once, or within the patience that there is once in a while."""
        asked = select.poll()
        asked.register(descriptor, select.POLLOUT)
        if asked.poll(0):
            return True
        if time.monotonic() < self._patient_from:
            return False
        self._patient_from = time.monotonic() + _AGAIN_AFTER_S
        return bool(asked.poll(_PATIENCE_MS))
