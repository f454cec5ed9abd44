"""What decoders report about an image without failing, and whether pixels are lost."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pyvips

from cytowatch.formats.structure import jpeg
from cytowatch.record.errors import ConversionError
from cytowatch.record.quoting import quoting

__all__ = [
    "first_line",
    "harmless",
    "heard",
    "noted",
    "raised",
    "refuse_lost",
    "refuse_lost_of_jpeg",
    "said_of_jpeg",
]

#: Decoders report these for pixels that are missing; no second reader has them either. libtiff also reports a text
#: that it cuts off at a NUL, as between the two parts of a copyright.
_LOST = re.compile(
    "premature end|bad huffman|(?<!value incorrectly )truncated|corrupt jpeg data: bad|bad code word"
    "|line length mismatch|premature eo[lf]"
    "|instead of rst|extraneous bytes before marker 0xd[0-7]",
    re.IGNORECASE,
)
_CALLS = ("unable to call", "unable to fetch", "unable to write to memory")
#: How tifffile names a tag that it cannot make sense of.
_OF_TAG = re.compile(r"TiffTag (\d+) @")
#: The tags of a TIFF that say what its pixels are and where they lie.
_OF_PIXELS = frozenset(
    {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, *range(322, 326), 338, 339, 347}
    | {*range(512, 522), 529, 530, 532, 32997, 32998}
)
_END_OF_JPEG = b"\xff\xd9"
#: GLib's G_LOG_LEVEL_ERROR, the only level that is to end a process.
_FATAL = 1 << 2
_noting = threading.Lock()


class _Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def heard(library: str) -> Iterator[list[str]]:
    """Collect what `library` logs instead of raising."""
    told = _Told()
    logger = logging.getLogger(library)
    logger.addHandler(told)
    try:
        yield told.lines
    finally:
        logger.removeHandler(told)


def harmless(line: str) -> bool:
    """Whether a warning of tifffile is about a tag that says nothing of the pixels; readers pass over such a tag.

    Source: TIFF 6.0, section 2 ("readers should skip over fields containing an unexpected field type").

    >>> harmless("<tifffile.TiffTag 274 @82> raised ValueError('0 is not a valid ORIENTATION')")
    True
    >>> harmless("<tifffile.TiffTag 259 @82> raised ValueError('0 is not a valid COMPRESSION')")
    False
    """
    found = _OF_TAG.search(line)
    return found is not None and int(found[1]) not in _OF_PIXELS


def noted() -> str:
    """What libvips has noted since it was last asked; it goes on after libjpeg's warnings about a tile."""
    text = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode("utf-8", "replace")
    pyvips.vips_lib.vips_error_clear()
    return str(text)


@contextmanager
def raised() -> Iterator[None]:
    """Raise what libvips only notes, and add to its errors what it logs: some have no words of their own.

    Raises
    ------
    pyvips.Error
        It has noted something, or failed.
    """
    noted()
    with heard("pyvips") as told:
        try:
            yield
        except pyvips.Error as error:
            logged = "\n".join(line.removeprefix("VIPS: ") for line in told)
            raise pyvips.Error(str(error), logged) from error
    if said := noted():
        raise pyvips.Error(said, "")


def refuse_lost(said: str) -> None:
    """Refuse an image of which a reader reports lost pixels.

    Raises
    ------
    ConversionError
        `damaged`.
    """
    found = next((line for line in said.splitlines() if _LOST.search(line)), None)
    if found is not None:
        raise ConversionError(
            "damaged", quoting("its pixels are incomplete or corrupt", first_line(found))
        )


def refuse_lost_of_jpeg(stream: bytes) -> None:
    """The same of a JPEG with all its tables, by libjpeg; that its end marker is absent is not a loss.

    Raises
    ------
    ConversionError
        `damaged`.
    """
    # Of several complaints libjpeg only makes the first one, which may be about something harmless.
    stream = jpeg.bare(stream) or stream
    body = stream
    if stream.rstrip(b"\0").endswith(_END_OF_JPEG):
        body = stream.rstrip(b"\0").removesuffix(_END_OF_JPEG)
    without = body.rstrip(b"\0")
    if without.endswith(b"\xff"):
        # It is a code, and no marker, by the zero after it.
        without += b"\0"
    said = said_of_jpeg(without)
    # A flat picture can end in zeros, and needs each; what was overwritten by them has too many or too few.
    if said and without != body and not said_of_jpeg(body) and said_of_jpeg(body[:-1]):
        return
    refuse_lost(said)


def said_of_jpeg(body: bytes) -> str:
    """What libjpeg says of a JPEG without its end; at an eighth of its size it reads all codes too."""
    # libvips leaves out a last row of blocks that makes less than a pixel.
    shrink = 8 if jpeg.height(body) % 8 == 0 else 1
    # Of the last rows it only notes it, for whichever thread asks next.
    with _noting:
        noted()
        try:
            image = pyvips.Image.jpegload_buffer(
                body + _END_OF_JPEG, shrink=shrink, access="sequential", fail_on="none"
            )
            image.avg()
        except pyvips.Error as error:
            return str(error)
        return noted()


def first_line(text: str) -> str:
    """The first of libvips' lines that says something, without those that say which call failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if not line.startswith(_CALLS)), "it is not readable")
    return told.replace(os.sep, "/")[:200]


def _survive_nested_messages() -> None:
    """Let a message that comes while another is handed over be printed; GLib would end the process.

    Python may collect a damaged image in the middle of a message, and libvips then counts the warnings
    that this image gave. Source: GLib, ``g_logv`` and ``G_LOG_FATAL_MASK``.
    """
    binding = find_spec("_libvips")
    if binding is not None and binding.origin is not None:
        library = ctypes.CDLL(binding.origin)
        library.g_log_set_always_fatal(_FATAL)
        library.g_log_set_fatal_mask(b"VIPS", _FATAL)


_survive_nested_messages()
