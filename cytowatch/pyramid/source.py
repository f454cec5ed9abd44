"""Opening a flat image, and making of it what a pyramid can hold: 8 or 16 bits, grey or RGB."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyvips

from cytowatch.config import Config
from cytowatch.errors import ConversionError
from cytowatch.pyramid import jpeg
from cytowatch.pyramid.readers.pages import open_page
from cytowatch.pyramid.readers.whole import Whole
from cytowatch.pyramid.regions import Opened, Scene, check_expansion, check_memory, check_size
from cytowatch.pyramid.samples import spread

__all__ = ["Source", "first_line", "normalised", "open_second", "open_strict"]

#: What libvips makes of a source.
Source = Any

_BY_HEAD = ((b"\xff\xd8", "jpeg"), (b"\x89PNG", "png"), (b"II", "tiff"), (b"MM", "tiff"))
#: libjpeg says these of pixels that are not there; no second reader has them either.
_LOST = ("premature end", "bad huffman", "truncated", "corrupt jpeg data: bad", "bad code word")


def open_strict(path: str, config: Config) -> Source:
    """The first image of `path`, read row by row; the slightest warning is an error.

    Raises
    ------
    pyvips.Error
        It cannot be read, or only with a warning (which may come later, while it is read).
    ConversionError
        It is larger than the limits allow.
    """
    image = pyvips.Image.new_from_file(path, access="sequential", fail_on="warning")
    check_size(image.width, image.height, config, samples=image.bands)
    whole_bytes = image.width * image.height * image.bands * _bytes_per_sample(image)
    check_expansion(whole_bytes, os.stat(path).st_size, config)
    if _is_set(image, "jpeg-multiscan"):
        # libjpeg keeps every coefficient, of two bytes, until the last scan is read.
        check_memory(2 * whole_bytes, config, "it is a progressive JPEG, and holding it whole")
    if _is_set(image, "interlaced"):
        check_memory(whole_bytes, config, "it is interlaced, and holding it whole")
    if _orientation(image) != 1:
        # Turning needs the pixels in another order than the file has them.
        check_memory(whole_bytes, config, "turning it upright")
        image = pyvips.Image.new_from_file(path, access="random", fail_on="warning")
    return image


def refuse_lost(said: str) -> None:
    """Refuse an image of whose pixels a reader says that some are lost.

    Raises
    ------
    ConversionError
        `damaged`.
    """
    if any(mark in said.lower() for mark in _LOST):
        raise ConversionError(
            "damaged", f"its pixels are incomplete or corrupt: {first_line(said)}"
        )


def open_second(path: str, config: Config, first_error: str) -> tuple[Opened, str]:
    """The image by another library, and a warning that says so.

    Raises
    ------
    ConversionError
        `damaged`: that one cannot read it either.
    """
    said = first_line(first_error)
    refuse_lost(first_error)
    with open(path, "rb") as file:
        head = file.read(4)
    kind = next((kind for magic, kind in _BY_HEAD if head.startswith(magic)), None)
    if kind is None:
        raise ConversionError("damaged", f"it cannot be read: {said}")
    try:
        opened = open_page(path, config) if kind == "tiff" else _by_imagecodecs(path, config)
    except ConversionError as error:
        if error.reason != "damaged":
            raise
        second = error.detail.removeprefix("it cannot be read: ")
        if second == said:
            raise ConversionError(
                "damaged", "two readers were tried, and neither opens it"
            ) from error
        raise ConversionError(
            "damaged", f"it cannot be read: libvips says {said!r}, another reader {second!r}"
        ) from error
    return opened, f"libvips said {said!r}; {opened.reader} read the whole image"


def _by_imagecodecs(path: str, config: Config) -> Opened:
    import imagecodecs

    with open(path, "rb") as file:
        data = file.read()
    decode = imagecodecs.png_decode if data.startswith(b"\x89PNG") else imagecodecs.jpeg_decode
    try:
        header = pyvips.Image.new_from_file(path, fail_on="none")
        check_size(header.width, header.height, config)
        need = 2 * header.width * header.height * header.bands * _bytes_per_sample(header)
        check_memory(need + len(data), config, "reading it whole")
        pixels = np.asarray(decode(data))
    except (ConversionError, MemoryError):
        raise
    except Exception as error:
        raise ConversionError("damaged", first_line(str(error))) from error
    done: tuple[str, ...] = ()
    if pixels.dtype == np.uint16 and decode is imagecodecs.jpeg_decode:
        bits = jpeg.precision(data)
        pixels, done = spread(pixels, bits), (f"its {bits}-bit samples were expanded to 16 bits",)
    if pixels.shape[:2] != (header.height, header.width):
        raise ConversionError("damaged", "two readers disagree about its size")
    return Opened(scenes=[Scene(region=Whole(pixels), done=done)], reader="imagecodecs")


def normalised(image: Source) -> tuple[Source, list[str]]:
    """`image` with 8 or 16 unsigned bits and one or three samples, and what was done to it.

    Raises
    ------
    ConversionError
        `unsupported_samples`.
    """
    done: list[str] = []
    orientation = _orientation(image)
    if orientation != 1:
        image = image.autorot()
        done.append(f"turned upright: its orientation tag said {orientation}")
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if pages > 1:
        done.append(f"it has {pages} pages: the first one is the pyramid")
    if image.get_typeof("palette") or image.get_typeof("palette-bit-depth"):
        done.append("its palette was expanded to RGB")
    bits = image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else 8
    if bits < 8:
        done.append(f"its {bits}-bit samples were expanded to 8 bits")
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", intent="relative")
        done.append("converted from CMYK to sRGB through its profile")
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
        done.append(f"it has {image.bands} samples a pixel: the first {kept} are the pyramid")
        image = image.extract_band(0, n=kept)
    if image.format == "ushort":
        done.append("its 16-bit samples are kept, without loss")
    return image, done


def _orientation(image: Source) -> int:
    return int(image.get("orientation")) if image.get_typeof("orientation") else 1


def _is_set(image: Source, name: str) -> bool:
    return bool(image.get_typeof(name)) and bool(image.get(name))


def _bytes_per_sample(image: Source) -> int:
    return {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "double": 8}.get(image.format, 4)


def first_line(text: str) -> str:
    """The first of libvips' lines that says something, without those that say which call failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = (
        next(
            (line for line in lines if not line.startswith(("unable to call", "unable to fetch"))),
            "",
        )
        or "it is not readable"
    )
    return told.replace(os.sep, "/")[:200]
