"""Whether all bytes of a file came, found out while it is hashed: each is read then anyway.

Source: docs/decisions/023-bytes-that-never-came.md
"""

from __future__ import annotations

import configparser
import os
import stat
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cytowatch.formats.base import Probe
from cytowatch.formats.completeness import frames, judging, parts, starts
from cytowatch.formats.completeness.frames import Items
from cytowatch.formats.completeness.gaps import ZeroRuns
from cytowatch.formats.completeness.judging import Doubt
from cytowatch.formats.completeness.parts import Packing, Part
from cytowatch.formats.completeness.starts import Starts
from cytowatch.formats.structure import mirax
from cytowatch.formats.structure.jpeg import Frame
from cytowatch.formats.structure.places import pread
from cytowatch.outside import OutsideError, read_file
from cytowatch.record import names

__all__ = ["Arrival", "Watch", "of_level", "of_native", "of_sets", "watch"]

_LARGEST_INI = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What there is to say about one file: what it `lacks`, what is `damaged`, which pictures are `blank`.

    Whether it lacks something at its `doubts`, a decoder decides.
    """

    lacks: str | None = None
    doubts: tuple[Doubt, ...] = ()
    damaged: str | None = None
    blank: tuple[str, ...] = ()


class Watch:
    """Guards what was seen of one file while it was read from its beginning to its end."""

    def __init__(self, path: str, *, begins: Starts | Items, known: Iterable[Part] | None) -> None:
        self._path = path
        self._begins = begins
        self._known = known
        descriptor = _opened(path)
        try:
            plain = known is None and parts.is_plain(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        # Black pixels may make any number of runs.
        self._runs = None if plain else ZeroRuns()

    def feed(self, chunk: bytes) -> None:
        """Look at the next `chunk` of the file."""
        if self._runs is not None:
            self._runs.feed(chunk)
        self._begins.feed(chunk)

    def look(self) -> None:
        """Look at where each tile begins, of a file that is not read as a whole now."""
        descriptor = _opened(self._path)
        try:
            self._begins.read(descriptor)
        finally:
            os.close(descriptor)

    def verdict(self) -> Arrival:
        """What was found.

        Raises
        ------
        OSError
            It cannot be read.
        """
        wrong = self._begins.wrong
        lacks = wrong.what if wrong is not None and wrong.zeros else None
        descriptor = _opened(self._path)
        try:
            size_bytes = os.fstat(descriptor).st_size
            zeros = self._runs.end() if self._runs is not None else []
            found = judging.judged(descriptor, size_bytes, zeros, self._known)
        finally:
            os.close(descriptor)
        return Arrival(
            lacks=found.lacking or lacks,
            doubts=found.doubts,
            damaged=wrong.what if wrong is not None and not wrong.zeros else None,
            blank=found.blank,
        )


def watch(
    path: str, *, begins: Starts | Items | None = None, known: Iterable[Part] | None = None
) -> Watch:
    """A watch over the file at `path`: `begins` is how its tiles must begin, `known` its parts if it lists none."""
    return Watch(path, begins=begins or Starts(), known=known)


def of_native(path: str) -> Watch:
    """A watch over a native slide of one file: each of its tiles must begin as OpenSlide needs it."""
    descriptor = _opened(path)
    try:
        tiff = Probe(descriptor).tiff
        return watch(path, begins=starts.of_tiff(tiff)) if tiff is not None else of_level(path)
    finally:
        os.close(descriptor)


def of_level(path: str) -> Watch:
    """A watch over one file of a native slide, which in DICOM is a level."""
    return watch(path, begins=frames.of_dicom(path))


def of_sets(paths: Iterable[str]) -> dict[str, Watch]:
    """A watch over each data file of each MRXS among `paths`, by its path."""
    found: dict[str, Watch] = {}
    for path in paths:
        if path.endswith("/Slidedat.ini"):
            found |= _of_mirax(os.path.dirname(path))
    return found


def _of_mirax(folder: str) -> dict[str, Watch]:
    ini = configparser.ConfigParser(
        interpolation=None, strict=False, delimiters=("=",), allow_no_value=True
    )
    try:
        data = read_file(f"{folder}/Slidedat.ini", most_bytes=_LARGEST_INI)
        ini.read_string(data.decode("utf-8-sig", "surrogateescape"))
        names = mirax.data_files(ini)
        index = _opened(f"{folder}/{ini.get('HIERARCHICAL', 'INDEXFILE', fallback='Index.dat')}")
        try:
            placed = mirax.places(ini, index)
            levels = mirax.jpeg_levels(ini)
            zoomed = mirax.places(ini, index, records=levels[0]) if levels and placed else None
        finally:
            os.close(index)
    except (OutsideError, configparser.Error, AttributeError, TypeError, ValueError, OSError):
        # OpenSlide reports what is wrong with it.
        return {}
    if placed is None:
        return {}
    found: dict[str, Watch] = {}
    for number, name in enumerate(names):
        if name and os.path.isfile(path := f"{folder}/{name}"):
            begins = Starts()
            if levels is not None and zoomed is not None:
                begins.add(
                    _begins(zoomed.pop(number, array("Q"))),
                    starts.JPEG,
                    None,
                    Frame(*levels[1], 0, 0),
                )
            found[path] = _of_data(path, placed.pop(number, array("Q")), begins)
    return found


def _begins(places: array[int]) -> Iterator[int]:
    return (at for at, length in _Tiles(places).rows() if length)


def _of_data(path: str, places: array[int], begins: Starts) -> Watch:
    """A watch over a data file, whose tiles are all of one kind."""
    tiles = _Tiles(places)
    descriptor = _opened(path)
    try:
        if any(pread(descriptor, 2, offset) == b"\xff\xd8" for offset, _ in tiles.rows()):
            tiles.packing = Packing.JPEG
    finally:
        os.close(descriptor)
    begins.add(_begins(places), starts.ANY, None)
    return watch(path, begins=begins, known=tiles)


@dataclass(slots=True)
class _Tiles:
    """The tiles of a data file as its parts: made when they are asked for, which is only where it has a gap.

    Memory bound: eight bytes per tile, of which `mirax.places` gives `mirax.MOST_TILES` at most.
    """

    places: array[int]
    packing: Packing = Packing.PLAIN

    def rows(self) -> Iterator[tuple[int, int]]:
        """Offset and length of each."""
        for place in self.places:
            yield place >> 32, place & 0xFFFFFFFF

    def __iter__(self) -> Iterator[Part]:
        for at, length in self.rows():
            yield Part(begin=at, end=at + length, what=f"the tile at {at:,}", packing=self.packing)


def _opened(path: str) -> int:
    # If a pipe is in its place, this does not wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutsideError(f"{names.printable(os.path.basename(path))} is not a regular file")
    return descriptor
