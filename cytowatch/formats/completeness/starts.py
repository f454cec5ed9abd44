"""How each tile of a native slide must begin, where its directory places it.

OpenSlide opens a slide whose tiles are zeros or junk, and refuses each tile when a viewer asks for it.
So the first bytes of every tile of every level are looked at while the slide is hashed.

Source: ITU-T T.81, table B.1; ISO/IEC 15444-1, table A.2; RFC 1950; https://openslide.org/formats/
"""

from __future__ import annotations

import itertools
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cytowatch.formats.completeness.parts import Packing, packing_of
from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError

__all__ = ["Starts", "Wrong", "of_tiff"]

_MCU_STARTS = 65426
#: How many bytes a mark has.
_MARK_BYTES = 2


def _is_jpeg(mark: bytes) -> bool:
    return mark == b"\xff\xd8"


def _is_restart(mark: bytes) -> bool:
    # Where another byte stands OpenSlide looks for the restarts itself.
    return any(mark)


def _is_codestream(mark: bytes) -> bool:
    return mark == b"\xff\x4f"


def _is_zlib(mark: bytes) -> bool:
    return mark[0] & 15 == 8 and int.from_bytes(mark, "big") % 31 == 0


_BEGINNINGS: dict[Packing, tuple[Callable[[bytes], bool], str]] = {
    Packing.JPEG: (_is_jpeg, "JPEG"),
    Packing.JPEG_2000: (_is_codestream, "JPEG 2000"),
    Packing.ZLIB: (_is_zlib, "deflate"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """The first tile that does not begin as it must, as a phrase; with `zeros` it never came."""

    what: str
    zeros: bool


@dataclass(slots=True)
class _Row:
    """The places of the tiles of one directory, ascending, and how each must begin."""

    places: array[int]
    right: Callable[[bytes], bool]
    name: str
    directory: int


@dataclass(slots=True)
class Starts:
    """Guards that every place is looked at once, however the file is cut into chunks."""

    rows: list[_Row] = field(default_factory=list)
    wrong: Wrong | None = None
    _at: int = 0
    _before: bytes = b""

    def add(
        self, places: Iterator[int], right: Callable[[bytes], bool], name: str, directory: int
    ) -> None:
        """Look at `places` as well."""
        row = array("Q", sorted(places))
        if row:
            self.rows.append(_Row(row, right, name, directory))

    def feed(self, chunk: bytes) -> None:
        """Look at the places in the next `chunk` of the file."""
        begin, end = self._at, self._at + len(chunk)
        for row in self.rows if self.wrong is None else ():
            # A mark may lie across two chunks.
            at = bisect_left(row.places, begin - len(self._before))
            while at < len(row.places) and row.places[at] <= end - _MARK_BYTES:
                place = row.places[at]
                where = place - begin
                mark = (
                    chunk[where : where + _MARK_BYTES] if where >= 0 else self._before + chunk[:1]
                )
                self._look(row, place, mark)
                at += 1
        self._at = end
        self._before = chunk[-1:]

    def read(self, descriptor: int) -> None:
        """Look at every place by itself, of a file that is not read as a whole now."""
        for row in self.rows:
            for place in row.places:
                mark = os.pread(descriptor, _MARK_BYTES, place)
                if len(mark) == _MARK_BYTES and self.wrong is None:
                    self._look(row, place, mark)

    def _look(self, row: _Row, place: int, mark: bytes) -> None:
        if self.wrong is None and not row.right(mark):
            zeros = not any(mark)
            said = "are only zeros" if zeros else "are something else"
            what = (
                f"a tile of directory {row.directory}: the bytes at {place:,}, where its {row.name} "
                f"must begin, {said}"
            )
            self.wrong = Wrong(what=what, zeros=zeros)


def of_tiff(tiff: Tiff) -> Starts:
    """Every tile of every level of a TIFF; of NDPI every restart that its directory lists."""
    starts = Starts()
    for number, directory in enumerate(tiff.directories):
        try:
            _add(starts, directory, number, ndpi=tiff.ndpi)
        except TiffError:
            # Another check reports what lies beyond the end.
            continue
    return starts


def _add(starts: Starts, directory: Directory, number: int, *, ndpi: bool) -> None:
    packing = packing_of(directory)
    if packing not in _BEGINNINGS or not (directory.tiled or ndpi):
        return
    right, name = _BEGINNINGS[packing]
    places = (begin for begin, count in directory.segments() if begin and count >= _MARK_BYTES)
    starts.add(places, right, name, number)
    if not ndpi:
        return
    # Relative to the one strip, in its lower halves; the first is where its header ends.
    strip = directory.number(273)
    wraps, last, listed = 0, 0, array("Q")
    for low in itertools.islice(directory.each(_MCU_STARTS), 1, None):
        wraps += low < last
        last = low
        listed.append(strip + (wraps << 32) + low - _MARK_BYTES)
    # OpenSlide does not trust a list that does not fit.
    size = directory.number(279)
    if listed and strip < listed[0] and listed[-1] < strip + size:
        starts.add(iter(listed), _is_restart, "restart of JPEG", number)
