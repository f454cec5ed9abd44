"""What a decoder process does in `test_held_up`: it says that it begins, and writes to its output without end."""

from __future__ import annotations

import os
import socket

from cytowatch.config import Config


def serve(channel: socket.socket, out: str, _config: Config) -> None:
    channel.recv(1)
    descriptor = os.open(out, os.O_RDONLY)
    channel.send(b"x")
    file = os.open("a", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor)
    while True:
        os.pwrite(file, bytes(4096), 0)
