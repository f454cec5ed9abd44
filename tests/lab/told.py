"""What a daemon tells: its log, its metrics, its health; and that it has looked twice more."""

from __future__ import annotations

import json
import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

__all__ = ["free_port", "health", "json_lines", "metric"]

#: Below it are the ports of well-known servers.
_FIRST_PORT = 10_000


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The log as its lines."""
    # The last line may be under way.
    lines = path.read_text().rpartition("\n")[0].splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def free_port() -> int:
    """A port of loopback that nobody listens on.

    It is below those that the kernel gives to clients, of which tests have thousands: one of them would take it while
    a server is about to start, or between its end and its next start.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Where clients may have all of them, the kernel gives one.
    below = range(_FIRST_PORT, first) or range(1)
    while True:
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", random.SystemRandom().choice(below)))
            port: int = found.getsockname()[1]
            return port


def metric(port: int, name: str) -> float:
    """The sum of the samples whose line starts with `name`."""
    text = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def health(port: int) -> dict[str, str]:
    """What `/healthz` says is wrong."""
    try:
        body = urlopen(f"http://127.0.0.1:{port}/healthz").read()
    except HTTPError as error:
        body = error.read()
    reasons: dict[str, str] = json.loads(body)["reasons"]
    return reasons
