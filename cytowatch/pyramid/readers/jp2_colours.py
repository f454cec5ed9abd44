"""What the samples of a JPEG 2000 mean, by the boxes around its codestream.

Source: ISO/IEC 15444-1, Annex I.5.3 (colr, pclr, cmap, cdef); ISO/IEC 15444-2, table M.25 (EnumCS).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cytowatch.errors import ConversionError
from cytowatch.pyramid.meaning import Meaning
from cytowatch.pyramid.regions import Pixels
from cytowatch.pyramid.samples import banded, spread, unmultiplied

__all__ = ["Samples", "samples"]

#: What OpenJPEG writes where it knows nothing of the colours.
_UNSAID = 0
_CMYK = 12
#: Samples that are colours, by EnumCS and by the colour space of an ICC profile.
_BY_NUMBER = {_CMYK: 4, 15: 1, 16: 3, 17: 1, 18: 3}
_BY_PROFILE = {b"CMYK": 4, b"GRAY": 1, b"RGB ": 3}
#: EnumCS of ISO 15444-2 that the decoder leaves as they are.
_FOREIGN = {
    1: "YCbCr(1)",
    3: "YCbCr(2)",
    4: "YCbCr(3)",
    9: "PhotoYCC",
    11: "CMY",
    13: "YCCK",
    14: "CIELab",
    19: "CIEJab",
    20: "e-sRGB",
    21: "ROMM-RGB",
    24: "e-sYCC",
}
_SIGNED = 0x80
#: Of a channel, in cdef.
_COLOUR, _OPACITY, _PREMULTIPLIED = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A decoded pixel has `stored` samples of `bits`, and what `means` says of them.

    `profile` is the one of its inks, which the decoder does not apply.
    """

    stored: int
    bits: int
    means: Meaning
    profile: bytes | None
    done: tuple[str, ...]

    def plain(self, pixels: Pixels) -> Pixels:
        """The colours of decoded pixels, and behind them the transparency, of 8 or 16 unsigned bits."""
        return banded(self._plain, pixels)

    def _plain(self, pixels: Pixels) -> Pixels:
        pixels = spread(_unsigned(pixels, self.bits), self.bits)
        colours = pixels[:, :, : self.means.colours]
        if self.means.alpha is None:
            return colours
        alpha = pixels[:, :, self.means.alpha : self.means.alpha + 1]
        if self.means.premultiplied:
            colours = unmultiplied(colours, alpha)
        return np.concatenate([colours, alpha], axis=2)


def _unsigned(pixels: Pixels, bits: int) -> Pixels:
    """Signed samples are shifted by half of their range, as opj_decompress does; of more than 16 bits the first are kept."""
    if pixels.dtype.kind == "i":
        unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
        pixels = (pixels.astype(np.int64) + (1 << (bits - 1))).astype(unsigned)
    if pixels.dtype.itemsize > 2:
        pixels = (pixels >> max(0, bits - 16)).astype(np.uint16)
    return pixels


def samples(header: bytes, depths: Sequence[int]) -> Samples:
    """What they are, by the boxes of `header`; `depths` are those of the components, as SIZ has them.

    Raises
    ------
    ConversionError
        `unsupported_samples`: the decoder leaves their colours as they are, and nothing here converts
        them, or their components differ.
    """
    inside = [one for kind, data in _boxes(header) if kind == b"jp2h" for one in _boxes(data)]
    found = dict(inside)
    if len(set(depths)) > 1:
        bits = ", ".join(str(_bits(one)) for one in depths)
        raise ConversionError(
            "unsupported_samples", f"its components are of different kinds: {bits} bits"
        )
    # The colours of a palette have bits of their own, however few its indices have.
    depth = found[b"pclr"][3] if b"pclr" in found else depths[0]
    stored = len(found[b"cmap"]) // 4 if b"cmap" in found else len(depths)
    colours, profile = _colours(inside, stored)
    means = _meaning(colours, stored, found.get(b"cdef", b""))
    done = []
    if depth & _SIGNED:
        done.append("its signed samples were shifted to unsigned ones")
    if profile and colours != _BY_PROFILE[b"CMYK"]:
        # imagecodecs does it by itself, so the profile is not embedded once more.
        done.append("its colours were converted to sRGB through its ICC profile")
    if b"pclr" in found:
        done.append("its palette was expanded")
    if _bits(depth) not in (8, 16):
        whole = 8 if _bits(depth) < 8 else 16
        how = "expanded" if _bits(depth) < 16 else "reduced"
        done.append(f"its {_bits(depth)}-bit samples were {how} to {whole} bits")
    if stored > means.colours + (means.alpha is not None):
        first = "first is" if means.colours == 1 else f"first {means.colours} are"
        done.append(f"it has {stored} samples a pixel: the {first} the pyramid")
    return Samples(
        stored=stored,
        bits=_bits(depth),
        means=means,
        profile=profile if colours == _BY_PROFILE[b"CMYK"] else None,
        done=tuple(done),
    )


def _bits(depth: int) -> int:
    return (depth & ~_SIGNED) + 1


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each box."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            [length] = struct.unpack_from(">Q", data, at + 8)
            head = 16
        length = length or len(data) - at
        if length < head:
            raise ValueError(f"a box of {length} bytes")
        yield kind, data[at + head : at + length]
        at += length


def _colours(boxes: Sequence[tuple[bytes, bytes]], stored: int) -> tuple[int, bytes | None]:
    """(how many samples are colours, their ICC profile), by the first box that tells it, as the decoder does."""
    colours: int | None = None
    profile: bytes | None = None
    for kind, data in boxes:
        if kind != b"colr" or data[0] not in (1, 2):
            continue
        if data[0] == 1:
            [number] = struct.unpack_from(">I", data, 3)
            if number == _UNSAID:
                break
            colours, name = _BY_NUMBER.get(number), _FOREIGN.get(number, f"of kind {number}")
        else:
            profile, space = data[3:], data[19:23]
            colours = _BY_PROFILE.get(space)
            name = f"those of an ICC profile for {space.decode('ascii', 'replace').strip()}"
        if colours is None:
            raise ConversionError(
                "unsupported_samples", f"its colours are {name}, which nothing here converts"
            )
        break
    if colours == 4 and stored < 4:
        raise ConversionError("unsupported_samples", f"CMYK takes 4 samples, it has {stored}")
    if colours is None or colours > stored:
        colours = 3 if stored >= 3 else 1
    return colours, profile


def _meaning(colours: int, stored: int, definitions: bytes) -> Meaning:
    """Which samples are colours, and which one is transparency.

    The decoder puts each colour into its place, and what was there into that of the colour.
    """
    order = list(range(stored))
    alpha: tuple[int, int] | None = None
    for at in range(2, len(definitions) - 5, 6):
        number, use, of = struct.unpack_from(">HHH", definitions, at)
        if number >= stored:
            continue
        if use == _COLOUR and 0 < of <= stored:
            here = order.index(number)
            order[here], order[of - 1] = order[of - 1], order[here]
        if use in (_OPACITY, _PREMULTIPLIED):
            alpha = number, use
    if alpha is None or order.index(alpha[0]) < colours:
        return Meaning(colours=colours)
    number, use = alpha
    return Meaning(colours=colours, alpha=order.index(number), premultiplied=use == _PREMULTIPLIED)
