"""How each tile of a native slide must begin, where its directory places it.

OpenSlide opens a slide whose tiles are zeros or junk, or of another size than the directory states, and refuses
each tile when a viewer asks for it. So the first bytes of every tile of every level are looked at while the slide
is hashed.

Source: ITU-T T.81, tables B.1 and B.2; ISO/IEC 15444-1, tables A.2 and A.9; RFC 1950; https://openslide.org/formats/
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cytowatch.formats.completeness.parts import Packing, packing_of
from cytowatch.formats.structure import jp2, jpeg
from cytowatch.formats.structure.jpeg import Frame
from cytowatch.formats.structure.places import pread
from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError

__all__ = [
    "ANY",
    "JPEG",
    "JPEG_2000",
    "LONG_HEAD",
    "SHORT_HEAD",
    "Row",
    "Starts",
    "Wrong",
    "of_tiff",
]

_MCU_STARTS = 65426
#: How many bytes a mark has.
_MARK_BYTES = 2
#: What is read of a tile at first, and what at most: behind a longer header its size is not looked for.
SHORT_HEAD, LONG_HEAD = 1 << 10, 1 << 16
#: Of a directory so many headers are remembered: its tiles have one, or one for each set of tables.
_MOST_SOUND = 8


def _is_jpeg(mark: bytes) -> bool:
    return mark == b"\xff\xd8"


def _is_restart(mark: bytes) -> bool:
    # Where another byte stands OpenSlide looks for the restarts itself.
    return any(mark)


def _is_codestream(mark: bytes) -> bool:
    return mark == jp2.SOC


def _is_zlib(mark: bytes) -> bool:
    return mark[0] & 15 == 8 and int.from_bytes(mark, "big") % 31 == 0


def _frame_of_codestream(head: bytes) -> tuple[Frame, int] | None:
    """What the header of a JPEG 2000 states, and where that ends; its bits say nothing here."""
    found = jp2.siz(head)
    if found is None:
        return None
    (right, bottom), (left, top) = found.size, found.offset
    return Frame(right - left, bottom - top, found.samples, 0), jp2.SIZ_BYTES


#: What begins a tile: its mark, its name, and what finds the frame in its header.
Beginning = tuple[Callable[[bytes], bool], str, Callable[[bytes], tuple[Frame, int] | None] | None]
JPEG: Beginning = (_is_jpeg, "JPEG", jpeg.frame)
JPEG_2000: Beginning = (_is_codestream, "JPEG 2000", _frame_of_codestream)
_BEGINNINGS: dict[Packing, Beginning] = {
    Packing.JPEG: JPEG,
    Packing.JPEG_2000: JPEG_2000,
    Packing.ZLIB: (_is_zlib, "deflate", None),
}
#: An image of any kind.
ANY: Beginning = (any, "image", None)
_RESTART: Beginning = (_is_restart, "restart of JPEG", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """The first tile that does not begin as it must, as a phrase; with `zeros` it never came."""

    what: str
    zeros: bool


@dataclass(slots=True)
class Row:
    """How each tile of one kind must begin, and what its frame must state; `kind` is what they are called.

    `places` are where they lie, ascending. `sound` are the headers of tiles that were right: most tiles have the
    same one, byte for byte.
    """

    kind: str
    beginning: Beginning
    stated: Frame | None = None
    places: array[int] = field(default_factory=lambda: array("Q"))
    sound: tuple[bytes, ...] = ()

    def wrong(self, place: int, head: bytes, *, is_all: bool) -> Wrong | bool:
        """What is wrong with the tile at `place`, of which `head` is there; else whether that is known.

        With `is_all` that is all there is to be read.
        """
        if self.sound and head.startswith(self.sound):
            return True
        right, name, frame = self.beginning
        mark = head[:_MARK_BYTES]
        if len(mark) < _MARK_BYTES:
            return is_all
        if not right(mark):
            zeros = not any(mark)
            said = "are only zeros" if zeros else "are something else"
            what = f"the bytes at {place:,}, where its {name} must begin, {said}"
            return Wrong(what=f"{self.kind}: {what}", zeros=zeros)
        if self.stated is None or frame is None:
            return True
        found = frame(head)
        if found is None:
            # A longer header, or one that only its decoder can judge.
            return is_all or len(head) >= LONG_HEAD
        stated, end = found
        if difference := _difference(stated, self.stated):
            what = f"its {name} at {place:,} has {difference}"
            return Wrong(what=f"{self.kind}: {what}", zeros=False)
        if len(self.sound) < _MOST_SOUND:
            self.sound += (head[:end],)
        return True


def _difference(found: Frame, stated: Frame) -> str | None:
    """In what the frame of a tile is not as `stated`, of which 0 stands for anything; None if it is."""
    if found[:2] != stated[:2]:
        return f"{found.width} x {found.height} pixels, not {stated.width} x {stated.height}"
    if stated.samples and found.samples != stated.samples:
        return f"{found.samples} samples per pixel, not {stated.samples}"
    if stated.bits and found.bits != stated.bits:
        return f"samples of {found.bits} bits, not {stated.bits}"
    return None


@dataclass(slots=True)
class Starts:
    """Guards that every place is looked at once, however the file is cut into chunks.

    Memory bound: eight bytes per tile, and `LONG_HEAD` of the file for tiles whose header goes on in the next chunk.
    """

    rows: list[Row] = field(default_factory=list)
    wrong: Wrong | None = None
    _at: int = 0
    _before: bytes = b""
    _open: list[tuple[Row, int]] = field(default_factory=list)

    def add(
        self,
        places: Iterator[int],
        beginning: Beginning,
        directory: int | None,
        stated: Frame | None = None,
    ) -> None:
        """Look at `places` as well; where a frame is `stated`, it must be that one."""
        kind = "a tile" if directory is None else f"a tile of directory {directory}"
        row = array("Q", sorted(places))
        if row:
            self.rows.append(Row(kind, beginning, stated, row))

    def feed(self, chunk: bytes) -> None:
        """Look at the places in the next `chunk` of the file."""
        if self.wrong is not None:
            return
        begin, end = self._at, self._at + len(chunk)
        still = self._continued(begin, chunk)
        for row in self.rows:
            at = bisect_left(row.places, begin)
            while at < len(row.places) and row.places[at] < end:
                place = row.places[at]
                at += 1
                where = place - begin
                # Hardly any slide has more than one header in a directory.
                if row.sound and chunk.startswith(row.sound, where):
                    continue
                if not self._settled(row, place, chunk[where : where + SHORT_HEAD]) and not (
                    self._settled(row, place, chunk[where : where + LONG_HEAD])
                ):
                    still.append((row, place))
        self._open = still
        self._before = (self._before + chunk)[-LONG_HEAD:] if still else b""
        self._at = end

    def _continued(self, begin: int, chunk: bytes) -> list[tuple[Row, int]]:
        """Look again at those whose header goes on in `chunk`; gives those that go on behind it as well."""
        if not self._open:
            return []
        joined = self._before + chunk[:LONG_HEAD]
        first = begin - len(self._before)
        return [
            (row, place)
            for row, place in self._open
            if not self._settled(row, place, joined[place - first : place - first + LONG_HEAD])
        ]

    def read(self, descriptor: int) -> None:
        """Look at every place by itself, of a file that is not read as a whole now."""
        for row in self.rows:
            short = SHORT_HEAD if row.stated is not None else _MARK_BYTES
            for place in row.places:
                if self.wrong is not None:
                    return
                if not self._settled(row, place, pread(descriptor, short, place)):
                    head = pread(descriptor, LONG_HEAD, place)
                    self._settled(row, place, head, is_all=True)

    def _settled(self, row: Row, place: int, head: bytes, *, is_all: bool = False) -> bool:
        """Whether it is known what the tile at `place` is, which begins with `head`."""
        found = row.wrong(place, head, is_all=is_all)
        if isinstance(found, Wrong):
            self.wrong = self.wrong or found
        return bool(found)


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
    beginning = _BEGINNINGS[packing]
    places = (begin for begin, count in directory.segments() if begin and count >= _MARK_BYTES)
    starts.add(places, beginning, number, _stated(directory, packing))
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
        starts.add(iter(listed), _RESTART, number)


def _stated(directory: Directory, packing: Packing) -> Frame | None:
    """What the frame of each tile must state; None for a strip, and where the directory does not say it."""
    if not directory.tiled or not {258, 277} <= directory.tags.keys():
        return None
    samples = directory.number(277) if directory.number(284, 1) == 1 else 1
    bits = directory.number(258) if packing is Packing.JPEG else 0
    return Frame(directory.number(322), directory.number(323), samples, bits)
