"""How a decoder process may end without an answer."""

from __future__ import annotations

import os
import signal

from cytowatch.record.errors import CytowatchError

__all__ = ["DecoderCrashed", "Stopped", "signal_name"]


class DecoderCrashed(CytowatchError):
    """The decoder process ended without an answer; `signal` names what killed it, if anything did."""

    def __init__(self, status: int) -> None:
        self.wait_status = status
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self.signal = signal_name(number) if number else None
        self.exit_code = os.WEXITSTATUS(status) if number is None else None
        super().__init__(self.signal or f"exit code {self.exit_code}")


def signal_name(number: int) -> str:
    """A name such as SIGSEGV; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


class Stopped(CytowatchError):
    """The daemon stops; the stage was interrupted."""
