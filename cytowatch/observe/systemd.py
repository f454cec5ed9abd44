"""What systemd learns: the few lines of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["notify"]

#: The kernel keeps ten messages for systemd; if it reads none for so long, this one is lost and the work goes on.
_PATIENCE_S = 1.0


def notify(*lines: str) -> bool:
    """Send `lines`, such as ``READY=1``; returns whether systemd listens.

    Source: sd_notify(3).
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    # An address that begins with @ stands for the abstract namespace.
    target = f"\0{address[1:]}" if address.startswith("@") else address
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        suppress(OSError),
    ):
        out.settimeout(_PATIENCE_S)
        out.connect(target)
        out.sendall("\n".join(lines).encode())
        return True
    return False
