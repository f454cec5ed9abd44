"""TIFFs whose JPEG has other colours than PhotometricInterpretation states: the JPEG is right.

libtiff and OpenSlide go by the tag only: of RGB that is called YCbCr white becomes pink, of YCbCr that is
called RGB it becomes salmon. The marks in the JPEG itself (JFIF, Adobe's, the names of its components) and
chroma that is subsampled say what it is, and viewers that let libjpeg decide show it so.

Source: TIFF Technical Note 2; JFIF 1.02; Adobe TN 5116; jdapimin.c of libjpeg
"""

from __future__ import annotations

from cytowatch.formats.structure import jpeg
from cytowatch.formats.structure.tiff import Directory, Tiff, TiffError

__all__ = ["RGB", "YCBCR", "actual", "of_stream", "said"]

RGB, YCBCR = 2, 6
_JPEG = 7
_TABLES = 347
#: The scan begins before, unless a profile is in the way.
_LONGEST_HEAD = 1 << 20


def actual(page: Directory) -> int | None:
    """PhotometricInterpretation of the JPEG of a page, where its tag says the other one; else None."""
    try:
        stated = page.number(262)
        is_contiguous = page.number(277, 1) == 3 and page.number(284, 1) == 1
        if page.number(259) != _JPEG or not is_contiguous or stated not in (RGB, YCBCR):
            return None
        first = next(((at, count) for at, count in page.segments() if at and count), None)
        if first is None:
            return None
        at, count = first
        data = page.tiff.bytes(at, min(count, _LONGEST_HEAD))
        tables = page.tags.get(_TABLES)
        shared = page.tiff.bytes(tables.offset, min(tables.count, 1 << 16)) if tables else b""
    except TiffError:
        return None
    return of_stream(jpeg.with_tables(data, shared), stated)


def of_stream(data: bytes, stated: int) -> int | None:
    """PhotometricInterpretation of a JPEG with its tables, where `stated` is the other one; else None."""
    found = jpeg.is_ycbcr(data, stated=stated == YCBCR)
    wanted = stated if found is None else YCBCR if found else RGB
    return wanted if wanted != stated else None


def said(tiff: Tiff) -> str | None:
    """How the tiles of a pyramid have other colours than are stated, as a phrase; None if they have not."""
    try:
        levels = [one for n, one in enumerate(tiff.directories) if n == 0 or one.tiled]
    except TiffError:
        return None
    found = next((one for one in map(actual, levels) if one is not None), None)
    if found is None:
        return None
    is_, stated = ("RGB", "YCbCr") if found == RGB else ("YCbCr", "RGB")
    return f"JPEG tiles that are {is_}, though it states {stated}"
