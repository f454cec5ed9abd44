"""What signals ask the main loop to do, and what wakes it."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["Asked"]


class Asked:
    """What signals ask the main loop to do, and what wakes it."""

    def __init__(self) -> None:
        #: The name of the signal that asks it to end.
        self.end: str | None = None
        self.reload = False
        self.wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wake(self) -> None:
        """Let the main loop look at once; any thread may call this."""
        self.wakeups.put(None)

    def sleep(self, seconds: float) -> None:
        """Wait this long, or until something wakes the main loop."""
        try:
            self.wakeups.get(timeout=max(0.001, seconds))
        except queue.Empty:
            return

    def forget_wakeups(self) -> None:
        """Everything that was to be looked at has been looked at."""
        with suppress(queue.Empty):
            while True:
                self.wakeups.get_nowait()

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last call."""
        asked, self.reload = self.reload, False
        return asked

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Heed SIGTERM, SIGINT and SIGHUP."""

        def end(number: int, _frame: object) -> None:
            # No lock may be taken here: the thread that it interrupts may hold it.
            self.end = signal.Signals(number).name
            self.wake()

        def again(_number: int, _frame: object) -> None:
            self.reload = True
            self.wake()

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, again)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
