"""A whole slide in DICOM: levels in files of their own, in every way that scanners and converters write it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.builders import picture

__all__ = ["UNPACKED", "dicom_wsi", "frame", "with_tiff"]

_TILE = 256
#: Implicit and explicit, little endian: frames one after the other.
UNPACKED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


def frame(pixels: np.ndarray, *, subsampling: int = 0) -> bytes:
    """A JPEG with JFIF's mark, whose colours are YCbCr."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92, subsampling=subsampling)
    return stream.getvalue()


def dicom_wsi(
    folder: Path, *, width: int = 512, height: int = 512, levels: int = 2,
    encode: Callable[[np.ndarray], bytes] = frame, photometric: str = "YBR_FULL_422",
    names: str = "level{}.dcm", repeated: bool = False, pieces: int = 1, label: bool = False,
    sparse: bool = False, concatenated: bool = True, syntax: str = "1.2.840.10008.1.2.4.50",
    palette: np.ndarray | None = None, **stated: object,
) -> Path:  # fmt: skip
    """Each level as a file of JPEG tiles, of one series.

    Parameters
    ----------
    repeated
        Whether the first level is there twice, under two UIDs.
    pieces
        Files that the first level is split into.
    label
        Whether there is a label.
    sparse
        Whether each frame says where it lies.
    concatenated
        Whether these pieces say that they are a concatenation.
    syntax
        The transfer syntax: how `encode` packs a tile, if it does.
    palette
        Colours of 8 or 16 bits, by the value of a pixel.
    stated
        Further attributes of each file, such as ``AcquisitionDateTime``; None takes one away.
    """
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    pixels = picture(width, height)
    series, reference = generate_uid(), generate_uid()
    settings = (series, reference, photometric, sparse)
    for level in range(levels):
        part = np.ascontiguousarray(pixels[:: 2**level, :: 2**level])
        kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE" if not level else "RESAMPLED"]
        tiles = [encode(one) for one in _tiles(part)]
        split = pieces if level == 0 else 1
        share = -(-len(tiles) // split)
        concatenation, whole = generate_uid(), generate_uid()
        for number in range(split):
            one = _header(part, kind, level, *settings)
            if sparse:
                # Each file describes its own frames.
                own = slice(number * share, (number + 1) * share)
                one.PerFrameFunctionalGroupsSequence = one.PerFrameFunctionalGroupsSequence[own]
            if split > 1 and concatenated:
                one.ConcatenationUID = concatenation
                one.SOPInstanceUIDOfConcatenationSource = whole
                one.InConcatenationNumber, one.InConcatenationTotalNumber = number + 1, split
                one.ConcatenationFrameOffsetNumber = number * share
            name = names.format(level if split == 1 else f"{level}_{number}")
            _state(one, syntax, palette, stated)
            _write(folder / name, one, tiles[number * share : (number + 1) * share])
        if repeated and level == 0:
            other = _header(part, kind, 0, *settings)
            _state(other, syntax, palette, stated)
            _write(folder / names.format("0b"), other, tiles)
    if label:
        part = picture(200, 100)
        one = _header(part, ["ORIGINAL", "PRIMARY", "LABEL", "NONE"], 9, *settings)
        _state(one, syntax, palette, stated)
        one.Rows, one.Columns = part.shape[:2]
        _write(folder / names.format("label"), one, [encode(part)])
    return folder / names.format(0 if pieces == 1 else "0_0")


def _state(one: Any, syntax: str, palette: np.ndarray | None, stated: dict[str, object]) -> None:
    one.file_meta.TransferSyntaxUID = syntax
    for number, samples in enumerate(palette.T if palette is not None else ()):
        bits = 8 * palette.dtype.itemsize
        one.add_new(0x00281101 + number, "US", [len(samples) % 65536, 0, bits])
        one.add_new(0x00281201 + number, "OW", samples.tobytes())
    for key, value in stated.items():
        if value is None:
            delattr(one, key)
        else:
            setattr(one, key, value)


def _tiles(part: np.ndarray) -> list[np.ndarray]:
    found = []
    for y in range(0, part.shape[0], _TILE):
        for x in range(0, part.shape[1], _TILE):
            tile = np.full((_TILE, _TILE, 3), 255, np.uint8)
            inside = part[y : y + _TILE, x : x + _TILE]
            tile[: inside.shape[0], : inside.shape[1]] = inside
            found.append(tile)
    return found


def _header(
    part: np.ndarray, kind: list[str], level: int, series: str, reference: str, photometric: str,
    sparse: bool,
) -> Any:  # fmt: skip
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import JPEGBaseline8Bit, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    one = Dataset()
    one.file_meta = meta
    one.SOPClassUID = meta.MediaStorageSOPClassUID
    one.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    one.SeriesInstanceUID, one.StudyInstanceUID = series, series
    one.FrameOfReferenceUID = reference
    one.Modality = "SM"
    one.ImageType = kind
    one.Rows = one.Columns = _TILE
    one.TotalPixelMatrixRows, one.TotalPixelMatrixColumns = part.shape[:2]
    one.SamplesPerPixel, one.PlanarConfiguration = 3, 0
    one.PhotometricInterpretation = photometric
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit, one.PixelRepresentation = 7, 0
    one.DimensionOrganizationType = "TILED_SPARSE" if sparse else "TILED_FULL"
    one.NumberOfOpticalPaths = 1
    one.TotalPixelMatrixFocalPlanes = 1
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing = [0.0005 * 2**level] * 2
    measures.SliceThickness = 0.001
    groups.PixelMeasuresSequence = Sequence([measures])
    one.SharedFunctionalGroupsSequence = Sequence([groups])
    lens = Dataset()
    lens.ObjectiveLensPower = 20
    one.OpticalPathSequence = Sequence([lens])
    if sparse:
        places = []
        for y in range(0, part.shape[0], _TILE):
            for x in range(0, part.shape[1], _TILE):
                where, group = Dataset(), Dataset()
                where.ColumnPositionInTotalImagePixelMatrix = x + 1
                where.RowPositionInTotalImagePixelMatrix = y + 1
                group.PlanePositionSlideSequence = Sequence([where])
                places.append(group)
        one.PerFrameFunctionalGroupsSequence = Sequence(places)
    return one


def _write(path: Path, one: Any, tiles: list[bytes]) -> None:
    import pydicom
    from pydicom.encaps import encapsulate

    one.NumberOfFrames = len(tiles)
    packed = one.file_meta.TransferSyntaxUID not in UNPACKED
    one.PixelData = encapsulate(tiles) if packed else b"".join(tiles)
    one["PixelData"].VR = "OB" if one.BitsAllocated == 8 else "OW"
    one["PixelData"].is_undefined_length = packed
    pydicom.dcmwrite(path, one, enforce_file_format=True)


def with_tiff(path: Path, *, width: int, height: int) -> Path:
    """Make a TIFF of a DICOM as well: its header in the preamble, its directory in padding at the end."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\xe0\x7f\x10\x00OB") + 12
    places: list[tuple[int, int]] = []
    while data[at : at + 4] == b"\xfe\xff\x00\xe0":
        [length] = struct.unpack_from("<I", data, at + 4)
        places.append((at + 8, length))
        at += 8 + length
    places = places[1:]
    count = len(places)
    base = len(data) + 12
    extra = struct.pack(f"<{count}I", *(offset for offset, _ in places))
    extra += struct.pack(f"<{count}I", *(length for _, length in places))
    extra += struct.pack("<4H", 8, 8, 8, 0)
    offsets, counts = base, base + 4 * count
    if count == 1:
        [(offsets, counts)] = places
    tags = [
        (254, 4, 1, 0), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, base + 8 * count),
        (259, 3, 1, 7), (262, 3, 1, 6), (277, 3, 1, 3), (284, 3, 1, 1), (322, 4, 1, _TILE),
        (323, 4, 1, _TILE), (324, 4, count, offsets), (325, 4, count, counts),
        (530, 3, 2, 1 | 1 << 16),
    ]  # fmt: skip
    directory = base + len(extra)
    entries = b"".join(struct.pack("<HHII", *one) for one in tags)
    blob = extra + struct.pack("<H", len(tags)) + entries + bytes(4)
    blob += bytes(len(blob) % 2)
    data += struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, len(blob)) + blob
    data[:8] = struct.pack("<2sHI", b"II", 42, directory)
    path.write_bytes(bytes(data))
    return path
