"""Three planes that are the red, green and blue of one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.pages import Page

__all__ = ["Merged", "of_planes"]


class Merged:
    """Three planes of one size as the red, green and blue of one picture."""

    def __init__(self, planes: Sequence[Page]) -> None:
        self._planes = planes
        first = planes[0]
        self.width, self.height, self.samples = first.width, first.height, 3
        self.dtype = first.dtype
        self.block_rows = first.block_rows
        absent = [line for plane in planes for line in plane.absent]
        self.done = ("its three channels are one RGB picture", *dict.fromkeys(absent))

    def rows(self, top: int, bottom: int) -> Pixels:
        found = np.empty((bottom - top, self.width, 3), self.dtype)
        for sample, plane in enumerate(self._planes):
            found[:, :, sample] = plane.rows(top, bottom)[:, :, 0]
        return found


def of_planes(planes: Sequence[Page]) -> Merged | None:
    """The `planes` as one picture; None if they are not three of one kind."""
    like = {(one.width, one.height, one.samples, one.dtype, one.cmyk) for one in planes}
    return Merged(planes) if len(planes) == 3 and len(like) == 1 else None
