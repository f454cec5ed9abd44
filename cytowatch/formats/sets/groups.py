"""Which files belong together: the sets of files that are one slide, and what they still lack.

A name never decides a format, but it may make a file wait for what it comes with. The same rules
hold for loose files in an inbox, for a dropped folder and for the members of an archive.

Source: https://openslide.org/formats/mirax/, /hamamatsu/ and /dicom/;
https://bio-formats.readthedocs.io/en/latest/formats/cellsens-vsi.html
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cytowatch.formats import dicom
from cytowatch.formats.base import Probe
from cytowatch.formats.marks import vendor
from cytowatch.formats.sets.cellsens import cellsens
from cytowatch.formats.sets.group import (
    CELLSENS_FOLDER,
    LARGEST_INDEX,
    Folder,
    Group,
    Look,
    Near,
    is_jpeg,
    plainly,
    stem_of,
)
from cytowatch.formats.sets.index_file import referred, unsafe
from cytowatch.formats.sets.mirax import MIRAX_PART, mirax
from cytowatch.formats.sets.placed import placed
from cytowatch.formats.sets.vms import part_of, vms
from cytowatch.record import names

__all__ = [
    "Group",
    "Look",
    "groups",
    "is_part",
    "parts_around",
    "placed",
    "referred",
    "stems",
    "unsafe",
]

_HEADS = (".mrxs", ".vsi", ".vms", ".vmu")
_SIDECARS = frozenset({".xml", ".ndpa", ".txt"})


#: Of names that are UIDs, as a PACS gives them, the last number looks like an extension; the others are of
#: Siemens (IMA), Philips and older viewers.
_DICOM_ENDING = re.compile(r"(\.(dcm|dicom|dic|dc3|ima|img|\d+))?", re.IGNORECASE)


def stems(name: str) -> frozenset[str]:
    """The stems of the sets that a file or folder of that name may be a part of, without regard to case.

    >>> sorted(stems("_A1_")), sorted(stems("A1(0,1).jpg")), sorted(stems("a1.mrxs"))
    (['_a1_', 'a1'], ['a1', 'a1(0,1)'], ['a1'])
    """
    folder = CELLSENS_FOLDER.fullmatch(name)
    found = (stem_of(name), part_of(name), folder["stem"] if folder else None)
    return frozenset(names.fold(stem) for stem in found if stem)


def is_part(name: str) -> bool:
    """Whether a file of that name waits for others.

    >>> is_part("a.mrxs"), is_part("a_macro.jpg"), is_part("a.svs")
    (True, True, False)
    """
    return name.lower().endswith(_HEADS) or part_of(name) is not None


def parts_around(paths: Iterable[str], stem: str) -> str | None:
    """What a slide is made of, files of which are among `paths` without their folder; None if none are.

    `stem` is how the slide is probably called.

    >>> parts_around(["Slidedat.ini", "Data0000.dat"], "CMU-1")
    'CMU-1.mrxs and the folder CMU-1 beside it'
    """
    found = {os.path.basename(path) for path in paths}
    if any(MIRAX_PART.fullmatch(name) for name in found):
        return Group(kind="mirax-mrxs", members=(f"{stem}.mrxs",)).parts
    if any(re.fullmatch(r"frame_t.*\.ets", name, re.IGNORECASE) for name in found):
        return Group(kind="olympus-vsi", members=(f"{stem}.vsi",)).parts
    return None


def groups(sizes: Mapping[str, int], look: Look) -> list[Group]:
    """Every group among files, given as path and size in bytes; each file is in exactly one."""
    top = Folder("")
    for path in sizes:
        folder = top
        *parts, name = path.split("/")
        for part in parts:
            inner = f"{folder.path}/{part}" if folder.path else part
            folder = folder.folders.setdefault(part, Folder(inner))
        folder.files[name] = path
    waiting = [top]
    found: list[list[Group]] = []
    while waiting:
        found.append(_in_folder(waiting.pop(), sizes, look, waiting))
    # What lies deepest comes first.
    return [group for groups in reversed(found) for group in groups]


def _in_folder(
    folder: Folder, sizes: Mapping[str, int], look: Look, below: list[Folder]
) -> list[Group]:
    """The groups of one folder; the folders in it that belong to none are added to `below`."""
    free = dict(folder.files)
    # Or every folder would be compared with every file.
    by_stem: dict[str, list[str]] = {}
    for name in free if folder.folders else ():
        by_stem.setdefault(plainly(stem_of(name)), []).append(name)
    alike = Counter(plainly(name) for name in folder.folders)
    near = Near(free=free, by_stem=by_stem, alike=alike)
    here: list[Group] = []
    for name, inner in folder.folders.items():
        made = mirax(name, inner, near, look) or cellsens(name, inner, near, look)
        if made is None:
            below.append(inner)
            continue
        here.append(made)
        if not made.headless:
            free.pop(os.path.basename(made.head), None)
    for name in list(free):
        lone = _lone(name, free[name], sizes, look)
        if lone is not None:
            del free[name]
            here.append(lone)
    here += vms(free, sizes, look)
    here += _dicom(free, look)
    return _singles(here, free, look)


def _lone(name: str, path: str, sizes: Mapping[str, int], look: Look) -> Group | None:
    """A head whose folder is not there yet."""
    stem = stem_of(name)
    if name.lower().endswith(".mrxs") and look(path, is_jpeg):
        return Group(kind="mirax-mrxs", members=(path,), missing=f"{stem}/Slidedat.ini")
    small = sizes[path] <= 64 * LARGEST_INDEX
    if name.lower().endswith(".vsi") and small and look(path, _is_plain_tiff):
        return Group(kind="olympus-vsi", members=(path,), missing=f"_{stem}_/stack1/frame_t.ets")
    return None


def _dicom(free: dict[str, str], look: Look) -> list[Group]:
    """The files of one series are one slide, each of its levels a file."""
    series: dict[str, list[str]] = {}
    for name, path in list(free.items()):
        if _DICOM_ENDING.fullmatch(os.path.splitext(name)[1]):
            uid = look(path, dicom.series)
            if uid is not None:
                series.setdefault(uid, []).append(free.pop(name))
    return [
        Group(kind="dicom", members=tuple(sorted(some)), is_open_ended=True)
        for some in series.values()
    ]


def _singles(sets: list[Group], free: dict[str, str], look: Look) -> list[Group]:
    """The sets, and anything that is left by itself; each with the sidecars that share its stem."""
    sidecars = {name for name in free if os.path.splitext(name)[1].lower() in _SIDECARS}
    heads = {os.path.basename(one.head): one.head for one in sets if not one.headless}
    slides = {**heads, **{name: free[name] for name in sorted(free.keys() - sidecars)}}
    by_stem: dict[str, list[str]] = {}
    for name, path in slides.items() if sidecars else ():
        by_stem.setdefault(stem_of(name), []).append(path)
    joined: dict[str, list[str]] = {}
    of_sets = set(heads.values())
    alone = []
    for name in sorted(sidecars):
        base = stem_of(name)
        slide = slides.get(base) or _likeliest(by_stem.get(base, []), of_sets, look)
        if slide is not None and look(free[name], _is_text):
            joined.setdefault(slide, []).append(free[name])
        else:
            alone.append(name)
    left = [Group(kind=None, members=(free[name],)) for name in free if name not in sidecars]
    return [
        *(
            replace(one, sidecars=(*one.sidecars, *joined.get(one.head, ())))
            for one in [*sets, *left]
        ),
        *(Group(kind=None, members=(free[name],)) for name in alone),
    ]


def _likeliest(paths: list[str], heads: set[str], look: Look) -> str | None:
    """Of those that share a stem the slide: a table of results beside it has no sidecars of its own."""
    if len(paths) < 2:
        return paths[0] if paths else None
    return next((path for path in paths if path in heads or not look(path, _is_text)), paths[0])


def _is_plain_tiff(probe: Probe) -> bool:
    return probe.tiff is not None and vendor(probe) is None


def _is_text(probe: Probe) -> bool:
    return b"\0" not in probe.head.removeprefix(b"\xff\xfe").replace(b"\0<", b"<").replace(
        b"<\0", b"<"
    ) or probe.head.startswith((b"\xff\xfe", b"\xfe\xff"))
