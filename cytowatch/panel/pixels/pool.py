"""The panel's side of the decoder processes: one for each open slide, a bounded number of them.

A decoder that crashes, hangs or talks nonsense costs the one picture that it was asked for: the next
question forks another. One that has not been asked for a minute is ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cytowatch import outside
from cytowatch.config import Config
from cytowatch.decoder import wire
from cytowatch.decoder.forks import Zygote
from cytowatch.panel.pixels import answers, jpegs
from cytowatch.panel.pixels.crashes import Crashes
from cytowatch.record.errors import TransientError

__all__ = ["BusyError", "DecoderError", "Pool"]

_MODULE = "cytowatch.panel.pixels.decoder"
_IDLE_S = 60.0
_SWEEP_S = 5.0
#: A tile takes milliseconds; a whole slide in one picture may take seconds.
_ANSWER_S = 20.0
#: How long a question waits for its turn before it is asked to come again.
_TURN_S = 10.0
_MOST_WAITING = 256
_MOMENT_S = 0.5
_LARGEST_ANSWER = 64 << 20
_MEMORY_BYTES = 2 << 30
#: A person waits for it: before conversions, whose decoders step back twice as far, and behind all else.
_NICE = 5


class DecoderError(Exception):
    """The picture cannot be made; the message is for the log."""


class BusyError(Exception):
    """Too much is asked for at once; it may be asked again in a moment."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Decoder:
    """One process; anyone who holds `turn` may talk to it."""

    channel: socket.socket
    pid: int
    used_at: float
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    #: Whether it has answered yet. Until then it is kept a moment for anyone who it was started for.
    asked: bool = False


class Pool:
    """Guards the decoders: never more than `most`, never two for one slide, none idle for long.

    All its methods run in one event loop. The zygote is started when the first picture is asked for,
    by a thread of the pool's own: the kernel ends it, and with it all decoders, when that thread ends.
    """

    def __init__(
        self,
        config: Config,
        *,
        most: int = answers.MOST_DECODERS,
        idle_s: float = _IDLE_S,
        answer_s: float = _ANSWER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        engine = dataclasses.replace(config.engine, threads_per_worker=1)
        memory = min(config.sandbox.memory_bytes, _MEMORY_BYTES)
        sandbox = dataclasses.replace(config.sandbox, memory_bytes=memory)
        self._config = dataclasses.replace(config, engine=engine, sandbox=sandbox)
        self._most, self._idle_s, self._answer_s, self._clock = most, idle_s, answer_s, clock
        self._keeper = ThreadPoolExecutor(1, "zygote")
        self._zygote: Zygote | None = None
        self._decoders: dict[str, _Decoder] = {}
        self._opening: dict[str, asyncio.Task[_Decoder]] = {}
        self._waiting = 0
        #: Those that are being forked have their place already.
        self._forking = 0
        self._freed = asyncio.Condition()
        self._crashes = Crashes(clock)
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def crashed(self) -> int:
        """How many were ended by a crash, a hang or nonsense."""
        return self._crashes.count

    @property
    def pids(self) -> dict[str, int]:
        """The process of each open slide, by its key."""
        return {key: one.pid for key, one in self._decoders.items()}

    async def ask(self, key: str, directory: Path, question: dict[str, Any]) -> bytes:
        """The answer of the decoder for the slide `key`, which lies in `directory`: its kind and its body.

        Raises
        ------
        DecoderError
            It cannot draw that, it crashed, or no decoder can be started.
        BusyError
            Too many questions wait.
        """
        if self._crashes.many(key):
            raise DecoderError("its decoder crashed again and again; it is left alone for a while")
        if self._waiting >= _MOST_WAITING:
            raise BusyError
        self._waiting += 1
        try:
            async with asyncio.timeout(_TURN_S):
                one = await self._turn(key, directory)
        except TimeoutError:
            raise BusyError from None
        finally:
            self._waiting -= 1
        try:
            answer = await self._exchange(key, one, question)
        finally:
            one.used_at = self._clock()
            one.asked = True
            one.turn.release()
            await self._tell()
        if answer[:1] == answers.ERROR:
            raise DecoderError(outside.text(answer[1:].decode("utf-8", "replace"), most=300))
        return answer

    async def picture(
        self,
        key: str,
        directory: Path,
        question: dict[str, Any],
        *,
        samples: tuple[int, ...] = (1, 3),
    ) -> bytes:
        """The JPEG that a question with a box is answered with. As `ask`."""
        answer = await self.ask(key, directory, question)
        body = answer[1:]
        width, height = question["size"]
        for count in samples:
            like = jpegs.Like(width=width, height=height, samples=count, photometric=jpegs.GREY)
            with suppress(jpegs.NotPlainError):
                jpegs.standing(body, b"", like)
                return body
        # What a decoder says is believed no more than what a slide says.
        self._end(key)
        self._crashes.note(key)
        raise DecoderError("its decoder answered with something else than the picture asked for")

    async def window(
        self, key: str, directory: Path, question: dict[str, Any]
    ) -> tuple[float, float]:
        """(low, high): the samples that are shown as black and white by default. As `ask`."""
        answer = await self.ask(key, directory, question)
        try:
            found = outside.parse_json(answer[1:])
            low, high = (
                outside.number(found[one], least=-1e12, most=1e12) for one in ("low", "high")
            )
        except (outside.OutsideError, KeyError, TypeError):
            self._end(key)
            self._crashes.note(key)
            raise DecoderError("its decoder answered with something else than a window") from None
        return low, max(high, low + 1e-6)

    async def close(self) -> None:
        """End all decoders and the zygote."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for task in list(self._opening.values()):
            task.cancel()
        for one in self._decoders.values():
            one.channel.close()
        self._decoders.clear()
        if self._zygote is not None:
            await self._kept(self._zygote.stop)
            self._zygote = None
        self._keeper.shutdown(wait=False)

    async def _turn(self, key: str, directory: Path) -> _Decoder:
        """The decoder for `key`, whose turn the caller holds; started if need be."""
        while True:
            one = self._decoders.get(key) or await self._opened(key, directory)
            one.waiting += 1
            try:
                await one.turn.acquire()
            finally:
                one.waiting -= 1
            if self._decoders.get(key) is one:
                return one
            # It was ended while this one waited.
            one.turn.release()

    async def _opened(self, key: str, directory: Path) -> _Decoder:
        """Start a decoder for `key`, once however many ask for it."""
        task = self._opening.get(key)
        if task is None:
            task = asyncio.create_task(self._open(key, directory))
            self._opening[key] = task
            task.add_done_callback(lambda _: self._opening.pop(key, None))
        # Anyone who gives up waiting leaves it to the others.
        return await asyncio.shield(task)

    async def _open(self, key: str, directory: Path) -> _Decoder:
        await self._room()
        try:
            channel, pid = await self._kept(lambda: self._fork(directory))
        except (TransientError, OSError) as error:
            raise DecoderError(f"no decoder can be started: {error}") from error
        finally:
            self._forking -= 1
        channel.setblocking(False)
        one = _Decoder(channel=channel, pid=pid, used_at=self._clock())
        self._decoders[key] = one
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())
        return one

    def _fork(self, directory: Path) -> tuple[socket.socket, int]:
        if self._zygote is None:
            made = Zygote(self._config, stages=_MODULE)
            made.start()
            self._zygote = made
        self._zygote.ensure_alive()
        channel, pid, _ = self._zygote.process(directory, "", nice=_NICE)
        return channel, pid

    async def _room(self) -> None:
        """Wait for a place among the decoders and take it; the one asked longest ago makes room."""
        async with self._freed:
            while len(self._decoders) + self._forking >= self._most:
                free = [key for key, one in self._decoders.items() if self._is_free(one)]
                if free:
                    self._end(min(free, key=lambda key: self._decoders[key].used_at))
                    break
                # Nothing reports when a moment has passed.
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._freed.wait(), _MOMENT_S)
            self._forking += 1

    async def _tell(self) -> None:
        async with self._freed:
            self._freed.notify_all()

    async def _exchange(self, key: str, one: _Decoder, question: dict[str, Any]) -> bytes:
        loop = asyncio.get_running_loop()
        data = json.dumps(question).encode()
        try:
            async with asyncio.timeout(self._answer_s):
                await loop.sock_sendall(one.channel, struct.pack("<I", len(data)) + data)
                [length] = struct.unpack("<I", await _exactly(one.channel, 4))
                if not 0 < length <= _LARGEST_ANSWER:
                    raise wire.ProtocolError(f"an answer of {length:,} bytes")
                return await _exactly(one.channel, length)
        except asyncio.CancelledError:
            # Its answer would be taken for the next one's.
            self._end(key)
            raise
        except (TimeoutError, OSError, wire.ProtocolError) as error:
            said = "it gave no answer in time" if isinstance(error, TimeoutError) else str(error)
            status = await self._buried(key, one)
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            self._crashes.note(key)
            raise DecoderError(f"its decoder was ended: {said} (signal {number})") from None

    async def _buried(self, key: str, one: _Decoder) -> int:
        """End a decoder that did not answer; gives its wait status."""
        if self._decoders.get(key) is one:
            del self._decoders[key]
        one.channel.close()
        zygote = self._zygote
        return 0 if zygote is None else int(await self._kept(lambda: zygote.reap(one.pid)))

    def _end(self, key: str) -> None:
        """End a decoder that has nothing to do; its end is not waited for."""
        one = self._decoders.pop(key, None)
        if one is None:
            return
        one.channel.close()
        if self._zygote is not None:
            self._keeper.submit(self._zygote.bury, one.pid)

    async def _sweep(self) -> None:
        """End what is idle, now and then."""
        while True:
            await asyncio.sleep(min(_SWEEP_S, self._idle_s))
            before = self._clock() - self._idle_s
            for key, one in list(self._decoders.items()):
                if one.used_at <= before and self._is_free(one):
                    self._end(key)

    def _is_free(self, one: _Decoder) -> bool:
        held = not one.asked and self._clock() - one.used_at < _MOMENT_S
        return not (held or one.waiting or one.turn.locked())

    async def _kept(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._keeper, call)


async def _exactly(channel: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    parts = bytearray()
    while len(parts) < count:
        part = await loop.sock_recv(channel, min(count - len(parts), 1 << 20))
        if not part:
            raise wire.ProtocolError("it is gone")
        parts += part
    return bytes(parts)
