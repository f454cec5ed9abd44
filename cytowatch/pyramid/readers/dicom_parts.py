"""The files of a whole slide in DICOM: what each header says of its image, and where its frames lie.

Source: DICOM PS3.3, C.7.6.3 (pixels), C.8.12 (whole slides); PS3.5, A.4 (frames in pieces)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cytowatch.formats.structure import dicom_header
from cytowatch.formats.structure.places import bytes_at
from cytowatch.pyramid.refusals import damaged

__all__ = ["Part", "frames", "is_ordinary", "parts", "pieces"]

#: JPEG of 8 bits in one scan, and extended.
_JPEGS = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
#: What OpenSlide 4.0.1 shows, as (transfer syntax, photometric interpretation).
_ORDINARY = frozenset({
    (_EXPLICIT, "RGB"), ("1.2.840.10008.1.2.4.50", "RGB"), ("1.2.840.10008.1.2.4.50", "YBR_FULL_422"),
    *(
        (syntax, colours)
        for syntax in ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
        for colours in ("RGB", "YBR_ICT", "YBR_RCT")
    ),
})  # fmt: skip
_TAGS = [
    "ImageType", "PhotometricInterpretation", "SamplesPerPixel", "PlanarConfiguration", "BitsAllocated",
    "BitsStored", "PixelRepresentation", "Rows", "Columns", "NumberOfFrames", "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns", "DimensionOrganizationType", "TotalPixelMatrixFocalPlanes",
    "NumberOfOpticalPaths", "ConcatenationFrameOffsetNumber", "ConcatenationUID", "InConcatenationNumber",
    "InConcatenationTotalNumber", "SOPInstanceUID",
]  # fmt: skip
_PIXELS = b"\xe0\x7f\x10\x00"
_ITEM = b"\xfe\xff\x00\xe0"
_OPEN_ENDED = b"\xff\xff\xff\xff"
_MOST_FRAMES = 5_000_000
#: A frame of more bytes is not read.
_LARGEST_FRAME = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a slide, and what its header says; `pixels` is where the element of its frames begins.

    With `resampled` it was made of another file of the slide, which has more pixels. It is file `number` of the `of` that a concatenation has; 0 where that is not stated. Of `bits` in a sample `stored` are used. `planar` says that a frame holds one sample after the other.
    """

    path: str
    kind: str
    resampled: bool
    photometric: str
    syntax: str
    samples: int
    bits: int
    stored: int
    signed: bool
    planar: bool
    full: bool
    size: tuple[int, int]
    tile: tuple[int, int]
    frames: int
    first_frame: int
    focal_planes: int
    optical_paths: int
    uid: str
    concatenation: str
    number: int
    of: int
    pixels: int

    @property
    def tiles(self) -> int:
        """Tiles in one plane of the image."""
        (width, height), (wide, tall) = self.size, self.tile
        return -(-width // wide) * -(-height // tall)

    @property
    def jpeg(self) -> bool:
        """Whether its frames are JPEG of 8 bits and three samples."""
        return self.syntax in _JPEGS and (self.samples, self.bits) == (3, 8)

    @property
    def packed(self) -> bool:
        """Whether its frames are packed, each by itself."""
        return self.syntax not in (_IMPLICIT, _EXPLICIT)

    @property
    def frame_bytes(self) -> int:
        """Of a frame that is not packed."""
        # Two pixels share their chroma.
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.tile[0] * self.tile[1] * samples * self.bits // 8


def parts(head: str) -> list[Part]:
    """The files of the slide that `head` is one of: all whole-slide DICOM in its folder, by name."""
    folder = os.path.dirname(head) or "."
    found = (_part(f"{folder}/{name}") for name in sorted(os.listdir(folder)))
    return [one for one in found if one is not None]


def is_ordinary(part: Part) -> bool:
    """Whether OpenSlide shows frames of its kind."""
    samples = (part.samples, part.bits, part.planar) == (3, 8, False)
    return samples and (part.syntax, part.photometric) in _ORDINARY


def _part(path: str) -> Part | None:
    """What the header of a file says; None of what is not part of a whole slide, or says too little."""
    found = dicom_header.header(path, _TAGS)
    if found is None:
        return None
    header, at = found
    try:
        count = int(header.get("NumberOfFrames", 1) or 1)
        return Part(
            path=path,
            kind=str(header.ImageType[2]),
            resampled=header.ImageType[3:4] == ["RESAMPLED"],
            photometric=str(header.PhotometricInterpretation),
            syntax=str(header.file_meta.TransferSyntaxUID),
            samples=int(header.SamplesPerPixel),
            bits=int(header.BitsAllocated),
            stored=int(header.get("BitsStored", header.BitsAllocated)),
            signed=bool(header.get("PixelRepresentation", 0)),
            planar=bool(header.get("PlanarConfiguration", 0)),
            full=header.get("DimensionOrganizationType") == "TILED_FULL" or count == 1,
            size=(int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)),
            tile=(int(header.Columns), int(header.Rows)),
            frames=count,
            first_frame=int(header.get("ConcatenationFrameOffsetNumber", 0) or 0),
            focal_planes=int(header.get("TotalPixelMatrixFocalPlanes", 1) or 1),
            optical_paths=int(header.get("NumberOfOpticalPaths", 1) or 1),
            uid=str(header.SOPInstanceUID),
            concatenation=str(header.get("ConcatenationUID", "") or ""),
            number=int(header.get("InConcatenationNumber", 0) or 0),
            of=int(header.get("InConcatenationTotalNumber", 0) or 0),
            pixels=at,
        )
    except Exception:  # noqa: BLE001 - no matter what it raises, nothing is known of it
        return None


def frames(descriptor: int, part: Part) -> list[tuple[int, int]]:
    """(offset, length) of each frame.

    Raises
    ------
    ConversionError
        `damaged`: there are fewer or more pieces than frames.
    """
    if not part.packed:
        return _unpacked(descriptor, part)
    found = list(pieces(descriptor, part))[1:]
    if len(found) != part.frames:
        raise damaged(f"{os.path.basename(part.path)} has {len(found)} pieces for {part.frames} frames")  # fmt: skip
    return found


def pieces(descriptor: int, part: Part) -> Iterator[tuple[int, int]]:
    """(offset, length) of each piece of packed pixels; the first is a table of where the others are."""
    if bytes_at(descriptor, 4, part.pixels) != _PIXELS:
        return
    at = part.pixels + 12
    for _ in range(min(part.frames, _MOST_FRAMES) + 2):
        head = bytes_at(descriptor, 8, at)
        if len(head) < 8 or head[:4] != _ITEM:
            return
        [length] = struct.unpack("<I", head[4:])
        yield at + 8, min(length, _LARGEST_FRAME)
        at += 8 + length


def _unpacked(descriptor: int, part: Part) -> list[tuple[int, int]]:
    """The frames one after the other, behind a head of 8 bytes, or of 12 where it says what they are."""
    head = bytes_at(descriptor, 12, part.pixels)
    explicit = part.syntax == _EXPLICIT
    at, each = part.pixels + (12 if explicit else 8), part.frame_bytes
    stated = head[8:12] if explicit else head[4:8]
    if not head.startswith(_PIXELS) or len(stated) < 4 or stated == _OPEN_ENDED:
        raise damaged(f"{os.path.basename(part.path)} has no pixels")
    there = min(int.from_bytes(stated, "little"), os.fstat(descriptor).st_size - at)
    count = min(part.frames, _MOST_FRAMES)
    if not 0 < each <= _LARGEST_FRAME or there < count * each:
        raise damaged(f"{os.path.basename(part.path)} has {there:,} bytes for {count:,} frames of {each:,}")  # fmt: skip
    return [(at + number * each, each) for number in range(count)]
