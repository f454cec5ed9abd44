"""What `detect` says of a file: its format by content, and what it lacks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cytowatch import durable
from cytowatch.formats import Probe
from cytowatch.formats.completeness.whole import missing
from cytowatch.formats.sets import groups
from cytowatch.formats.sets.groups import Group
from cytowatch.record import names
from cytowatch.record.errors import FormatError
from cytowatch.stages.detect import identify

__all__ = ["told"]

T = TypeVar("T")


def told(path: Path) -> dict[str, Any]:
    """What the file at `path` is, what it lacks, and what would be done with it, ready for JSON."""
    answer: dict[str, Any] = {
        "file": str(path), "format": None, "evidence": None, "treated": None, "missing": None,
        "reason": None,
    }  # fmt: skip
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return {**answer, "reason": "unreadable", "says": f"{error.strerror}"}
    try:
        if not path.is_file():
            said = "a directory: name the files in it" if path.is_dir() else "not a regular file"
            return {**answer, "reason": "not_a_regular_file", "says": said}
        beside = _beside(path)
        group = _group(path, beside)
        name = path.name
        if group is not None and group.kind is not None:
            # As a decoder would find them: names that differ in case are made alike.
            placed = groups.placed(group, path.name)
            name, beside = placed[path.name], beside | frozenset(placed.values())
        probe = Probe(descriptor, name=name, beside=beside, path=str(path))
        lacking = missing(descriptor, probe.size_bytes) or (group.missing if group else None)
        found, evidence = identify(probe)
    except FormatError as error:
        return {**answer, "reason": error.reason, "says": error.detail}
    finally:
        os.close(descriptor)
    says = f"{found.name} ({evidence}): {found.treated}"
    if lacking is not None:
        says = f"{found.name} ({evidence}), but not whole: missing {lacking}"
    return {
        **answer,
        "format": found.id,
        "evidence": evidence,
        "treated": found.treated,
        "missing": lacking,
        "says": says,
    }


def _beside(path: Path) -> frozenset[str]:
    """The files of its folder, and those in the folders that have its name."""
    folder = path.absolute().parent
    entries = list(os.scandir(folder))
    found = {entry.name for entry in entries if entry.is_file()}
    # In any case, as a claim compares them.
    stems = {names.fold(path.stem), names.fold(f"_{path.stem}_")}
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and names.fold(entry.name) in stems:
            for top, _, files in durable.walk(Path(entry.path)):
                found |= {os.path.relpath(os.path.join(top, file), folder) for file in files}
    return frozenset(found)


def _group(file: Path, beside: frozenset[str]) -> Group | None:
    """The set that the file belongs to, or the file itself."""
    folder = file.absolute().parent

    def look(path: str, function: Callable[[Probe], T]) -> T:
        with open(folder / path, "rb") as opened:
            return function(Probe(opened.fileno(), name=os.path.basename(path)))

    sizes = {name: (folder / name).stat().st_size for name in beside}
    found = groups.groups(sizes, look)
    return next((group for group in found if file.name in group.members), None)
