"""What the files of an upload were called where they were dropped: for those who get them back."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from typing import cast

from cytowatch.record import names
from cytowatch.record.entries import FileEntry, Manifest

__all__ = ["named_as", "originals"]

_LONGEST_NAME_BYTES = 255


def originals(found: Manifest) -> Iterator[tuple[FileEntry, str]]:
    """Every source and sidecar, and its path as it was dropped, relative to where it lay.

    Head and folder of a set have their own names again, no matter what they are called below ``source/``.
    """
    coded = found["name_base64"]
    name = found["name"]
    # What came from an archive's code page is text; only what is not text, or is too long as UTF-8, goes
    # back as its bytes.
    if coded and ("\ufffd" in name or len(name.encode("utf-8", "replace")) > _LONGEST_NAME_BYTES):
        name = os.fsdecode(base64.b64decode(coded))
    # It is a name that somebody's disk had; only what no disk can have is written otherwise.
    name = names.printable(name) if "/" in name or "\0" in name or name in ("", ".", "..") else name
    name = name.replace("/", "_")
    stem, ending = os.path.splitext(name)
    rows = [row for row in found["files"] if row["role"] in ("source", "sidecar")]
    sources = [row for row in rows if row["role"] == "source"]
    noted = [row for row in rows if "dropped_as" in row]
    kept = {row["path"]: path for row in noted if (path := names.as_dropped(row)) is not None}
    # Together or not at all: head and folder of a set must still agree.
    believed = len(kept) == len(noted)
    for number, row in enumerate(rows):
        inside = row["path"].removeprefix("source/")
        folder, slash, rest = inside.partition("/")
        headless = "/" in rows[0]["path"].removeprefix("source/")
        if believed and row["path"] in kept:
            yield row, kept[row["path"]]
        elif noted and believed and (number or len(sources) > 1):
            yield row, inside
        elif number == 0 and (len(sources) == 1 or os.path.splitext(inside)[1] == ending):
            yield row, inside if slash else name
        elif slash and headless:
            # Nothing but its folder names it.
            yield row, inside
        elif slash:
            yield row, f"_{stem}_/{rest}" if folder.startswith("_") else f"{stem}/{rest}"
        else:
            yield row, inside


def named_as(rows: Iterable[FileEntry], own: Manifest) -> list[FileEntry]:
    """The `rows` of an upload of the same content, with the names under which the files of `own` were dropped."""
    dropped: dict[tuple[str, str | None], list[str]] = {}
    several = sum(row["role"] == "source" for row in own["files"]) > 1
    for row, name in originals(own):
        if several or row["role"] == "sidecar":
            dropped.setdefault((row["role"], row["sha256"]), []).append(name)
    renamed = []
    for row in rows:
        plain = {key: value for key, value in row.items() if key not in FileEntry.__optional_keys__}
        mine = dropped.get((row["role"], row["sha256"]), [])
        noted = names.noted(mine.pop(0)) if mine else {}
        if noted and row["path"] == f"source/{noted['dropped_as']}":
            noted = {}
        renamed.append(cast("FileEntry", {**plain, **noted}))
    return renamed
