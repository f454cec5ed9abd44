"""The pixels of one frame of DICOM as grey or RGB, in every way that they are packed and coloured.

Source: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation), C.7.6.3.1.5 and C.7.9 (palettes); PS3.5,
8.2 and annex G (transfer syntaxes); ITU-T T.81, T.871
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from cytowatch.formats.structure import jpeg
from cytowatch.pyramid.complaints import refuse_lost_of_jpeg
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.dicom_parts import Part
from cytowatch.pyramid.readers.jp2_codestream import check_units, is_rgb_decoded
from cytowatch.pyramid.refusals import damaged
from cytowatch.record.errors import ConversionError

__all__ = ["Colours", "is_known"]

_RLE = "1.2.840.10008.1.2.5"
#: The function of imagecodecs for each transfer syntax, behind the root of all of them.
_ROOT = "1.2.840.10008.1.2.4."
_DECODERS: Mapping[str, str] = MappingProxyType({
    **dict.fromkeys(("50", "51", "57", "70"), "jpeg8_decode"),
    **dict.fromkeys(("80", "81"), "jpegls_decode"),
    **dict.fromkeys(("90", "91", "92", "93", "201", "202", "203"), "jpeg2k_decode"),
})  # fmt: skip
#: JPEG of which libjpeg tells what is lost; flat ones without loss honestly end in zeros.
_WITH_LOSS = frozenset({"50", "51"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_PALETTE = "PALETTE COLOR"


def is_known(part: Part) -> bool:
    """Whether frames of its kind are read here."""
    syntax = not part.packed or part.syntax == _RLE or part.syntax.removeprefix(_ROOT) in _DECODERS
    grey = part.samples == 1 and part.photometric in _GREY | {_PALETTE}
    colours = part.samples == 3 and part.photometric in _COLOURS
    subsampled = part.photometric == "YBR_FULL_422" and not part.packed
    of_eight = part.bits == 8 or part.photometric in _GREY | {"RGB", _PALETTE}
    return (
        syntax
        and (grey or colours)
        and part.bits in (8, 16)
        and 0 < part.stored <= part.bits
        and of_eight
        and not part.signed
        and not (subsampled and (part.planar or part.tile[0] % 2))
    )


class Colours:
    """What the frames of a part become: `samples` of `dtype`."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._palette = _palette(part.path) if part.photometric == _PALETTE else None
        self.samples = 1 if part.photometric in _GREY else 3
        self._stored: np.dtype[Any] = np.dtype(np.uint8 if part.bits == 8 else np.uint16)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8) if self._palette else self._stored

    def of(self, frame: bytes) -> Pixels:
        """One frame: (rows, columns, samples).

        Raises
        ------
        ConversionError
            `damaged`.
        """
        part = self._part
        try:
            if part.jpeg:
                return _of_jpeg(frame, part.photometric)
            pixels = _unpacked(frame, part)
        except (ValueError, RuntimeError, TypeError) as error:
            raise damaged(error) from error
        if pixels.dtype != self._stored or pixels.shape[2] != part.samples:
            raise damaged(f"a frame has {pixels.shape[2]} samples of {pixels.dtype}")
        if self._palette is not None:
            first, colours = self._palette
            index = np.clip(pixels[:, :, 0].astype(int) - first, 0, len(colours) - 1)
            found: Pixels = np.take(colours, index, axis=0)
            return found
        most = (1 << part.stored) - 1
        if part.stored < part.bits:
            full = (1 << part.bits) - 1
            scaled = np.minimum(pixels, most).astype(np.uint32) * full // most
            pixels, most = scaled.astype(self.dtype), full
        if part.photometric == "MONOCHROME1":
            return most - pixels
        if part.photometric.startswith("YBR_FULL") and not (part.packed and is_rgb_decoded(frame)):
            return _rgb(pixels)
        return pixels


def _of_jpeg(frame: bytes, stated: str) -> Pixels:
    import imagecodecs

    ycbcr = jpeg.is_ycbcr(frame, stated=stated != "RGB")
    ycbcr = stated != "RGB" if ycbcr is None else ycbcr
    pixels: Pixels = imagecodecs.jpeg8_decode(
        frame, colorspace="YCBCR" if ycbcr else "RGB", outcolorspace="RGB"
    )
    # imagecodecs drops what libjpeg says of it.
    refuse_lost_of_jpeg(frame)
    return pixels


def _unpacked(frame: bytes, part: Part) -> Pixels:
    """The samples as they are stored: (rows, columns, samples)."""
    import imagecodecs

    wide, tall = part.tile
    kind = "<u1" if part.bits == 8 else "<u2"
    if not part.packed and part.photometric == "YBR_FULL_422":
        pairs = np.frombuffer(frame, kind).reshape(tall, wide // 2, 4)
        chroma = np.repeat(pairs[:, :, 2:], 2, axis=1)
        return np.dstack([pairs[:, :, :2].reshape(tall, wide), chroma])
    if not part.packed or part.syntax == _RLE:
        planar = part.planar or part.packed
        data = imagecodecs.dicomrle_decode(frame, kind) if part.packed else frame
        samples = np.frombuffer(data, kind)
        if planar:
            return np.ascontiguousarray(samples.reshape(-1, tall, wide).transpose(1, 2, 0))
        return samples.reshape(tall, wide, -1)
    decode: Callable[[bytes], Pixels] = getattr(
        imagecodecs, _DECODERS[part.syntax.removeprefix(_ROOT)]
    )
    check_units(frame)
    pixels = decode(frame)
    if part.syntax.removeprefix(_ROOT) in _WITH_LOSS and pixels.dtype == np.uint8:
        refuse_lost_of_jpeg(frame)
    return pixels.reshape(*pixels.shape[:2], -1)


def _rgb(pixels: Pixels) -> Pixels:
    """YCbCr of the full range as RGB (PS3.3, C.7.6.3.1.2)."""
    luma, blue, red = (pixels[:, :, one].astype(np.float32) for one in range(3))
    blue, red = blue - 128, red - 128
    found = np.dstack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    )
    rounded: Pixels = np.clip(np.rint(found), 0, 255).astype(np.uint8)
    return rounded


def _palette(path: str) -> tuple[int, Pixels]:
    """(the first value, the colours from it on) of 8 bits, as a palette of a TIFF is shown."""
    import pydicom

    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tags = [
        *(f"{name}{what}" for name in names for what in ("Descriptor", "Data")),
        "BitsAllocated",
    ]
    header: Any = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    columns: list[Pixels] = []
    first = bits = 0
    try:
        for name in names:
            count, first, bits = (int(one) for one in header[f"{name}Descriptor"].value)
            columns.append(_entries(bytes(header[f"{name}Data"].value), count or 1 << 16))
    except (KeyError, TypeError, ValueError) as error:
        raise ConversionError(
            "unsupported_format", "its palette is in segments, or is not there: export it as RGB"
        ) from error
    colours = np.stack(columns, axis=1)
    # Some writers state 16 bits of values of 8.
    wide = bits > 8 and colours.max(initial=0) > 255
    return first, (colours >> 8 if wide else colours).astype(np.uint8)


def _entries(data: bytes, count: int) -> Pixels:
    """The values of one palette, of a byte each or of two.

    Raises
    ------
    ValueError
        There are fewer.
    """
    wide = len(data) >= 2 * count
    return np.frombuffer(data, "<u2" if wide else "<u1", count).astype(np.uint16)
