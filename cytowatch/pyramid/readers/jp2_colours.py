"""What the samples of a JPEG 2000 mean, by the boxes around its codestream, and their colours as RGB or grey.

Source: ISO/IEC 15444-1, Annex I.5.3 (colr, pclr, cmap, cdef); ISO/IEC 15444-2, table M.25 (EnumCS).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cytowatch.pyramid.colours import rgb_of_ycbcr
from cytowatch.pyramid.meaning import Meaning
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.samples import banded, spread, unmultiplied
from cytowatch.record.errors import ConversionError

__all__ = ["Palette", "Samples", "samples"]

#: What OpenJPEG writes where it knows nothing of the colours.
_UNSAID = 0
_CMYK, _SYCC = 12, 18
#: Samples that are colours, by EnumCS and by the colour space of an ICC profile.
_BY_NUMBER = {_CMYK: 4, 15: 1, 16: 3, 17: 1, _SYCC: 3}
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
#: Of a channel, in cmap: a component as it is, or through a column of the palette.
_DIRECT = 0
#: A palette has at most so many entries; more would be an index of more than 10 bits.
_MOST_ENTRIES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """`channels` are (component, column), of which the column is None for a component as it is."""

    columns: tuple[Pixels, ...]
    channels: tuple[tuple[int, int | None], ...]

    def expanded(self, pixels: Pixels, bits: int) -> Pixels:
        """The channels of pixels that are indices, spread over 8 or 16 bits; a component has `bits`."""
        wide = self.columns[0].dtype
        found = np.empty((*pixels.shape[:2], len(self.channels)), wide)
        for number, (component, column) in enumerate(self.channels):
            plane = pixels[:, :, component]
            if column is None:
                full, most = (1 << 8 * wide.itemsize) - 1, (1 << bits) - 1
                found[:, :, number] = np.rint(plane * (full / most))
                continue
            table = self.columns[column]
            found[:, :, number] = table[np.minimum(plane, len(table) - 1)]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A decoded pixel has `stored` samples of `bits`, and what `means` says of them.

    `profile` is one that the decoder does not apply. With `bare` the decoder is not given the boxes:
    it has samples in the order of the codestream, which `order` and `palette` turn into colours.
    """

    stored: int
    bits: int
    means: Meaning
    profile: bytes | None
    done: tuple[str, ...]
    bare: bool = False
    order: tuple[int, ...] = ()
    palette: Palette | None = None
    ycc: bool = False

    def plain(self, pixels: Pixels) -> Pixels:
        """The colours of decoded pixels, and behind them the transparency, of 8 or 16 unsigned bits."""
        return banded(self._plain, pixels)

    def _plain(self, pixels: Pixels) -> Pixels:
        if self.palette is not None:
            pixels = self.palette.expanded(_unsigned(pixels, self.bits), self.bits)
        else:
            pixels = spread(_unsigned(pixels, self.bits), self.bits)
        if self.bare:
            pixels = pixels[:, :, self.order]
        colours = pixels[:, :, : self.means.colours]
        if self.bare and self.ycc:
            colours = rgb_of_ycbcr(colours)
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


def samples(boxes: Sequence[tuple[bytes, bytes]], depths: Sequence[int]) -> Samples:
    """What they are, by the `boxes` of the header; `depths` are those of the components, as SIZ has them.

    Raises
    ------
    ConversionError
        `unsupported_samples`: the decoder leaves their colours as they are, and nothing here converts
        them, or their components differ.
    """
    found = dict(reversed(boxes))
    if len(set(depths)) > 1:
        bits = ", ".join(str(_bits(one)) for one in depths)
        raise ConversionError(
            "unsupported_samples", f"its components are of different kinds: {bits} bits"
        )
    palette = (
        _palette(found[b"pclr"], found.get(b"cmap"), len(depths)) if b"pclr" in found else None
    )
    # The colours of a palette have bits of their own, however few its indices have.
    depth = depths[0] if palette is None else found[b"pclr"][3]
    count = len(depths) if palette is None else len(palette.channels)
    colours, profile, number = _colours(boxes, count)
    grey = profile is not None and profile[16:20] == b"GRAY"
    bare = palette is not None or grey
    means, order = _meaning(colours, count, found.get(b"cdef", b""))
    done = []
    if depth & _SIGNED:
        done.append("its signed samples were shifted to unsigned ones")
    if profile and not bare and colours != _BY_PROFILE[b"CMYK"]:
        if colours == _BY_PROFILE[b"RGB "]:
            # imagecodecs does it by itself, so the profile is not embedded once more.
            done.append("its colours were converted to sRGB through its ICC profile")
        profile = None
    if palette is not None:
        done.append("its palette was expanded")
    if _bits(depth) not in (8, 16):
        whole = 8 if _bits(depth) < 8 else 16
        how = "expanded" if _bits(depth) < 16 else "reduced"
        done.append(f"its {_bits(depth)}-bit samples were {how} to {whole} bits")
    if means.alpha is not None and b"cdef" not in found:
        done.append("its last sample was taken for transparency: nothing in it says what it is")
    if count > means.colours + (means.alpha is not None):
        first = "first is" if means.colours == 1 else f"first {means.colours} are"
        done.append(f"it has {count} samples per pixel: the {first} the pyramid")
    return Samples(
        stored=len(depths),
        bits=_bits(depths[0]),
        means=means,
        profile=profile,
        done=tuple(done),
        bare=bare,
        order=order,
        palette=palette,
        ycc=number == _SYCC,
    )


def _bits(depth: int) -> int:
    return (depth & ~_SIGNED) + 1


def _palette(stored: bytes, mapped: bytes | None, components: int) -> Palette:
    """The palette; without a map each of its columns is a channel, by the first component.

    Raises
    ------
    ValueError
        It is damaged.
    ConversionError
        `unsupported_samples`: its columns have a sign, or more than 16 bits.
    """
    entries, count = struct.unpack_from(">HB", stored)
    depths = stored[3 : 3 + count]
    if any(depth & _SIGNED or _bits(depth) > 16 for depth in depths):
        raise ConversionError("unsupported_samples", "its palette has a sign, or more than 16 bits")
    if not count or not 0 < entries <= _MOST_ENTRIES or len(depths) < count:
        raise ValueError(f"a palette of {entries} entries in {count} columns")
    sizes = [1 if _bits(depth) <= 8 else 2 for depth in depths]
    row = np.frombuffer(stored, np.uint8, entries * sum(sizes), 3 + count).reshape(entries, -1)
    whole = np.dtype(np.uint16 if max(sizes) == 2 else np.uint8)
    columns = []
    at = 0
    for depth, size in zip(depths, sizes, strict=True):
        part = np.ascontiguousarray(row[:, at : at + size]).view(f">u{size}")[:, 0].astype(float)
        full = (1 << 8 * whole.itemsize) - 1
        columns.append(
            np.rint(part * (full / ((1 << _bits(depth)) - 1))).clip(0, full).astype(whole)
        )
        at += size
    channels: tuple[tuple[int, int | None], ...] = tuple((0, n) for n in range(count))
    if mapped is not None:
        told = [struct.unpack_from(">HBB", mapped, n) for n in range(0, len(mapped) - 3, 4)]
        channels = tuple((one, None if how == _DIRECT else column) for one, how, column in told)
    if not channels or any(one >= components or (column or 0) >= count for one, column in channels):
        raise ValueError("a palette whose map leads beyond it")
    return Palette(columns=tuple(columns), channels=channels)


def _colours(
    boxes: Sequence[tuple[bytes, bytes]], stored: int
) -> tuple[int, bytes | None, int | None]:
    """(how many samples are colours, their ICC profile, EnumCS), by the first box that tells it."""
    colours: int | None = None
    profile: bytes | None = None
    number: int | None = None
    for kind, data in boxes:
        if kind != b"colr" or not data or data[0] not in (1, 2):
            continue
        if data[0] == 1:
            [number] = struct.unpack_from(">I", data, 3)
            if number == _UNSAID:
                break
            colours, name = _BY_NUMBER.get(number), _FOREIGN.get(number, f"of kind {number}")
        else:
            profile, space = data[3:], data[19:23]
            colours = _BY_PROFILE.get(space)
            named = space.decode("ascii", "replace").strip("\0 ")
            name = (
                f"those of an ICC profile {f'for {named}' if named else 'without a colour space'}"
            )
        if colours is None:
            raise ConversionError(
                "unsupported_samples", f"its colours are {name}, which nothing here converts"
            )
        break
    if colours == 4 and stored < 4:
        raise ConversionError("unsupported_samples", f"CMYK takes 4 samples, it has {stored}")
    if colours is None or colours > stored:
        colours = 3 if stored >= 3 else 1
    return colours, profile, number


def _meaning(colours: int, stored: int, definitions: bytes) -> tuple[Meaning, tuple[int, ...]]:
    """Which samples are colours and which one is transparency, and the place of each sample.

    The decoder puts each colour into its place, and what was there into that of the colour. Where nothing is
    defined, one sample more than there are colours is transparency for all programs that read JPEG 2000.
    """
    order = list(range(stored))
    alpha: tuple[int, int] | None = None
    if not definitions and stored == colours + 1:
        alpha = stored - 1, _OPACITY
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
        return Meaning(colours=colours), tuple(order)
    number, use = alpha
    means = Meaning(colours=colours, alpha=order.index(number), premultiplied=use == _PREMULTIPLIED)
    return means, tuple(order)
