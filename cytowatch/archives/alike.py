"""Whether the two names that a zip has for a member, in its directory and in front of its bytes, are one.

Programs write a backslash in one and a slash in the other, or a code page in one and UTF-8 in the other. Python's
zipfile refuses such zips: https://github.com/log2timeline/plaso/issues/943, https://bugs.python.org/issue6839
"""

from __future__ import annotations

import unicodedata

__all__ = ["alike"]

_CODE_PAGES = (
    "cp437", "cp850", "cp1252", "cp932", "gbk", "big5", "cp949", "euc_jp", "cp866", "cp1251", "koi8-r", "cp852",
    "cp1250", "cp857", "cp1254", "cp737", "cp1253", "cp862", "cp1255", "cp720", "cp1256", "cp874", "cp775", "cp1257",
)  # fmt: skip


def alike(one: bytes, other: bytes) -> bool:
    """Whether both are the same name.

    >>> alike(b"a/b.svs", b"a\\\\b.svs"), alike("検体.svs".encode(), "検体.svs".encode("cp932")), alike(b"a", b"b")
    (True, True, False)
    """
    if one.replace(b"\\", b"/") == other.replace(b"\\", b"/"):
        return True
    if one.isascii() and other.isascii():
        return False
    return _is_again(one, other) or _is_again(other, one)


def _is_again(unicode: bytes, paged: bytes) -> bool:
    """Whether `paged` is in some code page what `unicode` is in UTF-8."""
    wanted = _plain(unicode, "utf-8")
    return wanted is not None and any(_plain(paged, page) == wanted for page in _CODE_PAGES)


def _plain(name: bytes, encoding: str) -> str | None:
    try:
        return unicodedata.normalize("NFC", name.decode(encoding)).replace("\\", "/")
    except UnicodeDecodeError:
        return None
