"""What a format is to cytowatch, and how a file is probed: by its bytes, never by its name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

from cytowatch.formats.doubles import is_whole_slide
from cytowatch.formats.structure.places import pread
from cytowatch.formats.structure.tiff import Tiff, TiffError
from cytowatch.record.status import Status

__all__ = ["Format", "Probe"]

_HEAD_BYTES = 4096


class Probe:
    """One look at a file through a descriptor: its head, and its TIFF structure if it is one.

    Parameters
    ----------
    name
        What it is called on disk: never a reason for a format, but companions have its stem.
    beside
        The files of its folder and of the folders in it, relative to that folder.
    path
        Where OpenSlide may open it; None where nothing is to be decoded.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        name: str = "",
        beside: frozenset[str] = frozenset(),
        path: str | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.name = name
        self.beside = beside
        self.path = path
        self.size_bytes = os.fstat(descriptor).st_size

    @functools.cached_property
    def head(self) -> bytes:
        """The first 4096 bytes."""
        return pread(self.descriptor, _HEAD_BYTES, 0)

    @functools.cached_property
    def tiff(self) -> Tiff | None:
        """The TIFF structure, or None if it is not a TIFF, one that cannot be read, or DICOM as well."""
        if is_whole_slide(self.head):
            return None
        try:
            return Tiff(self.descriptor, self.size_bytes)
        except TiffError:
            return None

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return os.path.splitext(self.name)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One row of the table of supported formats.

    `matches` returns the evidence, as a phrase, or None. `native` says that the file is deployed
    as it is; `extract` that it is an archive. `oddities` and `source` are for docs/formats.md.

    Everything that is special to a format stands in its row, so that no stage names a format.
    `else_derived` says that a pyramid is derived where OpenSlide does not show all of it, and
    `often_derived` that this is usual and not worth a warning. Of one that `decides_colours` OpenSlide
    decodes the JPEG itself, and not as its tags say. A native one has at least `least_levels`. `needs` is the module without which it cannot be read here. `refuses` gives
    (reason, detail) of a file that is of this format and not supported, or None.
    """

    id: str
    name: str
    samples: str
    marker: str
    treated: str
    reader: str
    extension: str
    oddities: str
    source: str
    matches: Callable[[Probe], str | None]
    native: bool = False
    extract: bool = False
    else_derived: bool = False
    often_derived: bool = False
    decides_colours: bool = False
    least_levels: int = 1
    needs: str | None = None
    refuses: Callable[[Probe], tuple[str, str] | None] = lambda _probe: None

    @property
    def ends(self) -> frozenset[Status]:
        """The statuses that an uploaded file of this format can end in."""
        errors = {Status.ERROR_FORMAT, Status.ERROR_DEPLOYMENT}
        if self.extract:
            return frozenset({*errors, Status.EXTRACTED, Status.ERROR_EXTRACTION})
        if self.treated == "native":
            return frozenset({*errors, Status.DEPLOYED})
        return frozenset({*errors, Status.DEPLOYED, Status.CONVERTED, Status.ERROR_CONVERSION})
