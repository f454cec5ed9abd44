"""TIFFs with JPEG tiles of another size than their directory states, as where a writer cuts off those at the edge.

libvips decodes such tiles by itself and leaves what is in the buffer in the place of missing pixels, without a word;
OpenSlide refuses each of them when a viewer asks for it. tifffile reads those that are cut off at the edge of the
image, and refuses others.

Source: TIFF Technical Note 2 (the size of a JPEG is that of its tile); found out against libvips 8.18
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cytowatch.formats.structure import jpeg
from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError

__all__ = ["at_edges", "differ"]

_JPEG = 7
#: The frame mostly begins before; else behind a profile.
_SHORT_HEAD, _LONG_HEAD = 512, 1 << 17


def differ(page: Directory) -> bool:
    """Whether any JPEG tile of a page is not as large as its tiles are said to be.

    Raises
    ------
    TiffError
        A tag lies beyond the end of the file.
    """
    return _differ(page, page.segments())


def at_edges(tiff: Tiff) -> str | None:
    """That the first or a last tile of a level is of another size, as a phrase; None if none is.

    Others are not looked at: a large slide has millions of them.
    """
    for directory in tiff.directories:
        try:
            if _differ(directory, _edges(directory)):
                return "JPEG tiles of other sizes than it states"
        except TiffError:
            # Another check reports what lies beyond the end.
            continue
    return None


def _edges(page: Directory) -> Iterator[tuple[int, int]]:
    width, height = page.size
    across, down = -(-width // max(1, page.number(322))), -(-height // max(1, page.number(323)))
    # An image without pixels may have tiles as well.
    across = max(1, across)
    for number, place in enumerate(page.segments()):
        if number == 0 or (number + 1) % across == 0 or number >= across * (down - 1):
            yield place


def _differ(page: Directory, places: Iterable[tuple[int, int]]) -> bool:
    if not page.tiled or page.number(259) != _JPEG:
        return False
    stated = (page.number(322), page.number(323))
    return any(
        (found := _size(page.tiff, at, count)) is not None and found != stated
        for at, count in places
        if at and count
    )


def _size(tiff: Tiff, at: int, count: int) -> tuple[int, int] | None:
    """(width, height) of the JPEG at `at`; None where none is stated, which its decoder reports."""
    for most in (_SHORT_HEAD, _LONG_HEAD):
        found = jpeg.size(tiff.bytes(at, min(count, most)))
        if found is not None or count <= most:
            return found
    return None
