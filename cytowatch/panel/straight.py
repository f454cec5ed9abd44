"""The rest of a body, read from its socket into a buffer and used from there: no parser sees it, and nothing copies it."""

from __future__ import annotations

import asyncio
import mmap
import os
import select
import time
from asyncio.trsock import TransportSocket
from collections.abc import AsyncGenerator, Callable, Sequence

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.flow_control import FlowControl

from cytowatch.panel.threads import to_its_end, writing

__all__ = ["BLOCK_BYTES", "STATE", "Straight", "Use"]

#: What files and memory are divided into: a page.
BLOCK_BYTES = 4096
#: How many bytes are collected before a thread uses them.
_PIECE_BYTES = 1 << 20
#: How many a thread uses before others have their turn, and how long it waits for all of them together.
_TURN_BYTES = 16 << 20
_TURN_WAITS_S = 0.02
#: What is read at a time of a body whose request was answered before its end.
_REST_BYTES = 64 << 10
#: Under this key the state of a request has a function that takes the body out of the parser's hands: it
#: gives a `Straight`, or None if only the parser can go on.
STATE = "straight"

#: What is done with the bytes, in a thread.
Use = Callable[[Sequence[bytes | memoryview]], None]


class Straight(asyncio.BufferedProtocol):
    """Guards that just the announced bytes are taken from a connection, and no faster than they are used.

    It is the protocol of a connection from somewhere in a body to the body's end; then the connection's own one goes
    on, with the bytes behind the body. The event loop waits for the client and collects a piece. A thread uses that,
    and then what comes at once behind it. So a fast client costs the loop next to nothing, and a slow one no thread.

    Memory bound
    ------------
    One buffer of `_PIECE_BYTES` for each body. `turns` upholds it: nothing is read into the buffer before all that is
    in it was used. A page of it that no byte has reached takes no memory, so many clients with few bytes take little.
    """

    def __init__(
        self,
        behind: asyncio.Protocol,
        end: Callable[[], None],
        flow: FlowControl,
        socket: TransportSocket | None,
        *,
        first: bytes,
        left: int,
        is_gone: bool,
    ) -> None:
        """Take the place of the protocol `behind`.

        Parameters
        ----------
        end
            Called with the last byte: it puts the other protocol back.
        socket
            Where threads may read; None where bytes must be decrypted first.
        first
            What the parser has passed on of the body; `left` bytes are still to come, unless the client `is_gone`.
        """
        self._behind = behind
        self._end = end
        self._flow = flow
        self._socket = socket
        self._first = first
        self._left = left
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        #: Where the bytes go: `_filled` of them are in the buffer, from `_begin` on.
        self._buffer = memoryview(mmap.mmap(-1, min(_PIECE_BYTES, left + BLOCK_BYTES)))
        self._begin = self._filled = 0
        #: The place of the next piece in its file; None if it does not matter.
        self._at: int | None = None
        self._came = 0.0
        self._is_gone = is_gone
        self._is_given_up = False

    # What the event loop calls

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for the next bytes, and never for one behind the body."""
        if self._is_given_up:
            self._filled = 0
        return self._room()

    def _room(self) -> memoryview:
        begin = self._begin + self._filled
        return self._buffer[begin : begin + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._filled += nbytes
        self._left -= nbytes
        self._came = self._loop.time()
        if self._is_given_up:
            if not self._left:
                self._end()
        elif not self._room():
            self._flow.pause_reading()
            self._changed.set()

    def eof_received(self) -> None:
        """The client sends nothing more."""
        self._behind.eof_received()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        self._behind.pause_writing()

    def resume_writing(self) -> None:
        """The client has read on."""
        self._behind.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._is_gone = True
        self._changed.set()
        self._behind.connection_lost(exc)

    # What the request calls

    async def turns(
        self, use: Use, patience_s: float, *, pieces: bool, at: int | None = None
    ) -> AsyncGenerator[int]:
        """Have threads use the body; after each of their turns, how many bytes that were.

        Bytes that arrived are used before an interruption is raised. If it is closed before the end, the rest of
        the body is thrown away as it comes, until the connection is closed for having no further request.

        Parameters
        ----------
        pieces
            A turn is one piece, because its user has to wait after each.
        at
            The place of the body in the file that it is written to. Pieces are then filled as far as bytes come at
            once, and begin at the same place in a block of `BLOCK_BYTES` as in that file.

        Raises
        ------
        ClientDisconnect
            The client has gone.
        TimeoutError
            It sent nothing for `patience_s`.
        """
        # A descriptor of its own: the connection may end during a turn, and the other one be somebody else's then.
        socket = None if pieces or self._socket is None else os.dup(self._socket.fileno())
        if at is not None:
            self._place(at + len(self._first))
        try:
            while self._left:
                broken = await self._fill(patience_s)
                yield await to_its_end(writing(self._turn, use, socket))
                if broken is not None and self._left:
                    raise broken
            if not self._is_gone:
                self._end()
        finally:
            if socket is not None:
                os.close(socket)
            if self._left:
                self._is_given_up = True
                self._buffer, self._begin = memoryview(bytearray(_REST_BYTES)), 0
                # The answer comes first.
                self._flow.pause_reading()

    def _turn(self, use: Use, socket: int | None) -> int:
        """Use what is here, and go on from `socket` while bytes come; nothing else reads meanwhile."""
        first, self._first = self._first, b""
        used = len(first) + self._filled
        use([one for one in (first, self._taken()) if one])
        if socket is not None:
            waiting = _Waiting(socket, _TURN_WAITS_S)
            while self._left and used < _TURN_BYTES:
                while self._read(socket, waiting) and self._at is not None:
                    pass
                if not self._filled:
                    break
                used += self._filled
                use([self._taken()])
        return used

    def _taken(self) -> memoryview:
        """What is in the buffer, which may be used until more is read into it."""
        piece = self._buffer[self._begin : self._begin + self._filled]
        if self._at is not None:
            self._place(self._at + self._filled)
        self._filled = 0
        return piece

    def _place(self, at: int) -> None:
        self._at = at
        self._begin = at % BLOCK_BYTES

    def _read(self, socket: int, waiting: _Waiting) -> int:
        """Read into the buffer what comes at once; 0 if nothing does, or there is no room."""
        while room := self._room():
            try:
                size = os.readv(socket, [room])
            except BlockingIOError:
                if not waiting.is_over():
                    continue
                break
            except OSError:
                # The event loop notices that the client has gone.
                break
            self._filled += size
            self._left -= size
            return size
        return 0

    async def _fill(self, patience_s: float) -> Exception | None:
        """Wait until the piece is full or the body whole; gives what came between."""
        self._came = self._loop.time()
        self._flow.resume_reading()
        while self._room():
            if self._is_gone:
                return ClientDisconnect()
            self._changed.clear()
            try:
                async with asyncio.timeout_at(self._came + patience_s):
                    await self._changed.wait()
            except TimeoutError as error:
                if self._came + patience_s <= self._loop.time():
                    self._flow.pause_reading()
                    return error
        return None


class _Waiting:
    """Guards that a thread waits for a client only for moments, and for no more than `most_s` of them."""

    def __init__(self, socket: int, most_s: float) -> None:
        self._poll = select.poll()
        self._poll.register(socket, select.POLLIN)
        self._left_s = most_s

    def is_over(self) -> bool:
        """Wait for bytes; whether it was in vain."""
        began = time.monotonic()
        came = self._left_s > 0 and self._poll.poll(self._left_s * 1000)
        self._left_s -= time.monotonic() - began
        return not came
