"""How each frame of a native slide in DICOM must begin; where it lies only the frame before it says.

Where some frames are smaller, as converters cut them off at the edge, OpenSlide opens the slide and refuses them.

Source: DICOM PS3.5, A.4 (frames in pieces); PS3.3, C.7.6.3
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cytowatch.formats.completeness import starts
from cytowatch.formats.completeness.starts import Row, Wrong
from cytowatch.formats.structure import dicom_header
from cytowatch.formats.structure.jpeg import Frame
from cytowatch.formats.structure.places import pread

__all__ = ["Items", "of_dicom"]

_TAGS = ["ImageType", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames"]
_BEGINNINGS = {
    "1.2.840.10008.1.2.4.50": starts.JPEG,
    "1.2.840.10008.1.2.4.51": starts.JPEG,
    "1.2.840.10008.1.2.4.90": starts.JPEG_2000,
    "1.2.840.10008.1.2.4.91": starts.JPEG_2000,
}
_PIXELS = b"\xe0\x7f\x10\x00"
_ITEM = b"\xfe\xff\x00\xe0"
_HEAD_BYTES = 8
#: The tag of the pixels, and the length that says that items follow.
_ELEMENT_BYTES = 12
_MOST_ITEMS = 10_000_000


@dataclass(slots=True)
class Items:
    """Guards that each item is looked at once, in the order in which they follow each other.

    Memory bound: as much of the file as is read of a frame, where its header goes on in the next chunk.
    """

    row: Row
    at: int
    frames: int
    found: Wrong | None = None
    _count: int = 0
    _is_done: bool = False
    _end: int = 0
    _before: bytes = b""

    @property
    def wrong(self) -> Wrong | None:
        """The first frame that does not begin as it must; unknown if frames are in several pieces."""
        # The first item is a table of where the others are.
        return self.found if self._count == self.frames + 1 else None

    def feed(self, chunk: bytes) -> None:
        """Look at the items in the next `chunk` of the file."""
        data = self._before + chunk if self._before else chunk
        begin = self._end - len(self._before)
        self._end += len(chunk)
        self._before = b""
        while not self._is_done and self.at < self._end:
            where = self.at - begin
            if not self._looked_at(data[where : where + _HEAD_BYTES + starts.LONG_HEAD]):
                self._before = data[where:]
                return

    def read(self, descriptor: int) -> None:
        """Look at every item by itself, of a file that is not read as a whole now."""
        while not self._is_done:
            data = pread(descriptor, _HEAD_BYTES + starts.SHORT_HEAD, self.at)
            if not self._looked_at(data):
                data = pread(descriptor, _HEAD_BYTES + starts.LONG_HEAD, self.at)
                self._is_done = self._is_done or not self._looked_at(data)

    def _looked_at(self, data: bytes) -> bool:
        """Whether `data` was enough of the next item; the one behind it is the next then."""
        if len(data) < _HEAD_BYTES:
            return False
        if not data.startswith(_ITEM) or self._count > _MOST_ITEMS:
            self._is_done = True
            return True
        [length] = struct.unpack_from("<I", data, 4)
        head = data[_HEAD_BYTES : _HEAD_BYTES + length]
        if self._count and length and self.found is None:
            is_all = len(head) == length
            found = self.row.wrong(self.at + _HEAD_BYTES, head, is_all=is_all)
            if isinstance(found, Wrong):
                self.found = found
            elif not found:
                return False
        self._count += 1
        self.at += _HEAD_BYTES + length
        return True


def of_dicom(path: str) -> Items | None:
    """The frames of a level; None if they are not packed one by one, or it is not a level."""
    found = dicom_header.header(path, _TAGS)
    if found is None:
        return None
    header, at = found
    try:
        beginning = _BEGINNINGS.get(str(header.file_meta.TransferSyntaxUID))
        if beginning is None or header.ImageType[2] != "VOLUME":
            return None
        bits = int(header.BitsAllocated) if beginning is starts.JPEG else 0
        stated = Frame(int(header.Columns), int(header.Rows), int(header.SamplesPerPixel), bits)
        count = int(header.get("NumberOfFrames", 1) or 1)
    except Exception:  # noqa: BLE001 - no matter what is missing, nothing is known of it
        return None
    with open(path, "rb") as file:
        file.seek(at)
        if file.read(len(_PIXELS)) != _PIXELS:
            return None
    row = Row("a frame", beginning, stated)
    return Items(row=row, at=at + _ELEMENT_BYTES, frames=count)
