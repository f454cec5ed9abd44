"""Decoded pixels: their type, and what is done with many of them at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

__all__ = ["Pixels", "each", "swapped"]

#: (rows, columns, samples), or (rows, columns) for one sample.
Pixels = np.ndarray[Any, Any]

#: From this many bytes of pixels on, tiles are decoded in threads: smaller ones are hardly ever decoded ahead.
_IN_THREADS_BYTES = 128 << 20

_SHARES_OF_A_THREAD = 4


def each(do: Callable[[int], None], numbers: range, *, out_bytes: int) -> None:
    """Do it with each of the tiles `numbers`, which fill `out_bytes` of pixels; in threads if those are many."""

    def some(share: range) -> None:
        for number in share:
            do(number)

    if out_bytes < _IN_THREADS_BYTES:
        return some(numbers)
    cores = len(os.sched_getaffinity(0))
    shares = cores * _SHARES_OF_A_THREAD
    with ThreadPoolExecutor(cores, "tiles") as pool:
        for _ in pool.map(some, (numbers[first::shares] for first in range(shares))):
            pass
    return None


def swapped(pixels: Pixels) -> Pixels:
    """BGR as RGB, or the other way round: (rows, columns, 3), a copy.

    One sample after the other, because numpy's inner loop is then as long as a row: `[:, :, ::-1]` lets
    the next copy go pixel by pixel, and takes six times as long.
    """
    found = np.empty(pixels.shape, pixels.dtype)
    for sample in range(3):
        found[:, :, sample] = pixels[:, :, 2 - sample]
    return found
