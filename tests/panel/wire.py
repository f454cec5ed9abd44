"""The network between a browser and a panel: a relay on loopback whose cable can be pulled."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress

__all__ = ["Wire"]

_BLOCK_BYTES = 256 << 10


class Wire:
    """Passes connections on to `port`, at most `bytes_per_s` of each upwards, until it is cut."""

    def __init__(self, port: int, *, bytes_per_s: int) -> None:
        self._to = port
        self._bytes_per_s = bytes_per_s
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_cut = False
        #: How many connections a cut has ended.
        self.broken = 0
        #: How many bytes went upwards.
        self.bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection, and each that somebody tries from now on."""
        with self._lock:
            self._is_cut = True
            self.broken += len(self._open) // 2
            for one in self._open:
                _reset(one)
            self._open.clear()

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def close(self) -> None:
        """End it."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        # Ends with the listener.
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._join(near)

    def _join(self, near: socket.socket) -> None:
        try:
            if self._is_cut:
                raise ConnectionResetError
            far = socket.create_connection(("127.0.0.1", self._to), timeout=60)
        except OSError:
            _reset(near)
            return
        with self._lock:
            self._open |= {near, far}
        for one, other, pace in ((near, far, self._bytes_per_s), (far, near, 0)):
            threading.Thread(target=self._pass, args=(one, other, pace), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, bytes_per_s: int) -> None:
        with suppress(OSError):
            while data := one.recv(_BLOCK_BYTES):
                other.sendall(data)
                if bytes_per_s:
                    self.bytes += len(data)
                    time.sleep(len(data) / bytes_per_s)
        with self._lock:
            self._open -= {one, other}
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _reset(one: socket.socket) -> None:
    """End a connection as a pulled cable ends it: with no farewell."""
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    one.close()
