"""Names: what a person or a scanner calls a thing, made safe for a disk, a terminal and a log."""

from __future__ import annotations

import base64
import fnmatch
import functools
import random
import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NewType

from anyascii import anyascii

from cytowatch.record import leftovers

__all__ = [
    "ID_PATTERN",
    "UploadedFileId",
    "alike",
    "decode",
    "file_name",
    "fold",
    "ignored",
    "kept",
    "new_id",
    "printable",
    "slug",
]

#: The name of an uploaded file's directory: ASCII, sorts by time, unique, can be found by eye.
UploadedFileId = NewType("UploadedFileId", str)

#: An id: UTC, four random characters, the slug of the name.
ID_PATTERN = re.compile(r"\d{8}-\d{6}-[a-z0-9]{4}-[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_LONGEST_SLUG = 60
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_EXTENSION = re.compile(r"(\.ome)?\.[A-Za-z][A-Za-z0-9]{0,5}$", re.IGNORECASE)


def slug(name: str) -> str:
    """`name` without its extension in letters, digits, ``.``, ``_`` and ``-``; never empty.

    Other scripts are transliterated, so that a slide can be found by eye.

    >>> slug("検体 1.jpg"), slug("Гастрит.svs")
    ('JianTi-1', 'Gastrit')
    >>> slug("CMU-1.svs"), slug("Fälle 2024 [page=3].ome.tiff"), slug("-rf"), slug("...")
    ('CMU-1', 'Falle-2024-page-3', 'rf', 'unnamed')
    """
    stem = _EXTENSION.sub("", name) or name
    plain = anyascii(unicodedata.normalize("NFC", stem))
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", plain)
    safe = re.sub(r"[-.]*-[-.]*|\.{2,}", "-", safe)
    return safe.strip("-._")[:_LONGEST_SLUG].strip("-._") or "unnamed"


def new_id(now: datetime, name: str, source: random.Random) -> str:
    """An id for what is called `name`; unique as far as four random characters go.

    >>> new_id(datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC), "CMU-1.svs", random.Random(1))
    '20261123-141502-iesh-CMU-1'
    """
    letters = "".join(source.choice(_LETTERS) for _ in range(4))
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{letters}-{slug(name)}"


def fold(name: str) -> str:
    """The form in which users and projects are compared."""
    return unicodedata.normalize("NFC", name.casefold())


def alike(known: Iterable[str], name: str) -> list[str]:
    """Those of `known` that name the same user or project as `name` does.

    >>> alike(["Ann", "bob"], "ann")
    ['Ann']
    """
    return [one for one in known if fold(one) == fold(name)]


def decode(name: bytes) -> tuple[str, str | None]:
    """A name as text, and in base64 what the bytes were if that text cannot give them back.

    >>> decode(b"a.svs"), decode(b"caf\\xe9")
    (('a.svs', None), ('caf\ufffd', 'Y2Fm6Q=='))
    """
    try:
        return name.decode("utf-8"), None
    except UnicodeDecodeError:
        return name.decode("utf-8", "replace"), base64.b64encode(name).decode("ascii")


def kept(text: str, raw: bytes) -> str | None:
    """In base64 the bytes of a name, if its `text` cannot give them back.

    >>> kept("a.svs", b"a.svs"), kept("é", b"\\x82")
    (None, 'gg==')
    """
    try:
        return None if text.encode() == raw else base64.b64encode(raw).decode("ascii")
    except UnicodeEncodeError:
        return base64.b64encode(raw).decode("ascii")


def ignored(name: str, extra: Iterable[str]) -> bool:
    """Whether `name` is never claimed, whatever it holds.

    >>> ignored("Thumbs.db", []), ignored("a.PART", []), ignored("a.svs", ["*.svs"]), ignored("a", [])
    (True, True, True, False)
    """
    return _matching((*leftovers.PATTERNS, *extra)).fullmatch(name.lower()) is not None


@functools.lru_cache(maxsize=64)
def _matching(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """All of them at once: every file of every scan is compared."""
    return re.compile("|".join(fnmatch.translate(pattern.lower()) for pattern in patterns))


def file_name(name: str) -> str:
    """`name` as people know it, in what every file system and every share can show.

    >>> file_name("Fälle: 3/4\\n.svs")
    'Fälle_ 3_4_.svs'
    """
    text = unicodedata.normalize("NFC", name)
    safe = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in text)
    return safe.encode()[:180].decode("utf-8", "ignore").strip(" .") or "unnamed"


def printable(name: str) -> str:
    """`name` with everything escaped that a terminal or a log would act on.

    >>> printable("a\\nb\\u202ec.svs")
    'a\\\\nb\\\\u202ec.svs'
    """
    return "".join(
        char if char == " " or char.isprintable() else char.encode("unicode_escape").decode()
        for char in name.encode("utf-8", "replace").decode()
    )
