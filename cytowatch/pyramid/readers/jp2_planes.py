"""JPEG 2000 whose components have steps of their own on the grid, by the library that imagecodecs brings along.

imagecodecs gives one array of all components, and so refuses what has several sizes; OpenJPEG does not.

Source: ISO/IEC 15444-1, B.2 (the reference grid); openjpeg.h of OpenJPEG 2.5
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cytowatch.config import Config
from cytowatch.formats.structure import jp2
from cytowatch.pyramid.colours import rgb_of_ycbcr
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers.jp2_colours import Samples
from cytowatch.pyramid.refusals import check_memory, damaged
from cytowatch.record.errors import ConversionError
from cytowatch.record.quoting import quoting

__all__ = ["decoded"]

_BARE, _BOXED = 0, 2
_READ = 1
#: opj_dparameters_t holds two paths of 4096 bytes, and little else.
_PARAMETERS_BYTES = 1 << 15
_SIGNED = 0x80
#: OpenJPEG's own four, our copy of them, and what is made of it.
_BYTES_PER_SAMPLE = 12


class _Component(ctypes.Structure):
    """opj_image_comp_t."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd", "resno", "factor")),
        ("data", ctypes.POINTER(ctypes.c_int32)),
        ("alpha", ctypes.c_uint16),
    )  # fmt: skip


class _Image(ctypes.Structure):
    """opj_image_t."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("x0", "y0", "x1", "y1", "count")),
        ("space", ctypes.c_int),
        ("components", ctypes.POINTER(_Component)),
        ("profile", ctypes.c_void_p),
        ("profile_bytes", ctypes.c_uint32),
    )  # fmt: skip


def decoded(
    path: str,
    components: Sequence[tuple[int, int, int]],
    offset: tuple[int, int],
    size: tuple[int, int],
    stored: Samples,
    config: Config,
) -> Pixels:
    """The image at `path`, its `components` (depth, step across, step down) enlarged to `size`.

    `offset` is where the image begins on the grid.

    Raises
    ------
    ConversionError
        `damaged`; `unsupported_format` where the library is not there or the components mean too much;
        `too_large_for_memory`.
    """
    width, height = size
    need = width * height * len(components) * _BYTES_PER_SAMPLE
    check_memory(need, config, "it has components of several sizes, and decoding it whole")
    if stored.bare:
        raise _unsupported("a palette or a profile with components of several sizes")
    [kind, *_] = (depth for depth, _, _ in components)
    whole = 1 if stored.bits <= 8 else 2 if stored.bits <= 16 else 4
    dtype = np.dtype(f"{'i' if kind & _SIGNED else 'u'}{whole}")
    pixels = np.empty((height, width, len(components)), dtype)
    planes = _planes(path, len(components))
    for number, (_, *steps) in enumerate(components):
        pixels[:, :, number] = _enlarged(planes[number], steps, offset, size)
    first, *others = (steps for _, *steps in components)
    # As OpenJPEG's own programs take it, no matter what the header says: RGB is not subsampled so.
    chroma = len(others) == 2 and first == [1, 1] and others[0] == others[1] != [1, 1]
    if stored.ycc or chroma:
        if dtype != np.uint8:
            raise _unsupported("YCbCr of other than 8 bits in components of several sizes")
        pixels[:, :, :3] = rgb_of_ycbcr(pixels[:, :, :3])
    return stored.plain(pixels)


def _enlarged(
    plane: Pixels, steps: Sequence[int], offset: tuple[int, int], size: tuple[int, int]
) -> Pixels:
    """A component with each of its samples as often as it stands for a pixel."""
    columns, rows = (
        ((np.arange(count) + begin) // step - -(-begin // step)).clip(0, most - 1)
        for count, begin, step, most in zip(size, offset, steps, plane.shape[::-1], strict=True)
    )
    found: Pixels = plane[rows[:, np.newaxis], columns[np.newaxis]]
    return found


def _planes(path: str, count: int) -> list[Pixels]:
    """Each component as it is stored.

    Raises
    ------
    ConversionError
        `damaged`, or `unsupported_format`.
    """
    library = _library()
    if library is None:
        raise _unsupported("components of several sizes, and OpenJPEG is not here to read them")
    with open(path, "rb") as file:
        boxed = not file.read(4).startswith(jp2.SOC)
    with ExitStack() as made:
        codec = library.opj_create_decompress(_BOXED if boxed else _BARE)
        made.callback(library.opj_destroy_codec, codec)
        stream = library.opj_stream_create_default_file_stream(path.encode(), _READ)
        if not codec or not stream:
            raise damaged("OpenJPEG does not open it")
        made.callback(library.opj_stream_destroy, stream)
        parameters = ctypes.create_string_buffer(_PARAMETERS_BYTES)
        library.opj_set_default_decoder_parameters(parameters)
        image = ctypes.POINTER(_Image)()
        if not (
            library.opj_setup_decoder(codec, parameters)
            and library.opj_read_header(stream, codec, ctypes.byref(image))
        ):
            raise damaged("OpenJPEG cannot read its header")
        made.callback(library.opj_image_destroy, image)
        if not (
            library.opj_decode(codec, stream, image) and library.opj_end_decompress(codec, stream)
        ):
            raise damaged("OpenJPEG cannot decode it")
        if image.contents.count != count:
            raise damaged(f"it has {image.contents.count} components, not {count}")
        return [_copied(image.contents.components[number]) for number in range(count)]


def _copied(component: Any) -> Pixels:
    if not component.data or not component.w or not component.h:
        raise damaged("one of its components has no pixels")
    return np.ctypeslib.as_array(component.data, (component.h, component.w)).copy()


@functools.cache
def _library() -> Any:
    """OpenJPEG as imagecodecs brings it along, else that of the system; None where neither is there."""
    import imagecodecs

    beside = Path(imagecodecs.__file__).parents[1] / "imagecodecs.libs"
    found = [str(one) for one in sorted(beside.glob("libopenjp2*"))]
    for name in (*found, ctypes.util.find_library("openjp2") if not found else None):
        if name is not None:
            try:
                return _declared(ctypes.CDLL(name))
            except (OSError, AttributeError):
                continue
    return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer = ctypes.c_void_p
    library.opj_create_decompress.restype = pointer
    library.opj_create_decompress.argtypes = [ctypes.c_int]
    library.opj_stream_create_default_file_stream.restype = pointer
    library.opj_stream_create_default_file_stream.argtypes = [ctypes.c_char_p, ctypes.c_int]
    library.opj_set_default_decoder_parameters.argtypes = [pointer]
    library.opj_setup_decoder.argtypes = [pointer, pointer]
    library.opj_read_header.argtypes = [pointer, pointer, pointer]
    library.opj_decode.argtypes = [pointer, pointer, ctypes.POINTER(_Image)]
    library.opj_end_decompress.argtypes = [pointer, pointer]
    library.opj_image_destroy.argtypes = [ctypes.POINTER(_Image)]
    library.opj_destroy_codec.argtypes = [pointer]
    library.opj_stream_destroy.argtypes = [pointer]
    return library


def _unsupported(what: str) -> ConversionError:
    return ConversionError(
        "unsupported_format", quoting("its kind of JPEG 2000 cannot be read", what)
    )
