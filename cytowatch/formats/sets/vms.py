"""Hamamatsu VMS and VMU: an index that names its files, all in one folder.

Source: https://openslide.org/formats/hamamatsu/
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from cytowatch.formats.marks import vendor
from cytowatch.formats.sets.group import LARGEST_INDEX, Group, Look, is_jpeg, plainly
from cytowatch.formats.sets.index_file import is_plain, referred

__all__ = ["part_of", "vms"]

_VMS_PART = re.compile(
    r"(?P<stem>.+?)(\(\d+,\d+(,\d+)?\)\.jpg|_macro\.jpg|_map2?\.jpg|\.opt)", re.IGNORECASE
)


def part_of(name: str) -> str | None:
    """The stem of the slide of which a file of that name may be a part.

    >>> part_of("CMU-1(0,1).jpg"), part_of("CMU-1.jpg")
    ('CMU-1', None)
    """
    found = _VMS_PART.fullmatch(name)
    return found["stem"] if found is not None else None


def vms(free: dict[str, str], sizes: Mapping[str, int], look: Look) -> list[Group]:
    """The slides among the files of one folder, and what may be parts of one; what they take leaves `free`."""
    parts = {name: stem for name in free if (stem := part_of(name)) is not None}
    made: list[Group] = []
    lower: dict[str, list[str]] = {}
    for name, path in list(free.items()):
        named = name.lower().endswith((".vms", ".vmu"))
        if not (named or parts) or name in parts or sizes[path] > LARGEST_INDEX:
            continue
        mark = look(path, vendor)
        if mark is not None and mark[0] in ("hamamatsu-vms", "hamamatsu-vmu"):
            del free[name]
            # Once: of many indexes each would be compared with every file.
            lower = lower or _by_lower(free)
            made.append(_indexed(mark[0], path, free, lower, look))
    # What no index names may belong to one that is still to come.
    waiting: dict[str, list[str]] = {}
    for name, stem in parts.items():
        if name in free:
            waiting.setdefault(stem, []).append(free.pop(name))
    for stem, some in waiting.items():
        # The first tile has no number, and is not a picture of its own beside the others.
        for name in (f"{stem}.jpg", f"{stem}.JPG"):
            if name in free and look(free[name], is_jpeg):
                some.append(free.pop(name))
        made += _without_index(stem, sorted(some))
    return made


def _by_lower(free: Mapping[str, str]) -> dict[str, list[str]]:
    lower: dict[str, list[str]] = {}
    for name in free:
        lower.setdefault(plainly(name), []).append(name)
    return lower


def _indexed(
    kind: str, head: str, free: dict[str, str], lower: Mapping[str, list[str]], look: Look
) -> Group:
    """The slide of the index at `head`, with those of `free` that it names; `lower` finds them in any case."""
    members, spelled, absent = [head], [], []
    for wanted in filter(is_plain, look(head, referred)):
        # In another case too, as Windows has it, where only one file can be meant.
        alike = [name for name in lower.get(plainly(wanted), ()) if name in free]
        there = wanted if wanted in free else alike[0] if len(alike) == 1 else ""
        if there not in free:
            absent.append(wanted)
            continue
        members.append(free.pop(there))
        if there != wanted:
            spelled.append((members[-1], wanted))
    return Group(
        kind=kind,
        members=tuple(members),
        missing=absent[0] if absent else None,
        spelled=tuple(spelled),
    )


def _without_index(stem: str, paths: list[str]) -> list[Group]:
    """Parts that wait for ``STEM.vms``: together if they can only be parts of a slide, else each by itself.

    Cameras and people give such names too: ``Slide [1](2,3).jpg``, ``S26-1_macro.jpg``. But only a slide has
    two of these: numbered tiles, a map or a macro, an optimisation file.
    """
    names = [os.path.basename(path).lower() for path in paths]
    numbered = any(name.endswith(").jpg") for name in names)
    pictured = any(name.endswith(("_macro.jpg", "_map.jpg", "_map2.jpg")) for name in names)
    optimised = any(name.endswith(".opt") for name in names)
    is_slide = numbered + pictured + optimised > 1
    return [
        Group(kind="hamamatsu-vms", members=tuple(some), missing=f"{stem}.vms", headless=True)
        for some in ([paths] if is_slide else [[path] for path in paths])
    ]
