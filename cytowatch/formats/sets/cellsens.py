"""CellSens VSI: a TIFF beside a folder with the pixels.

Source: https://bio-formats.readthedocs.io/en/latest/formats/cellsens-vsi.html
"""

from __future__ import annotations

import re

from cytowatch.formats.sets.group import CELLSENS_FOLDER, Folder, Group, Look, Near, is_tiff

__all__ = ["cellsens"]

_FRAME_TIFF = re.compile(r"stack\d+/frame_t.*\.tiff?", re.IGNORECASE)


_ETS = re.compile(r"stack\d+/frame_t.*\.ets", re.IGNORECASE)


def cellsens(name: str, folder: Folder, near: Near, look: Look) -> Group | None:
    found = CELLSENS_FOLDER.fullmatch(name)
    if found is None:
        return None
    stem = found["stem"]
    inside = folder.inside()
    beside = near.with_stem(name, stem)
    head = next((path for other, path in beside if other.lower() == f"{stem}.vsi".lower()), None)
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
    members = sorted(inside.values())
    return Group(
        kind="olympus-vsi",
        members=tuple([head, *members] if head else members),
        missing=missing,
        headless=head is None,
        folder=folder.path,
    )
