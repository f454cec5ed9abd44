"""Which directory of a TIFF is the picture: not a thumbnail or a mask that stands before it, or around it.

Source: TIFF 6.0, NewSubfileType; TIFF Technical Note 1 (SubIFDs); Adobe, Digital Negative (the first directory is
a preview, and the image is in its SubIFDs)
"""

from __future__ import annotations

from cytowatch.formats.structure.tiff import SUB_IFDS, Directory, Tiff, TiffError

__all__ = ["main_directory", "main_page", "within"]


def main_page(tiff: Tiff) -> int:
    """The number of the first directory that is neither a reduced image nor a mask; 0 if all are."""
    pages = enumerate(tiff.directories)
    return next((number for number, one in pages if not one.reduced and not one.mask), 0)


def within(tiff: Tiff) -> int | None:
    """Which SubIFD of the main page is the picture, as the page is a preview of it; None of any other.

    The levels of a pyramid are smaller than the page that they belong to; a larger image is not a level of it.
    """
    page = tiff.directories[main_page(tiff)]
    most, found = _pixels(page), None
    for number, place in enumerate(_inside(page)):
        one = tiff.by_place.get(place)
        if one is not None and not one.reduced and not one.mask and _pixels(one) > most:
            most, found = _pixels(one), number
    return found


def main_directory(tiff: Tiff) -> Directory:
    """The directory of the picture."""
    page = tiff.directories[main_page(tiff)]
    number = within(tiff)
    return page if number is None else tiff.by_place[_inside(page)[number]]


def _inside(page: Directory) -> tuple[int, ...]:
    """The places of its SubIFDs; none where their list lies beyond the end, which another check reports."""
    try:
        return page.numbers(SUB_IFDS)
    except TiffError:
        return ()


def _pixels(directory: Directory) -> int:
    try:
        width, height = directory.size
    except TiffError:
        return 0
    return width * height
