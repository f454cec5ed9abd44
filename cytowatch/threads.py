"""Threads that are there when they are needed, and go on no matter what one piece of their work raises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from cytowatch import aside

__all__ = ["forever", "pool"]

_PAUSE_S = 1.0


def pool(count: int, name: str) -> ThreadPoolExecutor:
    """A pool of `count` threads that all run from the start: later the machine may have none left.

    A pool that cannot start a thread when it needs one keeps the work, and nothing does it.

    Raises
    ------
    RuntimeError
        The machine has no threads left.
    """
    made = ThreadPoolExecutor(count, thread_name_prefix=name)
    all_run = threading.Barrier(count)
    try:
        begun = [made.submit(all_run.wait) for _ in range(count)]
    except RuntimeError:
        all_run.abort()
        made.shutdown(wait=False, cancel_futures=True)
        raise
    wait(begun)
    return made


def forever(name: str, work: Callable[[], None], stop: threading.Event) -> None:
    """Do `work` until it returns by itself; when it raises, it begins again after a pause.

    It is then set aside as the part `name`.
    """
    while not stop.is_set():
        with aside.fence("part", name):
            work()
            return
        stop.wait(_PAUSE_S)
