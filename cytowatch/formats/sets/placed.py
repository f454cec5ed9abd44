"""Where each file of a group goes below ``source/``."""

from __future__ import annotations

import os
import re

from cytowatch.formats.sets.group import Group, stem_of
from cytowatch.record import names

__all__ = ["placed"]

_SAFE = re.compile(r"[A-Za-z0-9_.(),][A-Za-z0-9 ._(),-]*")


def placed(group: Group, name: str) -> dict[str, str]:
    """Where each file of `group` goes below ``source/``; `name` is what the head was called.

    Names stay where a decoder takes them as they are; else a tree of other names is made, in
    which head and folder of a set still agree.
    """
    taken: dict[str, int] = {}
    where: dict[str, str] = {}
    stem = stem_of(name)
    safe = stem if _SAFE.fullmatch(stem) else names.slug(stem)
    extensions = {"mirax-mrxs": ".mrxs", "olympus-vsi": ".vsi", "hamamatsu-vms": ".vms"}
    extensions["hamamatsu-vmu"] = ".vmu"
    spelled = dict(group.spelled)
    for number, path in enumerate([*group.members, *group.sidecars]):
        own = os.path.basename(path)
        if group.kind is None and number == 0:
            inside = names.slug(name)
        elif number == 0 and group.kind in extensions and not group.headless:
            inside = f"{safe}{extensions[group.kind]}"
        elif group.folder is not None and path.startswith(f"{group.folder}/"):
            folder = os.path.basename(group.folder)
            base = folder if group.headless else f"_{safe}_" if folder.startswith("_") else safe
            parts = spelled.get(path, path[len(group.folder) + 1 :]).split("/")
            inside = "/".join([_safe(base), *(_safe(part) for part in parts)])
        elif group.kind in ("hamamatsu-vms", "hamamatsu-vmu") and own.isprintable():
            # The index names them so, and no decoder but OpenSlide's opens them.
            inside = spelled.get(path, own)
        else:
            inside = _safe(own)
        where[path] = _unique(inside, taken)
    return where


def _safe(name: str) -> str:
    if _SAFE.fullmatch(name) and name not in (".", ".."):
        return name
    stem, ending = os.path.splitext(name)
    return names.slug(stem) + (ending if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", ending) else "")


def _unique(inside: str, taken: dict[str, int]) -> str:
    """`inside`, or what it becomes with a number; `taken` holds the last number of each."""
    stem, ending = os.path.splitext(inside)
    found, number = inside, taken.get(inside.lower(), 1)
    while found.lower() in taken:
        number += 1
        found = f"{stem}-{number}{ending}"
    taken[found.lower()] = 1
    taken[inside.lower()] = number
    return found
