"""The header of a BMP: where its pixels lie, how large they are, and how they are packed.

Source: Microsoft, "Bitmap Storage"; https://entropymine.com/jason/bmpsuite/
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cytowatch.formats.structure.places import bytes_at

__all__ = ["LEAST_BYTES", "OS2_BYTES", "Header", "header", "parsed"]

#: The two headers of the oldest kind, OS/2 1, of which the second is the shortest that there is.
LEAST_BYTES, OS2_BYTES = 26, 12
_OS2_2_BYTES, _WINDOWS_BYTES = 64, 40
#: Up to the length of the packed pixels.
_PACKED_END = 38
_HEADER = struct.Struct("<10xIIiiHHIIiiI4x4I")
_OS2 = struct.Struct("<18xHH2xH")
#: Packings: none, by masks of bits, by masks with one for alpha.
_PLAIN = frozenset({0, 3, 6})
_RUN_LENGTH = frozenset({1, 2})
_BITS = frozenset({1, 4, 8, 16, 24, 32})


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a bitmap states; 0 where its second header, of `second_bytes`, is too short to state it.

    The pixels begin at `begin`; rows go upward unless `height` is below zero. `masks` are red, green, blue and alpha,
    as they stand behind 40 bytes of a second header or in it. If `is_cut`, the file ends before what gives its length.
    """

    begin: int
    second_bytes: int
    width: int
    height: int
    bits: int
    packing: int = 0
    packed_bytes: int = 0
    per_metre: tuple[int, int] = (0, 0)
    colours: int = 0
    masks: tuple[int, int, int, int] = (0, 0, 0, 0)
    is_cut: bool = False

    @property
    def is_windows(self) -> bool:
        """Whether its second header states more than its size and bits."""
        return self.second_bytes >= _WINDOWS_BYTES

    @property
    def is_run_length(self) -> bool:
        """Whether its pixels are codes of runs."""
        return self.packing in _RUN_LENGTH

    @property
    def has_rows(self) -> bool:
        """Whether its pixels are rows of one length, one behind the other."""
        # In a header of OS/2 the number of the masks stands for another packing.
        other = self.packing != 0 and self.second_bytes == _OS2_2_BYTES
        plain = self.packing in _PLAIN and not other
        return plain and self.width > 0 and self.bits in _BITS

    @property
    def stride(self) -> int:
        """The bytes of a row with its padding."""
        return (self.width * self.bits + 31) // 32 * 4

    @property
    def used(self) -> int:
        """The bytes of a row that hold pixels."""
        return (self.width * self.bits + 7) // 8


def header(descriptor: int) -> Header:
    """The header of the bitmap behind `descriptor`."""
    return parsed(bytes_at(descriptor, _HEADER.size, 0))


def parsed(head: bytes) -> Header:
    """The header that stands in the first bytes of a bitmap; what is not there counts as zeros.

    >>> found = parsed(b"BM" + bytes(8) + b"\\x36\\0\\0\\0\\x28\\0\\0\\0\\x05\\0\\0\\0\\xff\\xff\\xff\\xff\\1\\0\\x18\\0")
    >>> found.begin, found.width, found.height, found.bits, found.stride, found.is_cut
    (54, 5, -1, 24, 16, True)
    """
    whole = head[: _HEADER.size].ljust(_HEADER.size, b"\0")
    begin, second, width, height, _, bits, packing, packed, x, y, colours, *masks = _HEADER.unpack(
        whole
    )
    if second == OS2_BYTES:
        width, height, bits = _OS2.unpack_from(whole)
    is_cut = len(head) < (_PACKED_END if second >= _WINDOWS_BYTES else LEAST_BYTES)
    if second < _WINDOWS_BYTES:
        return Header(
            begin=begin, second_bytes=second, width=width, height=height, bits=bits, is_cut=is_cut
        )
    red, green, blue, alpha = masks
    return Header(
        begin=begin,
        second_bytes=second,
        width=width,
        height=height,
        bits=bits,
        packing=packing,
        packed_bytes=packed,
        per_metre=(x, y),
        colours=colours,
        masks=(red, green, blue, alpha),
        is_cut=is_cut,
    )
