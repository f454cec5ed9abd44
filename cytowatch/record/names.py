"""Names: what a person or a scanner calls a thing, made safe for a disk, a terminal and a log."""

from __future__ import annotations

import base64
import fnmatch
import functools
import os
import random
import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NewType

from anyascii import anyascii

from cytowatch.outside import printable
from cytowatch.record import leftovers

__all__ = [
    "ID_PATTERN",
    "UploadedFileId",
    "alike",
    "as_dropped",
    "decode",
    "file_name",
    "fold",
    "ignored",
    "kept",
    "link_name",
    "new_id",
    "noted",
    "printable",
    "shortened",
    "slug",
]

#: The name of an uploaded file's directory: ASCII, sorts by time, unique, can be found by eye.
UploadedFileId = NewType("UploadedFileId", str)

#: An id: UTC, four random characters, the slug of the name.
ID_PATTERN = re.compile(r"\d{8}-\d{6}-[a-z0-9]{4}-[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_LONGEST_SLUG = 60
_LONGEST_LINK_BYTES = 170
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_LONGEST_NAME_BYTES = 255
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


def noted(path: str) -> dict[str, str]:
    r"""How the manifest keeps the `path` that a file was dropped under: as text, and where that loses bytes, in base64.

    >>> noted("Fälle/Index.dat"), noted("caf\udce9.opt")
    ({'dropped_as': 'Fälle/Index.dat'}, {'dropped_as': 'caf�.opt', 'dropped_as_base64': 'Y2Fm6S5vcHQ='})
    """
    text, coded = decode(os.fsencode(path))
    return {"dropped_as": text} | ({"dropped_as_base64": coded} if coded is not None else {})


def as_dropped(row: Mapping[str, object]) -> str | None:
    r"""The path that `noted` kept in a row of the manifest, as the system spells it.

    None where there is none, or none that leads to a file below a folder: no disk gave it.

    >>> as_dropped(noted("caf\udce9.opt")), as_dropped({"dropped_as": "../x"}), as_dropped({})
    ('caf\udce9.opt', None, None)
    """
    text, coded = row.get("dropped_as"), row.get("dropped_as_base64")
    try:
        path = (
            os.fsdecode(base64.b64decode(coded, validate=True)) if isinstance(coded, str) else text
        )
        if not isinstance(path, str):
            return None
        lengths = [len(os.fsencode(part)) for part in path.split("/")]
    except ValueError:
        return None
    plain = "\0" not in path and not {"", ".", ".."} & set(path.split("/"))
    return path if plain and max(lengths) <= _LONGEST_NAME_BYTES else None


def link_name(drop_path: str, name: str) -> str:
    """What a project shows an uploaded file as: with the folders and the archive that it came in.

    `drop_path` is below ``inbox/``. If it is too long, what is nearest to the file stays.

    >>> link_name("ann/CMU-1.svs", "CMU-1.svs"), link_name("ann/@lung/case-101/HE.svs", "HE.svs")
    ('CMU-1.svs', 'case-101 - HE.svs')
    """
    _, _, path = drop_path.partition("/")
    parts = [part for part in path.split("/") if part]
    if parts and parts[0].startswith("@"):
        del parts[0]
    while len(parts) > 1 and len(" - ".join(parts).encode()) > _LONGEST_LINK_BYTES:
        del parts[0]
    return file_name(" - ".join(parts) or name)


def ignored(name: str, extra: Iterable[str]) -> bool:
    """Whether `name` is never claimed, no matter what it holds.

    >>> ignored("Thumbs.db", []), ignored("a.PART", []), ignored("a.svs", ["*.svs"]), ignored("a", [])
    (True, True, True, False)
    """
    return _matching((*leftovers.PATTERNS, *extra)).fullmatch(name.lower()) is not None


def is_temporary(name: str, extra: Iterable[str]) -> bool:
    """Whether an ignored `name` is one that a copier uses until its copy is whole.

    A pattern of `extra` that the built-in list does not have takes precedence: it keeps the file out of all notes.

    >>> is_temporary("a.svs.FilePart", []), is_temporary("index.tmp", ["index.*"]), is_temporary("a.part", ["*.part"])
    (True, False, True)
    """
    if _matching(leftovers.TEMPORARY).fullmatch(name.lower()) is None:
        return False
    own = tuple(pattern for pattern in extra if pattern not in leftovers.PATTERNS)
    return not own or _matching(own).fullmatch(name.lower()) is None


@functools.lru_cache(maxsize=64)
def _matching(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """All of them at once: every file of every scan is compared."""
    return re.compile("|".join(fnmatch.translate(pattern.lower()) for pattern in patterns))


#: What no share takes in a name.
_REFUSED = str.maketrans(dict.fromkeys('<>:"/\\|?*', "_"))


def file_name(name: str) -> str:
    """`name` as people know it, in what every file system and every share can show.

    >>> file_name("Fälle: 3/4\\n.svs")
    'Fälle_ 3_4_.svs'
    """
    safe = unicodedata.normalize("NFC", name).translate(_REFUSED)
    if not safe.isprintable():
        safe = "".join(c if c.isprintable() else "_" for c in safe)
    return safe.encode()[:180].decode("utf-8", "ignore").strip(" .") or "unnamed"


_MOST_PARTS = 8
_LONGEST_PART = 80


def shortened(path: str) -> str:
    """`path`, printable, with the middle left out of one that is too long for a line.

    >>> shortened("ann/a.svs"), shortened("ann/deep" + "/d" * 30)
    ('ann/a.svs', 'ann/deep/d/d/…/d/d')
    """
    parts = path.split("/")
    if len(parts) > _MOST_PARTS:
        parts = [*parts[:4], "…", *parts[-2:]]
    return "/".join(
        printable(one if len(one) <= _LONGEST_PART else f"{one[:40]}…{one[-30:]}") for one in parts
    )
