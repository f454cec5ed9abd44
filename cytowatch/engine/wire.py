"""Messages between the daemon and a child: JSON with its length before it, never a pickle."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["LARGEST", "ProtocolError", "receive", "send"]

LARGEST = 256 << 20


class ProtocolError(Exception):
    """What came is no message of ours."""


def send(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one message.

    Raises
    ------
    OSError
        The other side is gone.
    """
    data = json.dumps(message, default=_plain).encode()
    channel.sendall(struct.pack("<I", len(data)) + data)


def _plain(value: object) -> Any:
    """A number or an array of numpy as what JSON knows."""
    plain = getattr(value, "tolist", None)
    if plain is None:
        raise TypeError(f"{type(value).__name__} is no JSON")
    return plain()


def receive(
    channel: socket.socket, *, give_up: Callable[[], bool] | None = None
) -> dict[str, Any] | None:
    """The next message; None when the other side is gone.

    Parameters
    ----------
    give_up
        Asked whenever the channel's own time-out has passed without a byte.

    Raises
    ------
    TimeoutError
        `give_up` said so in the middle of a message.
    ProtocolError
        It is no JSON object, or larger than any message of ours.
    """
    head = _exactly(channel, 4, give_up)
    if head is None:
        return None
    [length] = struct.unpack("<I", head)
    if length > LARGEST:
        raise ProtocolError(f"a message of {length:,} bytes")
    data = _exactly(channel, length, give_up)
    if data is None:
        return None
    try:
        message = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError("no JSON object")
    return message


def _no_number(word: str) -> float:
    """NaN and Infinity, which Python writes and JSON does not know: a manifest cannot hold them."""
    raise ValueError(f"{word} is no number")


def _exactly(
    channel: socket.socket, count: int, give_up: Callable[[], bool] | None
) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        try:
            part = channel.recv(min(count - len(parts), 1 << 20))
        except TimeoutError:
            if give_up is None or give_up():
                raise
            continue
        except ConnectionError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
