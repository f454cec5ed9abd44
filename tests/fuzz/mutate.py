"""Files as they are, cut at twenty places, and with random bits turned: all from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["CUTS", "FLIPS", "mutations"]

CUTS = 20
FLIPS = 200


def mutations(data: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, the bytes): whole, cut at `CUTS` places, and `FLIPS` with one to eight bits turned."""
    dice = random.Random(seed)
    yield "whole", data
    for number in range(CUTS):
        yield f"cut{number}", data[: len(data) * (number + 1) // (CUTS + 1)]
    for number in range(FLIPS):
        turned = bytearray(data)
        for _ in range(dice.randint(1, 8)):
            bit = dice.randrange(8 * len(data))
            turned[bit // 8] ^= 1 << bit % 8
        yield f"flip{number}", bytes(turned)
