"""DICOM whole slides whose JPEG frames have other colours than their headers state.

OpenSlide believes PhotometricInterpretation: where it states RGB of frames that are YCbCr, white is
salmon. Here the frames say what they are, by their markers and their subsampling.

Source: DICOM PS3.3, C.8.12 (whole slides), and PS3.5, A.4 (frames in pieces); ITU-T T.81, T.871
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import openslide

from cytowatch.config import Config
from cytowatch.formats.doubles import is_whole_slide
from cytowatch.pyramid import acquired, jpeg, resolution
from cytowatch.pyramid.complaints import refuse_lost_of_jpeg
from cytowatch.pyramid.pixels import Pixels, each
from cytowatch.pyramid.refusals import check_size, damaged
from cytowatch.pyramid.regions import Opened, Scene

__all__ = ["Part", "contradiction", "is_placed", "is_ycbcr", "open_dicom", "parts", "twice"]

#: JPEG of 8 bits in one scan, and extended.
_JPEGS = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_TAGS = [
    "ImageType", "PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "Rows", "Columns",
    "NumberOfFrames", "TotalPixelMatrixRows", "TotalPixelMatrixColumns", "DimensionOrganizationType",
    "TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths", "ConcatenationFrameOffsetNumber",
    "ConcatenationUID", "SOPInstanceUID",
]  # fmt: skip
_PIXELS = b"\xe0\x7f\x10\x00"
_ITEM, _ENDED = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MOST_FRAMES = 5_000_000
#: A frame of more bytes is not read.
_LARGEST_FRAME = 64 << 20
_PICTURES = {"LABEL": "label", "OVERVIEW": "macro"}
_LARGEST_PICTURE = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a slide, and what its header says; `pixels` is where its frames begin."""

    path: str
    kind: str
    photometric: str
    jpeg: bool
    full: bool
    size: tuple[int, int]
    tile: tuple[int, int]
    frames: int
    first_frame: int
    uid: str
    concatenation: str
    pixels: int

    @property
    def tiles(self) -> int:
        """Tiles in one plane of the image."""
        (width, height), (wide, tall) = self.size, self.tile
        return -(-width // wide) * -(-height // tall)


def parts(head: str) -> list[Part]:
    """The files of the slide that `head` is one of: all whole-slide DICOM in its folder, by name."""
    folder = os.path.dirname(head) or "."
    found = (_part(f"{folder}/{name}") for name in sorted(os.listdir(folder)))
    return [one for one in found if one is not None]


def twice(found: Sequence[Part]) -> tuple[Part, Part] | None:
    """Two files that hold the same level, of which OpenSlide takes neither; None if there are none."""
    levels: dict[tuple[int, int], Part] = {}
    for one in found:
        if one.kind == "VOLUME" and not one.concatenation:
            other = levels.setdefault(one.size, one)
            if other.uid != one.uid:
                return other, one
    return None


def contradiction(found: Sequence[Part]) -> str | None:
    """How the frames of a slide have other colours than its header states, as a phrase; None if they have not."""
    for one in found:
        if one.kind == "VOLUME" and (said := _said(one)):
            return said
    return None


def is_placed(found: Sequence[Part]) -> bool:
    """Whether the frames of all levels are JPEG, and lie where their numbers say."""
    return all(one.jpeg and one.full for one in found if one.kind == "VOLUME")


def open_dicom(path: str, config: Config) -> Opened:
    """The largest level of a slide with the colours of its frames.

    Raises
    ------
    ConversionError
        It is damaged, or of a kind whose frames cannot be placed.
    """
    found = parts(path)
    volumes = [one for one in found if one.kind == "VOLUME"]
    if not volumes:
        raise damaged("it holds no image of the slide")
    largest = max(one.size for one in volumes)
    level = [one for one in volumes if one.size == largest]
    with openslide.OpenSlide(path) as slide:
        known = slide.properties
        mpp = resolution.plausible(*(_number(known.get(f"openslide.mpp-{axis}")) for axis in "xy"))
        power = _number(known.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
        acquired_at = acquired.of_slide(known)
        has_profile = "openslide.icc-size" in known
        profile = slide.color_profile.tobytes() if has_profile and slide.color_profile else None
    with ExitStack() as opened:
        region = _Frames(level, opened, config)
        scene = Scene(
            region=region,
            mpp=mpp,
            objective_power=power or None,
            icc_profile=profile,
            acquired_at=acquired_at,
        )
        pictures = dict(_pictures(found, config))
        return Opened(
            scenes=[scene],
            reader="imagecodecs",
            pictures=pictures,
            close=opened.pop_all().close,
        )


class _Frames:
    """Rows of one level; its frames lie row by row, from the top left on, in one file or several."""

    def __init__(self, level: Sequence[Part], opened: ExitStack, config: Config) -> None:
        first = level[0]
        self.width, self.height = first.size
        check_size(self.width, self.height, config)
        self._wide, self._tall = first.tile
        self.samples, self.dtype = 3, np.dtype(np.uint8)
        self.block_rows = self._tall
        self._places: dict[int, tuple[int, int, int]] = {}
        for part in level:
            if not part.jpeg or not part.full or part.tile != first.tile:
                raise damaged("its frames are not JPEG, or not in the order of its rows")
            descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            for number, place in enumerate(_frames(descriptor, part), start=part.first_frame):
                # Further ones are other focal planes.
                if number < part.tiles:
                    self._places[number] = (descriptor, *place)
        self._photometric = first.photometric

    def rows(self, top: int, bottom: int) -> Pixels:
        found = np.full((bottom - top, self.width, 3), 255, np.uint8)
        across = -(-self.width // self._wide)

        def place(number: int) -> None:
            row, column = divmod(number, across)
            pixels = self._decoded(number)
            at, left = row * self._tall - top, column * self._wide
            skip, until = max(0, -at), min(self._tall, len(found) - at)
            part = pixels[skip:until, : self.width - left]
            found[at + skip : at + until, left : left + self._wide] = part

        first, last = top // self._tall, -(-bottom // self._tall)
        each(place, range(first * across, last * across), out_bytes=found.nbytes)
        return found

    def _decoded(self, number: int) -> Pixels:
        if number not in self._places:
            raise damaged(f"frame {number + 1} is not in the file")
        descriptor, offset, length = self._places[number]
        pixels = _rgb(os.pread(descriptor, length, offset), self._photometric)
        if pixels.shape != (self._tall, self._wide, 3):
            raise damaged(f"frame {number + 1} is {pixels.shape[1]} x {pixels.shape[0]} pixels")
        return pixels


def _part(path: str) -> Part | None:
    """What the header of a file says; None of what is not part of a whole slide, or says too little."""
    # Imported here: hardly any lab drops DICOM, and it takes a third of a second.
    import pydicom

    with open(path, "rb") as file:
        if not is_whole_slide(file.read(4096)):
            return None
        file.seek(0)
        try:
            header: Any = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
            frames = int(header.get("NumberOfFrames", 1) or 1)
            return Part(
                path=path,
                kind=str(header.ImageType[2]),
                photometric=str(header.PhotometricInterpretation),
                jpeg=header.file_meta.TransferSyntaxUID in _JPEGS
                and (header.SamplesPerPixel, header.BitsAllocated) == (3, 8),
                full=header.get("DimensionOrganizationType") == "TILED_FULL" or frames == 1,
                size=(int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)),
                tile=(int(header.Columns), int(header.Rows)),
                frames=frames,
                first_frame=int(header.get("ConcatenationFrameOffsetNumber", 0) or 0),
                uid=str(header.SOPInstanceUID),
                concatenation=str(header.get("ConcatenationUID", "") or ""),
                pixels=file.tell(),
            )
        except Exception:  # noqa: BLE001 - no matter what it raises, nothing is known of it
            return None


def _frames(descriptor: int, part: Part) -> list[tuple[int, int]]:
    """(offset, length) of each frame.

    Raises
    ------
    ConversionError
        `damaged`: there are fewer or more pieces than frames.
    """
    found = list(_pieces(descriptor, part))[1:]
    if len(found) != part.frames:
        raise damaged(f"{os.path.basename(part.path)} has {len(found)} pieces for {part.frames} frames")  # fmt: skip
    return found


def _pieces(descriptor: int, part: Part) -> Iterator[tuple[int, int]]:
    """(offset, length) of each piece of the pixels; the first is a table of where the others are."""
    if os.pread(descriptor, 4, part.pixels) != _PIXELS:
        return
    at = part.pixels + 12
    for _ in range(min(part.frames, _MOST_FRAMES) + 2):
        head = os.pread(descriptor, 8, at)
        if len(head) < 8 or head[:4] != _ITEM:
            return
        [length] = struct.unpack("<I", head[4:])
        yield at + 8, min(length, _LARGEST_FRAME)
        at += 8 + length


def _said(part: Part) -> str | None:
    if not part.jpeg:
        return None
    descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = _pieces(descriptor, part)
        next(pieces, None)
        offset, length = next(pieces, (0, 0))
        ycbcr = is_ycbcr(os.pread(descriptor, length, offset), part.photometric)
    finally:
        os.close(descriptor)
    if ycbcr is None or ycbcr == (part.photometric != "RGB"):
        return None
    are = "YCbCr" if ycbcr else "RGB"
    return f"its header states {part.photometric} of frames that are {are}"


def is_ycbcr(frame: bytes, stated: str) -> bool | None:
    """Whether the colours of a JPEG are YCbCr, as its markers tell and libjpeg reads them; None if unknown.

    Without any marker it is what the header states, unless its chroma is subsampled: RGB never is.
    """
    try:
        head = jpeg.head(frame)
    except ValueError:
        return None
    if head is None or head.samples != 3:
        return None
    if head.jfif and head.adobe == 0:
        # The two marks contradict each other.
        return None
    if head.jfif or head.adobe is not None:
        return head.adobe != 0
    if head.ids == b"RGB":
        return False
    return head.sampling != (1, 1) or stated != "RGB"


def _rgb(frame: bytes, stated: str) -> Pixels:
    import imagecodecs

    ycbcr = is_ycbcr(frame, stated)
    ycbcr = stated != "RGB" if ycbcr is None else ycbcr
    try:
        pixels: Pixels = imagecodecs.jpeg8_decode(
            frame, colorspace="YCBCR" if ycbcr else "RGB", outcolorspace="RGB"
        )
    except Exception as error:
        raise damaged(error) from error
    # imagecodecs drops what libjpeg says of it.
    refuse_lost_of_jpeg(frame)
    return pixels


def _pictures(found: Sequence[Part], config: Config) -> Iterator[tuple[str, Pixels]]:
    """Label and overview, where they can be read as the slide is."""
    for part in found:
        role = _PICTURES.get(part.kind)
        small = part.size[0] * part.size[1] <= _LARGEST_PICTURE
        if role and small and part.jpeg and part.full:
            with ExitStack() as opened:
                yield role, _Frames([part], opened, config).rows(0, part.size[1])


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
