"""Whether a slide can be deployed as it is: every level opened by the reader that viewers use."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

import openslide

from cytowatch.config.keys import Limits
from cytowatch.formats import Format, limits
from cytowatch.formats.completeness.uploaded import incomplete
from cytowatch.formats.structure.tiff import Tiff, TiffError
from cytowatch.pyramid import contradicted, tile_sizes
from cytowatch.pyramid.readers import dicom
from cytowatch.record import lacking
from cytowatch.record.errors import FormatError
from cytowatch.record.quoting import quoting

__all__ = ["contradiction", "derived_instead", "is_small", "judged", "opened", "why_derived"]

#: A flat image up to this many pixels per side stays as it is with ``convert.derive = "large"``.
_SMALL_PX = 1024
#: What a series in DICOM has beside the slide, by the third value of ImageType.
_BESIDE = {
    "LABEL": "the label", "OVERVIEW": "the overview", "LOCALIZER": "the overview", "THUMBNAIL": "the thumbnail",
}  # fmt: skip
#: What OpenSlide says of kinds that it does not know; its words for a file of no vendor begin alike.
_UNSUPPORTED = re.compile(r"\bunsupported\b(?! or missing)|\bnot supported\b", re.IGNORECASE)
_OTHER_PACKING = "Unsupported TIFF compression"
_ONE_FILE = "export it from the scanner with one file per level"
_REDUCED = (
    "its files hold only reduced copies of the slide (RESAMPLED), not the image as it was scanned: if there is a "
    "larger file of it, send all of them together"
)
_SEND_ALL = "copy all files of its series together into one folder"


def opened(path: str, shown: int, allowed: Limits) -> tuple[str | None, str | None]:
    """(vendor, None) if OpenSlide can read a pixel of every level, else (None, why not).

    Raises
    ------
    FormatError
        `too_many_pixels` or `side_too_long`: nothing of it was read.
    """
    try:
        with openslide.OpenSlide(path) as slide:
            width, height = slide.dimensions
            if refusal := limits.of_image(width, height, allowed):
                raise FormatError(*refusal)
            if slide.level_count < shown:
                return None, f"it shows {slide.level_count} of {shown} levels"
            for level, (width, height) in enumerate(slide.level_dimensions):
                scale = slide.level_downsamples[level]
                middle = (int(width * scale / 2), int(height * scale / 2))
                slide.read_region(middle, level, (1, 1))
            return slide.properties.get(openslide.PROPERTY_NAME_VENDOR), None
    except openslide.OpenSlideError as error:
        return None, str(error)[:300] or type(error).__name__


def judged(
    found: Format, path: str, refusal: str | None, misread: str | None, unheeded: str | None
) -> list[str]:
    """What there is to say about a vendor's slide that is deployed as it is.

    Raises
    ------
    FormatError
        As `_judged` says, or in the words of a person where they are known.
    """
    if found.id in _OWN_JUDGES:
        return _OWN_JUDGES[found.id](found, path, refusal)
    return _judged(found, refusal, misread, unheeded)


def derived_instead(
    found: Format, path: str, refusal: str | None, ascending: str | None
) -> str | None:
    """Why a pyramid is derived of a vendor's slide that something else reads too; None if it is not."""
    instead = _INSTEAD.get(found.id)
    return instead(path, refusal, ascending) if instead is not None else None


def why_derived(found: Format, refusal: str | None) -> str:
    """What OpenSlide does to a slide of which a pyramid is derived, and which it refuses, or does not."""
    shown = found.id in _INSTEAD and refusal is None
    return "would show it wrongly" if shown else "does not read it"


def _judged(
    found: Format, refusal: str | None, misread: str | None, unheeded: str | None
) -> list[str]:
    """What there is to say about a vendor's slide, which nothing but OpenSlide reads.

    Raises
    ------
    FormatError
        `unreadable`, or `unsupported_format`: its samples would be shown as something else.
    """
    if refusal is not None and _UNSUPPORTED.search(refusal):
        said = f"it is {found.name} of a kind that is not supported"
        raise FormatError("unsupported_format", quoting(said, refusal))
    if refusal is not None:
        said = f"it is marked as {found.name}, and OpenSlide cannot open it"
        raise FormatError("unreadable", quoting(said, refusal))
    if misread is not None:
        raise FormatError(
            "unsupported_format",
            f"it is {found.name} with {misread}, and OpenSlide shows only 8 bits",
        )
    return [f"it has {unheeded}: OpenSlide pays no heed to that"] if unheeded else []


def _judged_dicom(found: Format, path: str, refusal: str | None) -> list[str]:
    """What there is to say about a slide in DICOM that is deployed as it is.

    Raises
    ------
    FormatError
        `unreadable` or `incomplete`, in the words of a person where they are known.
    """
    parts = dicom.parts(path)
    if (missing := dicom.missing_file(parts)) is not None:
        raise incomplete(f"missing {missing}", None)
    if refusal is not None and (pair := dicom.twice(parts)) is not None:
        one, other = (os.path.basename(part.path) for part in pair)
        wide, tall = pair[0].size
        raise FormatError(
            "unreadable",
            f"two of its files hold the same level of {wide} x {tall} pixels, {one} and {other}: send it "
            f"once more with one of them. OpenSlide says: {refusal}",
        )
    if refusal is not None and (astray := dicom.astray(parts)) is not None:
        raise FormatError("unreadable", quoting(f"{astray}: {_ONE_FILE}", refusal))
    if refusal is not None and (kinds := _without_slide(parts)):
        raise FormatError("unsupported_format", lacking.kind(kinds, _SEND_ALL))
    warnings = [*_judged(found, refusal, None, None), *dicom.left_out(parts)]
    if said := dicom.contradiction(parts):
        warnings.append(f"its colours may be shown wrongly: {said}")
    levels = [one for one in parts if one.kind == "VOLUME"]
    if levels and all(one.resampled for one in levels):
        warnings.append(_REDUCED)
    return warnings


def _without_slide(parts: Sequence[dicom.Part]) -> str:
    """What a slide in DICOM consists of, if no part of it is the slide itself; empty if one is."""
    kinds = [_BESIDE.get(one.kind, "a picture") for one in parts]
    if not kinds or any(one.kind == "VOLUME" for one in parts):
        return ""
    return f"{' and '.join(dict.fromkeys(kinds))} of a slide in DICOM, without the slide itself"


def is_small(path: str) -> bool:
    """Whether it may stay as it is: small, and read by libvips without a word."""
    import pyvips

    try:
        image = pyvips.Image.new_from_file(path, fail_on="warning")
        if max(image.width, image.height) > _SMALL_PX:
            return False
        # What is odd about it a conversion has a second reader for, and the words.
        image.avg()
    except pyvips.Error:
        return False
    return True


def contradiction(found: Format, tiff: Tiff) -> str | None:
    """How its tiles are not what its tags state, as a phrase, if OpenSlide goes by the tags: colours, or sizes."""
    sizes = tile_sizes.at_edges(tiff) if found.else_derived else None
    return sizes or (contradicted.said(tiff) if not found.decides_colours else None)


def _aperio(path: str, refusal: str | None, ascending: str | None) -> str | None:
    if refusal is not None and refusal.startswith(_OTHER_PACKING):
        return refusal
    if refusal is not None and ascending is not None:
        return ascending
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
        # A small level may have no tile that is not at an edge.
        said = tile_sizes.at_edges(tiff)
        if refusal is None and said is None:
            said = contradicted.said(tiff)
    except TiffError:
        return None
    finally:
        os.close(descriptor)
    return f"it has {said}" if said is not None else None


def _not_shown(path: str, refusal: str | None, _ascending: str | None) -> str | None:
    parts = dicom.parts(path)
    if dicom.missing_file(parts) is not None:
        return None
    if refusal is not None and dicom.is_foreign(parts):
        return refusal
    said = dicom.contradiction(parts) if refusal is None else None
    said = said or dicom.cut_off(parts)
    return said if said is not None and dicom.is_placed(parts) else None


#: Checks for the slides of one vendor, by the id of the format.
_INSTEAD: dict[str, Callable[[str, str | None, str | None], str | None]] = {
    "aperio-svs": _aperio,
    "dicom": _not_shown,
}
_OWN_JUDGES: dict[str, Callable[[Format, str, str | None], list[str]]] = {"dicom": _judged_dicom}
