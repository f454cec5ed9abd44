"""Looks into files that nothing vouches for, from the daemon's own process: none may end it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeVar

import structlog

from cytowatch.formats import Probe
from cytowatch.record import names

__all__ = ["of_nothing", "safely"]

T = TypeVar("T")


def safely(function: Callable[[Probe], T], probe: Probe, otherwise: Callable[[], T]) -> T:
    """What `function` returns for `probe`; if it fails on the bytes, what `otherwise` returns.

    A stumble is a defect of our own and is reported as one, and the file goes on to a process of its own,
    where anything that is wrong with it costs one error.

    Raises
    ------
    OSError
        A fault of the machine.
    """
    try:
        return function(probe)
    except OSError as error:
        # An offset that no file can have, which bytes of the file said.
        if error.errno != errno.EINVAL:
            raise
        told: BaseException = error
    except Exception as error:  # noqa: BLE001 - no matter what a hostile file makes our parsers do
        told = error
    structlog.get_logger().error(
        "unexpected",
        id=names.printable(probe.name),
        error=f"{type(told).__name__}: {told}"[:500],
        report=None,
    )
    return otherwise()


def of_nothing(function: Callable[[Probe], T]) -> T:
    """What `function` returns for an empty file."""
    descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return function(Probe(descriptor))
    finally:
        os.close(descriptor)
