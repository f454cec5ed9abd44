"""When a decoder process that is killed can do nothing any more, and when it is gone."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Doomed"]

#: How often its threads are looked at: at first at once, as they are ready within a fraction of a millisecond.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.0001, 0.02
_LEAST_POLL_S = 0.002
#: It is waited for this long even when we are asked to give up.
_LEAST_WAIT_S = 5.0
#: PF_EXITING of linux/sched.h, in field 9 of ``/proc/[pid]/stat``.
_EXITING = 0x4


class Doomed:
    """Guards the end of one process: it is named by a descriptor, which no later process can have.

    Its number stays its own until its parent has waited for it, which only happens when we ask for that.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor: int | None = None
        # A kernel before 5.3 does not have it; then the parent waits.
        with suppress(OSError):
            self._descriptor = os.pidfd_open(pid)

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def kill(self) -> None:
        """Kill it with its group."""
        if self._descriptor is None:
            return
        # Before it has made its own group, the group's kill finds nobody.
        with suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        with suppress(OSError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait_still(self, give_up: Callable[[], bool]) -> bool:
        """Whether it can do nothing any more, once it is killed: waits for that, until `give_up`.

        A process whose memory the kernel is taking back, which takes some milliseconds, is as good as gone.
        """
        return self._wait(self._is_still, give_up, first_s=_FIRST_LOOK_S)

    def wait_gone(self, give_up: Callable[[], bool]) -> bool:
        """Whether it is gone, once it is killed: waits for that, until `give_up`."""
        return self._wait(lambda: False, give_up, first_s=_LAST_LOOK_S)

    def _wait(
        self, found: Callable[[], bool], give_up: Callable[[], bool], *, first_s: float
    ) -> bool:
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        pause_s, began = first_s, time.monotonic()
        # Ends when the kernel has killed it, which nothing but a fault of the disk can hold up.
        while not poll.poll(0):
            if found():
                return True
            if time.monotonic() - began > _LEAST_WAIT_S and give_up():
                return False
            # A poll waits for a whole millisecond at least.
            if pause_s < _LEAST_POLL_S:
                time.sleep(pause_s)
            else:
                poll.poll(1000 * pause_s)
            pause_s = min(1.5 * pause_s, _LAST_LOOK_S)
        return True

    def _is_still(self) -> bool:
        """Whether each of its threads has given back its memory, on its way out.

        From then on none runs a program or a system call, and none writes to memory, as the kernel does for a
        thread that ends (robust futexes, CLONE_CHILD_CLEARTID). Source: kernel/exit.c, do_exit and exit_mm;
        proc(5): fields 9 (flags) and 23 (vsize), which is 0 without memory.
        """
        folder = f"/proc/{self._pid}/task"
        seen = 0
        try:
            # None can be added to a process that is killed; one that ends meanwhile may hide another one from the
            # list, so they are counted before it is read.
            count = os.stat(folder).st_nlink - 2
            for thread in os.listdir(folder):
                with open(f"{folder}/{thread}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                if not int(fields[6]) & _EXITING or fields[20] != b"0":
                    return False
                seen += 1
        except OSError:
            # It is gone, or /proc is hidden from us: the next look at its descriptor says which.
            return False
        return seen == count
