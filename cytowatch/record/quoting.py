"""How a detail quotes what a decoder or Python said: after a sentence of our own, in brackets, in one line."""

from __future__ import annotations

import re

__all__ = ["plain", "quoting"]

_LONGEST = 300
#: How Python shows an object, such as an open file.
_OBJECT = re.compile(r"\s*<(?:[\w.]+ object|_io\.\w+)[^<>]*>")
#: How Python shows an exception inside of another one's text.
_SHOWN = re.compile(r"\b\w*(?:Error|Exception)\((['\"])(.*?)\1,?\)")


def plain(said: object) -> str:
    """What was `said`, an exception or a text, without the parts that only Python understands.

    >>> plain("cannot identify image file <_io.BufferedReader name='a.jpg'>")
    'cannot identify image file'
    >>> plain("TiffFileError('not a TIFF file')")
    'not a TIFF file'
    >>> plain(ValueError())
    'ValueError'
    """
    text = " ".join(str(said).split())
    text = _SHOWN.sub(lambda found: found[2], _OBJECT.sub("", text)).strip(" :")
    return text[:_LONGEST] or type(said).__name__


def quoting(sentence: str, said: object) -> str:
    """`sentence`, and in brackets what was `said`.

    >>> quoting("its pixels cannot be read", RuntimeError("opj_read_header failed"))
    'its pixels cannot be read (opj_read_header failed)'
    """
    return f"{sentence} ({plain(said)})"
