"""Opening a flat image, and making of it what a pyramid can hold: 8 or 16 bits, grey or RGB."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyvips
from PIL import ImageCms

from cytowatch.config import Config
from cytowatch.formats.structure import jpeg
from cytowatch.formats.structure.main import main_page
from cytowatch.formats.structure.places import misplaced
from cytowatch.formats.structure.tiff import Tiff, TiffError
from cytowatch.pyramid import resolution
from cytowatch.pyramid.complaints import first_line, noted, refuse_lost, refuse_lost_of_jpeg
from cytowatch.pyramid.orientation import of_file
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.pages import open_page, told_of_pages
from cytowatch.pyramid.readers.whole import Whole
from cytowatch.pyramid.refusals import (
    check_expansion,
    check_memory,
    check_size,
    damaged,
    unsupported,
)
from cytowatch.pyramid.regions import Opened, Scene
from cytowatch.pyramid.samples import spread
from cytowatch.record.errors import ConversionError
from cytowatch.record.quoting import plain, quoting

__all__ = ["COMPLAINED", "Source", "normalised", "open_second", "open_strict", "orientation"]

#: What libvips makes of a source.
Source = Any

#: So begins what is said of an image that libvips was not content with.
COMPLAINED = "libvips said "
_BY_HEAD = ((b"\xff\xd8", "jpeg"), (b"\x89PNG", "png"), (b"II", "tiff"), (b"MM", "tiff"))
_ICC_PROFILE = "icc-profile-data"
#: Classes of ICC profiles that say what the samples of a picture are: of scanners, monitors, printers, and of none.
_OF_DEVICES = frozenset({b"scnr", b"mntr", b"prtr", b"spac"})
#: Under this name an image keeps which page of its file it is.
_PAGE = "cytowatch-page"


def open_strict(path: str, config: Config) -> Source:
    """The main image of `path`, read row by row; the slightest warning is an error.

    Raises
    ------
    pyvips.Error
        It cannot be read, or only with a warning (which may come later, while it is read).
    ConversionError
        It is larger than the limits allow, or a TIFF that does not say where its pixels are.
    """
    page = _checked_page(path)
    options: dict[str, Any] = {"fail_on": "warning", **({"page": page} if page else {})}
    image = pyvips.Image.new_from_file(path, access="sequential", **options)
    check_size(image.width, image.height, config, samples=image.bands)
    whole_bytes = image.width * image.height * image.bands * _bytes_per_sample(image)
    check_expansion(whole_bytes, os.stat(path).st_size, config)
    if _is_set(image, "jpeg-multiscan"):
        # libjpeg keeps every coefficient, of two bytes, until the last scan is read.
        check_memory(2 * whole_bytes, config, "it is a progressive JPEG, and holding it whole")
    if _is_set(image, "interlaced"):
        check_memory(whole_bytes, config, "it is interlaced, and holding it whole")
    turn = _orientation_of(path, image)
    if turn != 1:
        # Turning needs the pixels in another order than the file has them.
        check_memory(whole_bytes, config, "turning it upright")
        image = pyvips.Image.new_from_file(path, access="random", **options)
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", turn)
    image.set_type(pyvips.GValue.gint_type, _PAGE, page)
    return image


def _checked_page(path: str) -> int:
    """The number of the page that is the image, 0 of what is not a TIFF.

    libvips shows other bytes of the file for a tile of which it does not know where it is.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tiff = Tiff(descriptor, os.fstat(descriptor).st_size)
        page = main_page(tiff)
        directory = tiff.directories[page]
        if said := misplaced(directory.segments(), tiled=directory.tiled):
            raise damaged(said)
        return page
    except TiffError:
        return 0
    finally:
        os.close(descriptor)


def open_second(path: str, config: Config, first_error: str) -> tuple[Opened, str]:
    """The image by another library, or by libvips in spite of a warning, and a line that says so.

    Raises
    ------
    ConversionError
        `damaged`: that one cannot read it either.
    """
    said = first_line(first_error)
    with open(path, "rb") as file:
        head = file.read(4)
    kind = next((kind for magic, kind in _BY_HEAD if head.startswith(magic)), None)
    # Of each JPEG in a TIFF it is asked again: only the end marker may be absent.
    if kind != "tiff" or "premature end" not in first_error.lower():
        refuse_lost(first_error)
    if kind is None:
        raise ConversionError("damaged", quoting("its pixels cannot be read", said))
    try:
        opened = open_page(path, config) if kind == "tiff" else _whole(path, kind, config)
    except ConversionError as error:
        if error.reason != "damaged":
            raise
        # Of a TIFF the second reader, which knows more ways of packing, has said it already.
        if kind != "tiff" and (refusal := unsupported(said)):
            raise refusal from error
        second = error.detail.removeprefix("its pixels cannot be read").lstrip(": ")
        if second == f"({plain(said)})":
            raise ConversionError(
                "damaged", "two readers were tried, and neither opens it"
            ) from error
        raise ConversionError(
            "damaged",
            f"two readers cannot read its pixels (libvips: {plain(said)}; the other: {second.strip('()')})",
        ) from error
    if opened.reader == "libvips":
        return opened, f"{COMPLAINED}{said!r}, and read the whole image"
    return opened, f"{COMPLAINED}{said!r}; {opened.reader} read the whole image"


def _whole(path: str, kind: str, config: Config) -> Opened:
    """A PNG or JPEG with what its head says of its pixels."""
    try:
        header = pyvips.Image.new_from_file(path, access="sequential", fail_on="none")
        check_size(header.width, header.height, config)
        need = 2 * header.width * header.height * header.bands * _bytes_per_sample(header)
        check_memory(need + os.stat(path).st_size, config, "reading it whole")
        pixels = _in_spite_of_warnings(header, path) if kind == "jpeg" else None
        reader = "imagecodecs" if pixels is None else "libvips"
        done: tuple[str, ...] = ()
        if pixels is None:
            pixels, done = _by_imagecodecs(path, kind)
    except (ConversionError, MemoryError):
        raise
    except Exception as error:
        raise ConversionError(
            "damaged", quoting("its pixels cannot be read", first_line(str(error)))
        ) from error
    if pixels.shape[:2] != (header.height, header.width):
        raise ConversionError("damaged", "two readers disagree about its size")
    cmyk = header.interpretation == "cmyk"
    if cmyk and reader != "libvips":
        raise ConversionError("unsupported_samples", "its inks have not 8 bits")
    scene = Scene(
        region=Whole(pixels),
        mpp=resolution.stated(path, header.xres, header.yres),
        icc_profile=header.get(_ICC_PROFILE) if header.get_typeof(_ICC_PROFILE) else None,
        cmyk=cmyk,
        orientation=_orientation_of(path, header),
        done=done,
    )
    return Opened(scenes=[scene], reader=reader)


def _in_spite_of_warnings(image: Source, path: str) -> Pixels | None:
    """The pixels of a JPEG that libvips reads, unless some are lost; None where it reads none."""
    noted()
    try:
        pixels: Pixels = image.numpy()
    except pyvips.Error:
        return None
    refuse_lost(noted())
    with open(path, "rb") as file:
        refuse_lost_of_jpeg(file.read())
    return pixels


def _by_imagecodecs(path: str, kind: str) -> tuple[Pixels, tuple[str, ...]]:
    """The pixels, and what was done to them."""
    import imagecodecs

    with open(path, "rb") as file:
        data = file.read()
    if kind == "png":
        return np.asarray(imagecodecs.png_decode(data)), ()
    pixels = np.asarray(imagecodecs.jpeg_decode(data))
    if pixels.dtype != np.uint16:
        return pixels, ()
    bits = jpeg.precision(data)
    if bits == 16:
        return pixels, ()
    return spread(pixels, bits), (f"its {bits}-bit samples were expanded to 16 bits",)


def normalised(image: Source, before: Sequence[str] = ()) -> tuple[Source, list[str]]:
    """`image` with 8 or 16 unsigned bits and one or three samples, and what was done to it.

    `before` is what a reader has done to it already.

    Raises
    ------
    ConversionError
        `unsupported_samples`.
    """
    done: list[str] = []
    turned = orientation(image)
    if turned != 1:
        image = image.autorot()
        done.append(f"turned upright: its orientation tag said {turned}")
    if image.get_typeof("n-pages"):
        page = image.get(_PAGE) if image.get_typeof(_PAGE) else 0
        done += told_of_pages(image.get("n-pages"), page)
    if image.get_typeof("palette") or image.get_typeof("palette-bit-depth"):
        done.append("its palette was expanded to RGB")
    bits = image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else 8
    if bits < 8:
        done.append(f"its {bits}-bit samples were expanded to 8 bits")
    if image.interpretation == "cmyk":
        image, said = _rgb_of_inks(image)
        done.append(said)
    elif image.interpretation in ("lab", "labs", "xyz", "hsv", "lch"):
        done.append(f"converted from {image.interpretation} to sRGB")
        image = image.colourspace("srgb")
    if image.hasalpha():
        white = 65535 if image.format == "ushort" else 255
        image = image.flatten(background=[white], max_alpha=white)
        done.append("its transparency was laid over white")
    if image.format not in ("uchar", "ushort"):
        raise ConversionError("unsupported_samples", f"its samples are of the kind {image.format}")
    if image.bands not in (1, 3):
        kept = 3 if image.bands > 3 else 1
        done.append(f"it has {image.bands} samples per pixel: the first {kept} are the pyramid")
        image = image.extract_band(0, n=kept)
    image, said_of_profile = _with_usable_profile(image)
    done += said_of_profile
    changed = any("16 bits" in line or "16-bit" in line for line in before)
    if image.format == "ushort" and not changed:
        done.append("its 16-bit samples are kept, without loss")
    return image, done


def _with_usable_profile(image: Source) -> tuple[Source, list[str]]:
    """`image` without an ICC profile that a viewer would fail at, and what is to be said about that."""
    profile = bytes(image.get(_ICC_PROFILE)) if image.get_typeof(_ICC_PROFILE) else b""
    # A grey picture is shown in three samples, so that one for RGB fits as well.
    spaces = (b"RGB ",) if image.bands == 3 else (b"GRAY", b"RGB ")
    if not profile or (
        profile[16:20] in spaces and profile[12:16] in _OF_DEVICES and _opens(profile)
    ):
        return image, []
    why = "is damaged" if not _opens(profile) else "is not for its colours"
    image = image.copy()
    image.remove(_ICC_PROFILE)
    return image, [f"its ICC profile {why}, and was left out"]


def _opens(profile: bytes) -> bool:
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except OSError:
        return False
    return True


def _rgb_of_inks(image: Source) -> tuple[Source, str]:
    """CMYK, and behind it the transparency if it has one, as 8-bit sRGB; and what was done to it."""
    inks = image.extract_band(0, n=4)
    own = _profile_of_inks(image)
    if own is None and inks.get_typeof(_ICC_PROFILE):
        # libvips would complain of one that is not for inks, and then leave it in.
        inks = inks.copy()
        inks.remove(_ICC_PROFILE)
    colours = inks.icc_transform(
        "srgb", embedded=own is not None, input_profile="cmyk", intent="relative"
    )
    through = (
        "through its profile" if own else "through a general profile, as it has none of its own"
    )
    fewer = " of 8 bits" if image.format == "ushort" else ""
    if image.bands > 4:
        # Here, because a transform would keep the numbers of an alpha of 16 bits, and cut them off.
        alpha = image[4] >> 8 if image.format == "ushort" else image[4]
        colours = colours.bandjoin(alpha.cast("uchar"))
    return colours, f"converted from CMYK to sRGB{fewer} {through}"


def _profile_of_inks(image: Source) -> bytes | None:
    """Its ICC profile, if that can turn CMYK into other colours."""
    profile = bytes(image.get(_ICC_PROFILE)) if image.get_typeof(_ICC_PROFILE) else b""
    if profile[16:20] != b"CMYK":
        return None
    return profile if _opens(profile) else None


def orientation(image: Source) -> int:
    """Which way it must be turned, 1 to 8 as in TIFF and EXIF: 1 not at all, from 5 on axes change places."""
    found = int(image.get("orientation")) if image.get_typeof("orientation") else 1
    return found if found in range(1, 9) else 1


def _orientation_of(path: str, image: Source) -> int:
    """The same, and what else the file at `path` says than libvips knows."""
    return of_file(path) or orientation(image)


def _is_set(image: Source, name: str) -> bool:
    return bool(image.get_typeof(name)) and bool(image.get(name))


def _bytes_per_sample(image: Source) -> int:
    return {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "double": 8}.get(image.format, 4)
