"""Images that can only be decoded whole: the header says whether memory allows it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from cytowatch.config import Config
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.refusals import check_memory, check_size, unread
from cytowatch.pyramid.regions import Opened, Scene
from cytowatch.record.errors import ConversionError

__all__ = ["Whole", "by_pillow"]

#: Bytes per pixel that Pillow needs at most: its own four, a converted copy, and ours.
_PILLOW_BYTES = 12


class Whole:
    """An image that is in memory already."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
        self.height, self.width, self.samples = self._pixels.shape
        self.dtype = pixels.dtype
        self.block_rows = 256

    def rows(self, top: int, bottom: int) -> Pixels:
        """A view of the rows."""
        return self._pixels[top:bottom]


def by_pillow(path: str, config: Config) -> Opened:
    """The first image of `path`, decoded by Pillow.

    Raises
    ------
    ConversionError
        It is damaged, of a kind that Pillow does not know, or too large for memory.
    """
    from PIL import Image

    # The limits are ours: see check_size and check_memory.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            image = Image.open(file)
            check_size(image.width, image.height, config)
            check_memory(image.width * image.height * _PILLOW_BYTES, config, "reading it whole")
            image.load()
    except (ConversionError, MemoryError):
        raise
    except Exception as error:
        raise unread(error) from error
    pixels, done = _plain(image)
    return Opened(scenes=[Scene(region=Whole(pixels), done=tuple(done))], reader="pillow")


def _plain(image: Any) -> tuple[Pixels, list[str]]:
    """Grey or RGB, with alpha if it has one, of 8 or 16 bits."""
    match image.mode:
        case "1":
            return np.asarray(image.convert("L")), ["its 1-bit samples were expanded to 8 bits"]
        case "L" | "RGB" | "RGBA" | "LA" if "transparency" not in image.info:
            return np.asarray(image), []
        case "P":
            kind = "RGBA" if "transparency" in image.info else "RGB"
            return np.asarray(image.convert(kind)), ["its palette was expanded to RGB"]
        case "I" | "I;16" | "I;16B" | "I;16L" | "I;16N":
            return np.asarray(image).astype(np.uint16), []
        case "F":
            return np.asarray(image), []
        case mode:
            return np.asarray(image.convert("RGB")), [f"converted from {mode} to RGB"]
