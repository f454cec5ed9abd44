"""When a killed decoder process can no longer do anything, and when it is gone."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Doomed"]

#: How often its threads are checked: at first without a pause, because they end within a fraction of a millisecond.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.0001, 0.02
_LEAST_POLL_S = 0.002
#: The wait lasts at least this long, even when we are asked to give up.
_LEAST_WAIT_S = 5.0
#: PF_EXITING of linux/sched.h, in field 9 of ``/proc/[pid]/stat``.
_EXITING = 0x4


class Doomed:
    """Guards the end of one process: a descriptor names it, which no later process can have.

    Its process id stays its own until its parent has waited for it, which only happens when we ask for it.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor: int | None = None
        # Kernels before 5.3 lack it; then the parent waits.
        with suppress(OSError):
            self._descriptor = os.pidfd_open(pid)

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def kill(self) -> None:
        """Kill it with its group."""
        if self._descriptor is None:
            return
        # Until it has made its own group, killing the group reaches nothing.
        with suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        with suppress(OSError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait_still(self, give_up: Callable[[], bool]) -> bool:
        """Wait until a killed process can no longer do anything, or until `give_up`; return whether it is so.

        A process whose memory the kernel is freeing, which takes some milliseconds, is as good as gone.
        """
        return self._wait(self._is_still, give_up, first_s=_FIRST_LOOK_S)

    def wait_gone(self, give_up: Callable[[], bool]) -> bool:
        """Wait until a killed process is gone, or until `give_up`; return whether it is."""
        return self._wait(lambda: False, give_up, first_s=_LAST_LOOK_S)

    def _wait(
        self, found: Callable[[], bool], give_up: Callable[[], bool], *, first_s: float
    ) -> bool:
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        pause_s, began = first_s, time.monotonic()
        # Ends when the kernel has killed it; only a fault of the disk can delay that.
        while not poll.poll(0):
            if found():
                return True
            if time.monotonic() - began > _LEAST_WAIT_S and give_up():
                return False
            # A poll waits for at least a whole millisecond.
            if pause_s < _LEAST_POLL_S:
                time.sleep(pause_s)
            else:
                poll.poll(1000 * pause_s)
            pause_s = min(1.5 * pause_s, _LAST_LOOK_S)
        return True

    def _is_still(self) -> bool:
        """Whether each of its threads is ending and has released its memory.

        After that, no thread runs code or system calls, and the kernel no longer writes to memory on its behalf
        (robust futexes, CLONE_CHILD_CLEARTID). Source: kernel/exit.c, do_exit and exit_mm;
        proc(5): fields 9 (flags) and 23 (vsize), which is 0 without memory.
        """
        folder = f"/proc/{self._pid}/task"
        seen = 0
        try:
            # A killed process gets no new threads. One that ends meanwhile may hide another one from the
            # list, so they are counted before the list is read.
            count = os.stat(folder).st_nlink - 2
            for thread in os.listdir(folder):
                with open(f"{folder}/{thread}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                if not int(fields[6]) & _EXITING or fields[20] != b"0":
                    return False
                seen += 1
        except OSError:
            # It is gone, or /proc is hidden from us; its descriptor shows which at the next check.
            return False
        return seen == count
