"""What a daemon tells: its log, its metrics, its health; and that it has looked twice more."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

__all__ = ["free_port", "health", "json_lines", "metric"]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The log as its lines."""
    # The last line may be under way.
    lines = path.read_text().rpartition("\n")[0].splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
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
