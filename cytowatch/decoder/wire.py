"""Messages between the daemon and a decoder process: JSON with its length before it, never a pickle.

The daemon's requests hold a whole manifest, and may be large. The messages of a decoder process are small;
`answers` reads larger answers from a file.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

from cytowatch import outside

__all__ = [
    "LARGEST_REQUEST_BYTES",
    "ProtocolError",
    "encoded",
    "frame",
    "parsed",
    "receive",
    "send",
]

LARGEST_REQUEST_BYTES = 256 << 20


class ProtocolError(Exception):
    """The received bytes are not a valid message."""


def encoded(message: dict[str, Any]) -> bytes:
    """`message` as JSON.

    Raises
    ------
    TypeError, ValueError, RecursionError
        JSON cannot hold it, or a text in it cannot be encoded.
    """
    return json.dumps(message, default=_plain, ensure_ascii=False, allow_nan=False).encode()


def send(
    channel: socket.socket,
    message: dict[str, Any] | bytes,
    *,
    give_up: Callable[[], bool] = lambda: True,
) -> None:
    """Send one message, which may be `encoded` already.

    Parameters
    ----------
    give_up
        Called whenever the channel's own time-out has passed and the other side has read nothing.

    Raises
    ------
    TimeoutError
        `give_up` returned true.
    OSError
        The other side is gone.
    TypeError, ValueError, RecursionError
        As `encoded` says.
    """
    data = message if isinstance(message, bytes) else encoded(message)
    left = memoryview(struct.pack("<I", len(data)) + data)
    while left:
        try:
            left = left[channel.send(left) :]
        except TimeoutError:
            if give_up():
                raise


def _plain(value: object) -> Any:
    """A number or an array of numpy as a type that JSON has."""
    plain = getattr(value, "tolist", None)
    if plain is None:
        raise TypeError(f"{type(value).__name__} is not JSON")
    return plain()


def receive(channel: socket.socket, *, most_bytes: int) -> dict[str, Any] | None:
    """The next message; None when the other side is gone. As `frame` and `parsed`."""
    data = frame(channel, most_bytes=most_bytes)
    return None if data is None else parsed(data)


def frame(
    channel: socket.socket,
    *,
    most_bytes: int,
    give_up: Callable[[], bool] = lambda: True,
) -> bytes | None:
    """The bytes of the next message; None when the other side is gone.

    Parameters
    ----------
    give_up
        Called after each part of a message, and when the channel's own time-out has passed without one.

    Raises
    ------
    TimeoutError
        `give_up` returned true in the middle of a message.
    ProtocolError
        It has more than `most_bytes`.
    """
    head = _exactly(channel, 4, give_up)
    if head is None:
        return None
    [length] = struct.unpack("<I", head)
    if length > most_bytes:
        raise ProtocolError(f"a message of {length:,} bytes")
    return _exactly(channel, length, give_up)


def parsed(data: bytes) -> dict[str, Any]:
    """The message in `data`.

    Raises
    ------
    ProtocolError
        It is not a JSON object as `outside` takes it.
    """
    try:
        message = outside.parse_json(data)
    except outside.OutsideError as error:
        raise ProtocolError(str(error)) from error
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message


def _exactly(channel: socket.socket, count: int, give_up: Callable[[], bool]) -> bytes | None:
    parts = bytearray()
    # A sender of a byte now and then never lets the channel's own time-out pass.
    waits = channel.gettimeout() is not None
    while len(parts) < count:
        try:
            part = channel.recv(min(count - len(parts), 1 << 20))
        except TimeoutError:
            if give_up():
                raise
            continue
        except ConnectionError:
            return None
        if not part:
            return None
        parts += part
        if waits and len(parts) < count and give_up():
            raise TimeoutError
    return bytes(parts)
