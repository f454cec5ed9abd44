"""CellSens VSI: a TIFF beside a folder with the pixels.

Source: https://bio-formats.readthedocs.io/en/latest/formats/cellsens-vsi.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cytowatch.formats.base import Probe
from cytowatch.formats.sets.group import (
    CELLSENS_FOLDER,
    Folder,
    Group,
    Look,
    Near,
    is_picture,
    is_tiff,
    plainly,
)
from cytowatch.formats.structure import vsi
from cytowatch.formats.structure.vsi import Stack

__all__ = ["cellsens"]

_FRAME_TIFF = re.compile(r"stack\d+/frame_t.*\.tiff?", re.IGNORECASE)


_OWN = re.compile(r"(stack\d+/|blob)", re.IGNORECASE)
_ETS = re.compile(r"stack\d+/frame_t.*\.ets", re.IGNORECASE)


def cellsens(name: str, folder: Folder, near: Near, look: Look) -> Group | None:
    found = CELLSENS_FOLDER.fullmatch(name)
    if found is None:
        return None
    stem = found["stem"]
    inside = folder.inside()
    beside = near.with_stem(name, stem)
    head = next((path for other, path in beside if plainly(other) == plainly(f"{stem}.vsi")), None)
    frames = [path for relative, path in inside.items() if _ETS.fullmatch(relative)]
    if head is None and not frames:
        return None
    if not frames and any(_FRAME_TIFF.fullmatch(relative) for relative in inside):
        # Its pixels are TIFFs, each of which is an image by itself.
        return None
    if head is None:
        head = next((path for _, path in beside if look(path, is_tiff)), None)
    missing = None if frames else f"{name}/stack1/frame_t.ets"
    missing = missing if head else f"{stem}.vsi"
    lacking: list[Stack] = []
    strays: list[str] = []
    if head and frames:
        announced = look(head, _stacks)
        if announced:
            lacking, strays = _compared(announced, sorted(frames), look)
    if lacking:
        there = len(announced) - len(lacking)
        missing = f"a stack of it, an .ets file in {name} ({stem}.vsi announces {len(announced)}, and {there} came)"
    if missing is None:
        strays += _pictures(inside, look)
    members = sorted(path for path in inside.values() if path not in strays)
    return Group(
        kind="olympus-vsi",
        members=tuple([head, *members] if head else members),
        sidecars=tuple(strays),
        missing=missing,
        headless=head is None,
        folder=folder.path,
        is_spare=bool(lacking) and all(one.spare for one in lacking),
    )


def _pictures(inside: Mapping[str, str], look: Look) -> list[str]:
    """The pictures that somebody put into the folder: the scanner's own files are in a stack, or called blobs."""
    return sorted(
        path for name, path in inside.items() if not _OWN.match(name) and look(path, is_picture)
    )


def _stacks(probe: Probe) -> list[Stack]:
    return vsi.stacks(probe.descriptor)


def _covered(probe: Probe) -> tuple[int, int, int, int] | None:
    return vsi.tiles_of(probe.descriptor)


def _compared(
    announced: list[Stack], frames: list[str], look: Look
) -> tuple[list[Stack], list[str]]:
    """The stacks for which there is no file among `frames`, and the files that are of none of them.

    A file may have fewer tiles than its stack is large, where nothing was scanned, but never more.
    """
    free = list(announced)
    strays: list[str] = []
    sizes = [(look(path, _covered), path) for path in frames]
    # Large ones first, or a small one would take their place. What cannot be read fits anywhere, and comes last.
    for covered, path in sorted(sizes, key=lambda one: one[0] or (), reverse=True):
        fitting = [one for one in free if _fits(one, covered)]
        if fitting:
            free.remove(min(fitting, key=lambda one: one.width * one.height))
        else:
            strays.append(path)
    return free, strays


def _fits(stack: Stack, covered: tuple[int, int, int, int] | None) -> bool:
    if covered is None or not stack.width or not stack.height:
        return True
    width, height, across, down = covered
    return width < stack.width + across and height < stack.height + down
