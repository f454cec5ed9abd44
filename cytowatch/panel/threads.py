"""Threads for what may take long: pages have threads of their own, and never wait for it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio import to_thread

__all__ = ["asking", "comparing", "to_its_end", "writing"]

#: More at a time would wait for the same disk.
_WRITING = anyio.CapacityLimiter(24)
#: A hash of a large file takes minutes; uploads that need none do not wait for it.
_COMPARING = anyio.CapacityLimiter(2)
#: The daemon, or the server of the share, may take its time to answer.
_ASKING = anyio.CapacityLimiter(12)

Given = ParamSpec("Given")
Found = TypeVar("Found")


async def writing(call: Callable[Given, Found], *args: Given.args, **more: Given.kwargs) -> Found:
    """`call` in a thread, for what waits for the disk."""
    return await to_thread.run_sync(functools.partial(call, *args, **more), limiter=_WRITING)


async def comparing(call: Callable[Given, Found], *args: Given.args, **more: Given.kwargs) -> Found:
    """`call` in a thread, for what reads a whole file."""
    return await to_thread.run_sync(functools.partial(call, *args, **more), limiter=_COMPARING)


async def asking(call: Callable[Given, Found], *args: Given.args, **more: Given.kwargs) -> Found:
    """`call` in a thread, for what waits for another server."""
    return await to_thread.run_sync(functools.partial(call, *args, **more), limiter=_ASKING)


async def to_its_end(call: Coroutine[Any, Any, Found]) -> Found:
    """`call`, which ends before this does, even if who waits for it is cancelled meanwhile."""
    under_way = asyncio.create_task(call)
    try:
        return await asyncio.shield(under_way)
    except asyncio.CancelledError:
        await asyncio.wait([under_way])
        raise
