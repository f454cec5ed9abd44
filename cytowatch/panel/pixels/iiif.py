"""The IIIF Image API 3 at level 1: what a request means, and what ``info.json`` says.

Nothing here reads a pixel: an address is turned into a box of level 0 and a size, or refused.

Source: https://iiif.io/api/image/3.0/ and https://iiif.io/api/image/3.0/compliance/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CONTEXT", "LD_JSON", "LINK", "Asked", "RefusedError", "at_most", "info", "parse"]

CONTEXT = "http://iiif.io/api/image/3/context.json"
LD_JSON = f'application/ld+json;profile="{CONTEXT}"'
#: The profile, as a header of every picture.
LINK = '<http://iiif.io/api/image/3/level1.json>;rel="profile"'
#: A picture of a whole slide is never larger than this; its tiles show every pixel.
_MOST_SIDE = 4096
_MOST_AREA = 2048 * 2048

#: ASCII digits only, and not more of them than an image has pixels: int() takes far more.
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_REGION = re.compile(rf"{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}", re.ASCII)
_SIZE = re.compile(rf"(\^?)(?:{_NUMBER})?,(?:{_NUMBER})?", re.ASCII)
_LAST = re.compile(r"([a-z]+)\.([a-z0-9]+)", re.ASCII)


class RefusedError(ValueError):
    """The request is not answered with a picture; `code` is the status, 400 or 501."""

    def __init__(self, said: str, code: int = 400) -> None:
        super().__init__(said)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The box (x, y, width, height) of level 0 that is shown, and the size that it is shown in."""

    box: tuple[int, int, int, int]
    size: tuple[int, int]


def parse(region: str, size: str, rotation: str, last: str, image: tuple[int, int]) -> Asked:
    """What a request asks for; `last` is ``default.jpg``, `image` is (width, height) of level 0.

    Raises
    ------
    RefusedError
        It is not a request of level 1, or not of this image.

    Examples
    --------
    >>> parse("0,0,512,512", "256,", "0", "default.jpg", (1000, 800))
    Asked(box=(0, 0, 512, 512), size=(256, 256))
    >>> parse("square", "max", "0", "default.jpg", (1000, 800)).box
    (100, 0, 800, 800)
    """
    box = _box(region, image)
    asked = Asked(box=box, size=_size(size, box[2], box[3]))
    if rotation not in ("0", "360"):
        raise RefusedError("rotation: only 0 is supported")
    match = _LAST.fullmatch(last)
    if match is None or match[1] not in ("default", "color"):
        raise RefusedError("quality: only default and color are supported")
    if match[2] != "jpg":
        raise RefusedError("format: only jpg is supported")
    return asked


def at_most(width: int, height: int) -> tuple[int, int]:
    """The largest size in which a region of `width` x `height` pixels is shown.

    >>> at_most(300, 200), at_most(100_000, 100_000), at_most(100_000, 1)
    ((300, 200), (2048, 2048), (4096, 1))
    """
    scale = min(
        1.0, _MOST_SIDE / width, _MOST_SIDE / height, (_MOST_AREA / (width * height)) ** 0.5
    )
    # Rounding down keeps it within the limits.
    return max(1, int(width * scale + 1e-9)), max(1, int(height * scale + 1e-9))


def info(address: str, levels: Sequence[tuple[int, int]], tile: tuple[int, int]) -> dict[str, Any]:
    """The document ``info.json``.

    Parameters
    ----------
    address
        The image's own address, without ``/info.json``.
    levels
        (width, height) of each level, the largest first.
    tile
        (width, height) of the tiles of level 0.
    """
    width, height = levels[0]
    factors = [max(1, round(width / one[0])) for one in levels]
    fitting = [one for one in levels if at_most(*one) == one]
    sizes = [{"width": one[0], "height": one[1]} for one in reversed(fitting)]
    return {
        "@context": CONTEXT,
        "id": address,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level1",
        "width": width,
        "height": height,
        "maxWidth": _MOST_SIDE,
        "maxHeight": _MOST_SIDE,
        "maxArea": _MOST_AREA,
        "sizes": sizes,
        "tiles": [{"width": tile[0], "height": tile[1], "scaleFactors": sorted(set(factors))}],
        "extraFeatures": ["profileLinkHeader", "sizeByWh"],
    }


def _box(region: str, image: tuple[int, int]) -> tuple[int, int, int, int]:
    wide, tall = image
    if region == "full":
        return 0, 0, wide, tall
    if region == "square":
        side = min(image)
        return (wide - side) // 2, (tall - side) // 2, side, side
    match = _REGION.fullmatch(region)
    if match is None:
        raise RefusedError("region: full, square, or x,y,w,h in whole pixels")
    x, y, width, height = (int(one) for one in match.groups())
    if not width or not height or x >= wide or y >= tall:
        raise RefusedError("region: nothing of the image lies in it")
    return x, y, min(width, wide - x), min(height, tall - y)


def _size(size: str, width: int, height: int) -> tuple[int, int]:
    if size in ("max", "^max"):
        # Without upscaling both are the same: the most that is shown of a region is all of it.
        return at_most(width, height)
    match = _SIZE.fullmatch(size)
    if match is None or not (match[2] or match[3]):
        raise RefusedError("size: max, w, or ,h or w,h in whole pixels")
    w, h = (int(one) if one else None for one in match.groups()[1:])
    if w is None:
        w = max(1, round(width * (h or 0) / height))
    if h is None:
        h = max(1, round(height * w / width))
    if not w or not h:
        raise RefusedError("size: nothing is left of it")
    if w > width or h > height:
        if match[1]:
            raise RefusedError("size: pictures are not enlarged", 501)
        raise RefusedError("size: larger than the region; pictures are not enlarged")
    if w > _MOST_SIDE or h > _MOST_SIDE or w * h > _MOST_AREA:
        raise RefusedError(f"size: at most {_MOST_SIDE} pixels per side and {_MOST_AREA:,} in all")
    return w, h
