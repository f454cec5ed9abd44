"""Hamamatsu VMS and VMU: an index that names its files, all in one folder.

Source: https://openslide.org/formats/hamamatsu/
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from cytowatch.formats.marks import vendor
from cytowatch.formats.sets.group import LARGEST_INDEX, Group, Look, is_jpeg
from cytowatch.formats.sets.index_file import is_plain, referred

__all__ = ["vms"]

_VMS_PART = re.compile(
    r"(?P<stem>.+?)(\(\d+,\d+(,\d+)?\)\.jpg|_macro\.jpg|_map2?\.jpg|\.opt)", re.IGNORECASE
)


def vms(free: dict[str, str], sizes: Mapping[str, int], look: Look) -> list[Group]:
    parts = {name: found["stem"] for name in free if (found := _VMS_PART.fullmatch(name))}
    made = []
    for name, path in list(free.items()):
        named = name.lower().endswith((".vms", ".vmu"))
        if not (named or parts) or name in parts or sizes[path] > LARGEST_INDEX:
            continue
        mark = look(path, vendor)
        if mark is None or mark[0] not in ("hamamatsu-vms", "hamamatsu-vmu"):
            continue
        wanted = [one for one in look(path, referred) if is_plain(one)]
        del free[name]
        members = [free.pop(one) for one in wanted if one in free]
        there = {os.path.basename(member) for member in members}
        absent = [one for one in wanted if one not in there]
        made.append(
            Group(kind=mark[0], members=(path, *members), missing=absent[0] if absent else None)
        )
    # What no index names may belong to one that is still to come; a zip that was unpacked knows.
    waiting: dict[str, list[str]] = {}
    for name, stem in parts.items():
        if name in free:
            waiting.setdefault(stem, []).append(free.pop(name))
    for stem, some in waiting.items():
        # The first tile has no number, and is not a picture of its own beside the others.
        for name in (f"{stem}.jpg", f"{stem}.JPG"):
            if name in free and look(free[name], is_jpeg):
                some.append(free.pop(name))
    made += [
        Group(
            kind="hamamatsu-vms", members=tuple(sorted(some)), missing=f"{stem}.vms", headless=True
        )
        for stem, some in waiting.items()
    ]
    return made
