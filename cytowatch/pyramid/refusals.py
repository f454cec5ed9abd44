"""Images that are refused before or while they are read: too large, without pixels, damaged."""

from __future__ import annotations

import re

from cytowatch.config import Config
from cytowatch.formats import limits
from cytowatch.record.errors import ConversionError
from cytowatch.record.quoting import quoting

__all__ = ["check_expansion", "check_memory", "check_size", "damaged", "unread", "unsupported"]

#: What tifffile, Pillow, libpng and libjpeg say of a kind that they do not know, though all its bytes may be there.
_UNSUPPORTED = re.compile(
    r"COMPRESSION\.\w+: \d+> not supported|is not a known COMPRESSION|Unsupported BMP|unhandled critical chunk"
    r"|DNL not supported|Unsupported JPEG process"
)


def check_size(width: int, height: int, config: Config, *, samples: int = 1) -> None:
    """Refuse what has no pixels, or more of them or of their samples than the limits.

    Raises
    ------
    ConversionError
        `no_pixels`, `too_many_pixels`, `side_too_long` or `too_many_samples`.
    """
    if width <= 0 or height <= 0 or samples <= 0:
        without = " without samples" if samples <= 0 else ""
        why = f"it is {width} x {height} pixels{without}"
        # So the library of CZI says that there is no image at all.
        raise ConversionError("no_pixels", why if min(width, height) >= 0 else "it holds no image")
    if refusal := limits.of_image(width, height, config.limits, samples=samples):
        raise ConversionError(*refusal)


def check_expansion(decoded_bytes: int, source_bytes: int, config: Config) -> None:
    """Refuse what promises more pixels than its bytes can honestly hold.

    Raises
    ------
    ConversionError
        `expansion`.
    """
    if refusal := limits.of_expansion(decoded_bytes, source_bytes, config.limits):
        raise ConversionError(*refusal)


def check_memory(need: int, config: Config, what: str) -> None:
    """Refuse what cannot be held in memory, before anything is decoded.

    Raises
    ------
    ConversionError
        `too_large_for_memory`.
    """
    budget = config.sandbox.memory_bytes // 2
    if need > budget:
        raise ConversionError(
            "too_large_for_memory",
            f"{what} needs {need:,} bytes of memory, {budget:,} may be used "
            "(half of sandbox.memory_bytes)",
        )


def damaged(said: object) -> ConversionError:
    """The error of an image whose pixels cannot be read; `said` is what its reader said."""
    if isinstance(said, BaseException):
        return ConversionError("damaged", quoting("its pixels cannot be read", said))
    return ConversionError("damaged", f"its pixels cannot be read: {said}")


def unsupported(said: object) -> ConversionError | None:
    """The error of an image of a kind that its reader does not know, by what that `said`; None of any other.

    >>> unsupported("<COMPRESSION.NEXT: 32766> not supported").reason
    'unsupported_format'
    >>> unsupported("invalid distance too far back")
    """
    if not _UNSUPPORTED.search(str(said)):
        return None
    return ConversionError(
        "unsupported_format", quoting("its pixels are stored in a way that is not supported", said)
    )


def unread(said: BaseException) -> ConversionError:
    """The error of an image that a reader refused with `said`: what it does not support is not damaged."""
    return unsupported(said) or damaged(said)
