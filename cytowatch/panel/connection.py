"""One connection of a client: it is slow, silent or greedy at its own cost only."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from cytowatch.panel import straight
from cytowatch.panel.straight import Straight

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

__all__ = ["MOST_CONNECTIONS", "Parts", "Patient"]

MOST_CONNECTIONS = 512
#: A client that has not sent the head of its request by then is let go.
_HEAD_S = 10.0
_MOST_HEAD_BYTES = 32 << 10
#: A client that has not read 64 KiB of its answer by then is let go.
_UNREAD_S = 60.0
#: Requests behind one that is not answered yet; no browser sends any.
_MOST_WAITING = 32


class Parts:
    """Stands where uvicorn has a bytearray: parts of a body, joined when they are asked for, and one part not at all."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def __iadd__(self, part: bytes) -> Parts:
        self._parts.append(part)
        self._size += len(part)
        return self

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class Patient(HttpToolsProtocol):
    """Guards that no client holds a connection for nothing: heads come soon and are small, answers are read.

    Memory bound: a connection holds one head, the part of a body that was not written yet, some
    `_MOST_WAITING` requests behind the one that is answered, and 64 KiB of an answer.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    #: Whether a line is one of the head of a request, and no trailer behind its body.
    _reads_head = False
    #: Whether a part of a body has come with the bytes at hand, and how many came since the last one.
    _got_body = False
    _beside_bytes = 0
    #: How many bytes of the body at hand have not come yet; 0 if that is unknown.
    _left = 0
    _unread_timer: asyncio.TimerHandle | None = None
    #: How many requests came, and how many had come when the client was last seen to read.
    _asked = 0
    _asked_then = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
            return
        self._begin()

    def _begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_S, self._late)

    def _late(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

    def _stop(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES and b"\r\n\r\n" not in data:
                self._stop()
                self.transport.close()
                return
        self._got_body = False
        super().data_received(data)
        if self._in_head or self._got_body or self.cycle is None or not self.cycle.more_body:
            self._beside_bytes = 0
        else:
            # Trailers, or what extends the size of a chunk: the parser keeps all of it until it ends.
            self._beside_bytes += len(data)
            if self._beside_bytes > _MOST_HEAD_BYTES:
                self.transport.close()
                return
        # Empty lines between two requests begin none, and put off uvicorn's own time limit.
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._begin()

    def on_message_begin(self) -> None:
        """The first bytes of a request came."""
        self._begin()
        self._reads_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of a head came. A trailer is dropped: uvicorn would take it for a line that a proxy has set."""
        if self._reads_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A part of a body came; it is passed on as it is, where uvicorn would copy it twice."""
        self._got_body = True
        self._left -= len(body)
        if not self.cycle.body:
            self.cycle.body = Parts()  # type: ignore[assignment]
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._reads_head = False
        self._stop()
        if len(self.pipeline) >= _MOST_WAITING:
            raise ValueError("too many requests at once")
        self._asked += 1
        super().on_headers_complete()
        if self.cycle.scope["http_version"] == "1.0":
            self.cycle.send = _ToTheEnd(self.cycle)  # type: ignore[method-assign]
        self._left = _length(self.headers)
        if self._left:
            state = self.cycle.scope["state"]
            state[straight.STATE] = functools.partial(self._straight, self._asked)

    def _straight(self, asked: int) -> Straight | None:
        """The rest of the body of request `asked`, to be read past the parser; None if that cannot be."""
        cycle, is_gone = self.cycle, self.cycle.disconnected
        # A body that is here already has been parsed, and perhaps the next request as well.
        if asked != self._asked or self._left <= 0 or not cycle.more_body:
            return None
        if cycle.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        has_plain_bytes = self.scheme == "http" and not is_gone
        socket = self.transport.get_extra_info("socket") if has_plain_bytes else None
        first, cycle.body = bytes(cycle.body), bytearray()
        made = Straight(
            self, self._go_on, self.flow, socket, first=first, left=self._left, is_gone=is_gone
        )
        self.flow.pause_reading()
        self.transport.set_protocol(made)
        return made

    def _go_on(self) -> None:
        """The body is whole: what follows is a request, for a parser that has not seen this one."""
        self._left = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.transport.set_protocol(self)
        self.on_message_complete()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        self._stop_waiting()
        if self.cycle.response_complete:
            # Nothing more is written that would show whether it goes on.
            self._wait_for_reader()

    def on_response_complete(self) -> None:
        """All of an answer was handed on; the client may not have read it."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size() and self._unread_timer is None:
            self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        self._stop_waiting()
        self._asked_then = self._asked
        self._unread_timer = self.loop.call_later(_UNREAD_S, self._unread)

    def _unread(self) -> None:
        self._unread_timer = None
        if not self.transport.get_write_buffer_size():
            return
        if self._asked > self._asked_then and not self.flow.write_paused:
            # It reads, and asks for more.
            self._wait_for_reader()
        else:
            # To close it would wait for what is unread.
            self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._stop()
        self._stop_waiting()
        super().connection_lost(exc)


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    """How long a body is that may be read past the parser; 0 if none may."""
    lines = dict(headers)
    if b"transfer-encoding" in lines or b"upgrade" in lines:
        return 0
    return int(lines.get(b"content-length", b"0"))


class _ToTheEnd:
    """Sends to a client of HTTP/1.0, which knows no chunks: an answer whose length is unknown ends with its connection."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._is_open = False

    async def __call__(self, message: ASGISendEvent) -> None:
        """As `RequestResponseCycle.send`."""
        if message["type"] == "http.response.start":
            names = [name.lower() for name, _ in message.get("headers", [])]
            self._is_open = b"content-length" not in names
            if self._is_open:
                self._cycle.chunked_encoding = False
        elif message["type"] == "http.response.body" and self._is_open:
            self._cycle.expected_content_length = len(message.get("body", b""))
        await RequestResponseCycle.send(self._cycle, message)
